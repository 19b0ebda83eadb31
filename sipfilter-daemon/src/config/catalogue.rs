//! The catalogue: provider profiles and PBX presets, embedded in the program and replaceable from a directory.
//!
//! It reads files and checks each by itself; which of them are used is decided by the main file. Nothing is asked of DNS: a
//! name's addresses need not be the ones that signal.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use toml::value::Datetime;

use super::{
    document::Document,
    provider::Facts,
    raw::{RawPreset, RawProfile, Text},
    read_text, values,
};
use crate::engine::settings::SignallingPorts;

macro_rules! embedded {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../config/", $folder, "/", $name, ".toml")))),*]
    };
}

/// Provider profiles by name.
const PROVIDERS: &[(&str, &str)] = embedded!("providers":
    "bland", "didww", "elevenlabs", "flynumber", "livekit", "retell", "twilio", "vapi-eu", "vapi-us", "vonage");
/// PBX presets by name.
const PRESETS: &[(&str, &str)] = embedded!("pbx":
    "3cx", "asterisk", "freepbx", "freeswitch", "kamailio-rtpengine");

/// The names of the catalogue's two folders, in the source tree as in an override directory.
const FOLDERS: (&str, &str) = ("providers", "pbx");

/// Where a provider's facts were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A profile embedded in the program.
    BuiltIn,
    /// A file of the catalogue directory.
    File(PathBuf),
    /// A `[[provider]]` of the configuration itself.
    Configuration,
}

impl Origin {
    /// A short word for tables and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::File(_) => "file",
            Self::Configuration => "configuration",
        }
    }
}

/// A provider profile, each value checked by itself.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub facts: Facts,
    pub source: String,
    pub verified: String,
    /// Where the operator finds the addresses that the provider does not publish.
    pub unpublished: Option<String>,
    /// The host names that the provider documents. They say nothing about addresses that may signal; an operator can have them compared.
    pub names: Vec<String>,
}

/// A PBX preset.
#[derive(Debug, Clone)]
pub(super) struct Preset {
    pub name: String,
    pub rtp_ports: RangeInclusive<u16>,
    pub udptl_ports: Option<RangeInclusive<u16>>,
    pub signalling: SignallingPorts,
}

struct Entry {
    origin: Origin,
    text: String,
}

/// All profiles and presets that a configuration can name.
pub(super) struct Catalogue {
    providers: BTreeMap<String, Entry>,
    presets: BTreeMap<String, Entry>,
}

impl Catalogue {
    /// What is embedded.
    pub(super) fn built_in() -> Self {
        let entries = |table: &[(&str, &str)]| {
            table
                .iter()
                .map(|(name, text)| {
                    let entry = Entry {
                        origin: Origin::BuiltIn,
                        text: (*text).to_owned(),
                    };
                    ((*name).to_owned(), entry)
                })
                .collect()
        };
        Self {
            providers: entries(PROVIDERS),
            presets: entries(PRESETS),
        }
    }

    /// Adds the `*.toml` files of `directory/providers` and `directory/pbx`; one of an embedded name takes its place. Either
    /// folder may be absent, both may not.
    pub(super) fn add_directory(&mut self, directory: &Path) -> io::Result<()> {
        let providers = add_folder(&mut self.providers, &directory.join(FOLDERS.0))?;
        let presets = add_folder(&mut self.presets, &directory.join(FOLDERS.1))?;
        if providers || presets {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "it has neither a folder `{}` nor a folder `{}`",
                FOLDERS.0, FOLDERS.1
            ),
        ))
    }

    pub(super) fn provider_names(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    pub(super) fn preset_names(&self) -> impl Iterator<Item = &str> {
        self.presets.keys().map(String::as_str)
    }

    /// The profile of this name, where it comes from, and what is wrong with its file.
    pub(super) fn provider(&self, name: &str) -> Option<(Option<Profile>, Origin, Document)> {
        let entry = self.providers.get(name)?;
        let (profile, doc) = parse_profile(&entry.path(FOLDERS.0, name), name, &entry.text);
        Some((profile, entry.origin.clone(), doc))
    }

    /// The preset of this name, and what is wrong with its file.
    pub(super) fn preset(&self, name: &str) -> Option<(Option<Preset>, Document)> {
        let entry = self.presets.get(name)?;
        Some(parse_preset(
            &entry.path(FOLDERS.1, name),
            name,
            &entry.text,
        ))
    }
}

impl Entry {
    fn path(&self, folder: &str, name: &str) -> PathBuf {
        match &self.origin {
            Origin::File(path) => path.clone(),
            _ => PathBuf::from(format!("<built-in>/{folder}/{name}.toml")),
        }
    }
}

/// False where there is no such folder.
fn add_folder(entries: &mut BTreeMap<String, Entry>, folder: &Path) -> io::Result<bool> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(in_file(folder, &error)),
    };
    for item in listing {
        let path = item.map_err(|error| in_file(folder, &error))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let is_toml = path
            .extension()
            .is_some_and(|extension| extension == "toml");
        if let (Some(name), true) = (stem, is_toml) {
            let text = read_text(&path).map_err(|error| in_file(&path, &error))?;
            let entry = Entry {
                origin: Origin::File(path.clone()),
                text,
            };
            entries.insert(name.to_owned(), entry);
        }
    }
    Ok(true)
}

fn in_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn parse_profile(path: &Path, name: &str, text: &str) -> (Option<Profile>, Document) {
    let (mut doc, raw) = Document::parse::<RawProfile>(path, text);
    let Some(raw) = raw else {
        return (None, doc);
    };
    check_head(&mut doc, name, &raw.name, &raw.source, &raw.verified);
    let facts = Facts::check(&mut doc, raw.facts());
    if facts.signalling.is_none() && raw.unpublished.is_none() {
        doc.missing(
            None,
            "signalling",
            "a profile needs signalling addresses, or `unpublished` to say where an operator gets them",
            "add signalling = [\"198.51.100.10/32\"]",
        );
    }
    let names = raw
        .names
        .as_ref()
        .map(|texts| values::list(&mut doc, texts, values::host_name))
        .unwrap_or_default();
    let owned = |text: &Option<Text>| text.as_ref().map(|text| text.get_ref().clone());
    let profile = Profile {
        facts,
        source: owned(&raw.source).unwrap_or_default(),
        verified: owned(&raw.verified).unwrap_or_default(),
        unpublished: owned(&raw.unpublished),
        names,
    };
    ((!doc.has_errors()).then_some(profile), doc)
}

fn parse_preset(path: &Path, name: &str, text: &str) -> (Option<Preset>, Document) {
    let (mut doc, raw) = Document::parse::<RawPreset>(path, text);
    let Some(raw) = raw else {
        return (None, doc);
    };
    check_head(&mut doc, name, &raw.name, &raw.source, &raw.verified);
    let rtp_ports = match &raw.rtp_ports {
        Some(text) => values::port_range(&mut doc, text),
        None => {
            doc.missing(
                None,
                "rtp_ports",
                "a preset needs the PBX's RTP ports",
                "add rtp_ports = \"10000-20000\"",
            );
            None
        }
    };
    let udptl_ports = raw
        .udptl_ports
        .as_ref()
        .and_then(|text| values::port_range(&mut doc, text));
    let signalling =
        values::signalling_ports(&mut doc, &raw.signalling, &SignallingPorts::default());
    let preset = rtp_ports
        .filter(|_| !doc.has_errors())
        .map(|rtp_ports| Preset {
            name: name.to_owned(),
            rtp_ports,
            udptl_ports,
            signalling,
        });
    (preset, doc)
}

/// What every file of the catalogue starts with: its name, where the facts are from, and when they were last true.
fn check_head(
    doc: &mut Document,
    name: &str,
    given: &Option<Text>,
    source: &Option<Text>,
    verified: &Option<Text>,
) {
    match given {
        Some(text) if text.get_ref() == name => {}
        Some(text) => doc.error(
            text.span(),
            format!("the name {:?} is not the file's", text.get_ref()),
            format!("write name = \"{name}\", or rename the file"),
        ),
        None => doc.missing(
            None,
            "name",
            "the name is missing",
            format!("add name = \"{name}\""),
        ),
    }
    if source.is_none() {
        doc.missing(
            None,
            "source",
            "the source is missing: facts drift, and somebody will have to look again",
            "add source = \"title of the page\"",
        );
    }
    match verified {
        Some(text) if is_date(text.get_ref()) => {}
        Some(text) => doc.error(
            text.span(),
            format!("{:?} is not a date", text.get_ref()),
            "write year, month and day: verified = \"2026-11-21\"",
        ),
        None => doc.missing(
            None,
            "verified",
            "the date of the last check is missing",
            "add verified = \"2026-11-21\"",
        ),
    }
}

fn is_date(text: &str) -> bool {
    Datetime::from_str(text)
        .is_ok_and(|datetime| datetime.date.is_some() && datetime.time.is_none())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn files(folder: &str) -> BTreeSet<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../config")
            .join(folder);
        fs::read_dir(path)
            .expect("the folder is there")
            .map(|item| item.expect("it can be read").file_name())
            .map(|name| name.to_string_lossy().trim_end_matches(".toml").to_owned())
            .collect()
    }

    fn owned<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        names.map(ToOwned::to_owned).collect()
    }

    #[test]
    fn every_file_of_the_folders_is_embedded() {
        let catalogue = Catalogue::built_in();
        assert_eq!(owned(catalogue.provider_names()), files("providers"));
        assert_eq!(owned(catalogue.preset_names()), files("pbx"));
    }

    #[test]
    fn every_embedded_file_is_without_fault() {
        let catalogue = Catalogue::built_in();
        for name in catalogue.provider_names() {
            let (profile, _, doc) = catalogue.provider(name).expect("it is in the list");
            assert_eq!(doc.into_diagnostics(), [], "{name}");
            assert!(profile.is_some(), "{name}");
        }
        for name in catalogue.preset_names() {
            let (preset, doc) = catalogue.preset(name).expect("it is in the list");
            assert_eq!(doc.into_diagnostics(), [], "{name}");
            assert!(preset.is_some(), "{name}");
        }
    }

    #[test]
    fn a_catalogue_file_needs_its_head() {
        for (text, expect) in [
            (
                "source = \"x\"\nverified = \"2026-11-21\"\nsignalling = [\"192.0.2.1/32\"]",
                "the name is missing",
            ),
            (
                "name = \"b\"\nsource = \"x\"\nverified = \"2026-11-21\"\nsignalling = [\"192.0.2.1/32\"]",
                "the name \"b\" is not the file's",
            ),
            (
                "name = \"a\"\nverified = \"2026-11-21\"\nsignalling = [\"192.0.2.1/32\"]",
                "the source is missing: facts drift, and somebody will have to look again",
            ),
            (
                "name = \"a\"\nsource = \"x\"\nverified = \"2026-13-21\"\nsignalling = [\"192.0.2.1/32\"]",
                "\"2026-13-21\" is not a date",
            ),
            (
                "name = \"a\"\nsource = \"x\"\nverified = \"2026-11-21\"",
                "a profile needs signalling addresses, or `unpublished` to say where an operator gets them",
            ),
            (
                "name = \"a\"\nsource = \"x\"\nverified = \"2026-11-21\"\nsignalling = [\"192.0.2.1/32\"]\nnames = [\"sip:a.example\"]",
                "\"sip:a.example\" is not a host name",
            ),
        ] {
            let (profile, doc) = parse_profile(Path::new("a.toml"), "a", text);
            assert!(profile.is_none(), "{text}");
            let messages: Vec<String> = doc
                .into_diagnostics()
                .into_iter()
                .map(|it| it.message)
                .collect();
            assert_eq!(messages, [expect], "{text}");
        }
    }
}
