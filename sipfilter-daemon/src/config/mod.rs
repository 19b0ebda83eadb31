//! Configuration: TOML files, the provider catalogue and PBX presets, turned into checked settings.
//!
//! [`Config::load`] reads a file and either gives a configuration that can be run, with warnings, or every error that it found.
//! It asks nothing of the system but files: whether an interface exists and which addresses it has is the daemon's matter
//! ([`Config::resolve`]).
//!
//! Invariant: a [`Config`] that exists is valid, but for what only the running system can tell.

mod catalogue;
mod changes;
mod diagnostic;
mod document;
mod pbx;
mod provider;
mod raw;
mod reference;
mod resolve;
mod scope;
mod summary;
mod tuning;
mod values;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

pub use catalogue::Origin;
pub use changes::{Change, changes};
pub use diagnostic::{Diagnostic, Severity, SourceFile};
pub use resolve::ResolveError;
pub use summary::{AllowSummary, ProviderSummary, SignallingLimits, Summary, providers};
pub use tuning::{DEFAULT_METRICS, Log, LogFormat, LogLevel, OnStop, Privacy, Redact, XdpMode};
pub use values::as_host_name;

use catalogue::{Catalogue, Profile};
use diagnostic::suggestion;
use document::Document;
use provider::{Facts, Rates};
use raw::{RawConfig, RawProvider, RawTrunk, Text};
use toml::Spanned;

use crate::engine::settings::{Provider, Settings};

/// Where the configuration is, unless the operator says otherwise.
pub const DEFAULT_PATH: &str = "/etc/sipfilter/sipfilter.toml";

/// A configuration file is at most this long; what is longer is some other file.
const MAX_BYTES: u64 = 1024 * 1024;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// The outer interfaces, at least one, no duplicates.
    pub interfaces: Vec<String>,
    /// What the engine is told. `settings.pbx.addresses` is empty where the interfaces' own are meant; [`Config::resolve`]
    /// fills it in.
    pub settings: Settings,
    /// Where each of `settings.providers` comes from, in the same order.
    pub origins: Vec<Origin>,
    /// The directory whose profiles and presets go before the embedded ones.
    pub catalogue: Option<PathBuf>,
    /// The PBX preset, where one is used.
    pub preset: Option<String>,
    /// How the kernel program is attached.
    pub xdp: XdpMode,
    /// What is left behind when the daemon is stopped.
    pub on_stop: OnStop,
    /// How the daemon logs.
    pub log: Log,
    /// Where Prometheus finds the metrics, if it does.
    pub metrics: Option<SocketAddr>,
    /// Whom log, control sockets and captures do not name.
    pub privacy: Privacy,
    /// What the operator probably did not mean. All are warnings.
    pub warnings: Vec<Diagnostic>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; give the right file with --config FILE", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// It can be read, but not used.
    #[error("{0}")]
    Invalid(Invalid),
}

/// Everything that is wrong with a configuration: at least one error, and the warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<Diagnostic>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.0 {
            writeln!(f, "{diagnostic}\n")?;
        }
        let errors = self
            .0
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count();
        match errors {
            1 => write!(f, "the configuration has 1 error"),
            _ => write!(f, "the configuration has {errors} errors"),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = read_text(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Checks a text as if it had been read from `path`. A relative `catalogue` is looked for beside it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, LoadError> {
        Self::parse_for(path, path, text)
    }

    /// Checks a text that is shown as `shown` and is to become the content of `path`.
    pub fn parse_for(shown: &Path, path: &Path, text: &str) -> Result<Self, LoadError> {
        let (mut doc, raw) = Document::parse::<RawConfig>(shown, text);
        let config = raw.and_then(|raw| check(&mut doc, path, &raw));
        let is_valid = !doc.has_errors();
        let diagnostics = doc.into_diagnostics();
        match config {
            Some(config) if is_valid => Ok(Self {
                warnings: diagnostics,
                ..config
            }),
            _ => Err(LoadError::Invalid(Invalid(diagnostics))),
        }
    }
}

/// Reads a text file of reasonable size.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is longer than {MAX_BYTES} bytes, which no configuration is"),
        ));
    }
    Ok(text)
}

/// Every check, in the order of the file; each reports for itself, so that one mistake hides no other.
fn check(doc: &mut Document, path: &Path, raw: &RawConfig) -> Option<Config> {
    let directory = raw
        .catalogue
        .as_ref()
        .map(|text| path.parent().unwrap_or(Path::new("")).join(text.get_ref()));
    let catalogue = catalogue(doc, raw.catalogue.as_ref(), directory.as_deref());
    let interfaces = interfaces(doc, raw);
    let pbx = pbx::check(doc, raw.pbx.as_ref(), &catalogue);
    let own = own_providers(doc, &raw.provider, &catalogue);
    let rates = Rates::check(doc, &raw.limits.signalling);
    let trunks = trunks(doc, &raw.trunk, &catalogue, &own, rates);
    warn_of_unused(doc, raw);
    let filtering = scope::check(doc, raw, pbx.as_ref().map(|(pbx, _)| pbx));
    let limits = tuning::limits(doc, &raw.limits);
    let timers = tuning::timers(doc, &raw.timers);
    let log = tuning::log(doc, &raw.log);
    let metrics = tuning::metrics(doc, &raw.metrics);
    let privacy = tuning::privacy(doc, &raw.privacy);
    let xdp = tuning::xdp(doc, &raw.xdp);
    let on_stop = tuning::on_stop(doc, &raw.on_stop);
    let (pbx, preset) = pbx?;
    let (origins, providers) = trunks.into_iter().unzip();
    Some(Config {
        path: path.to_owned(),
        interfaces,
        settings: Settings {
            pbx,
            providers,
            limits,
            timers,
            filtering,
        },
        origins,
        catalogue: directory,
        preset,
        xdp,
        on_stop,
        log,
        metrics,
        privacy,
        warnings: Vec::new(),
    })
}

fn catalogue(doc: &mut Document, key: Option<&Text>, directory: Option<&Path>) -> Catalogue {
    let mut catalogue = Catalogue::built_in();
    if let (Some(key), Some(directory)) = (key, directory)
        && let Err(error) = catalogue.add_directory(directory)
    {
        doc.error(
            key.span(),
            format!("cannot read the catalogue {}: {error}", directory.display()),
            "name a directory that holds `providers/NAME.toml` or `pbx/NAME.toml`, or leave the key out",
        );
    }
    catalogue
}

fn interfaces(doc: &mut Document, raw: &RawConfig) -> Vec<String> {
    const HELP: &str = "name the interface that faces the providers, as `ip link` shows it: interfaces = [\"eth0\"]";
    let Some(texts) = &raw.interfaces else {
        doc.missing(None, "interfaces", "no interface is given", HELP);
        return Vec::new();
    };
    if texts.get_ref().is_empty() {
        doc.error(texts.span(), "the list of interfaces is empty", HELP);
    }
    values::list(doc, texts, |doc, text| {
        let name = text.get_ref();
        // The kernel's own rule (dev_valid_name): at most 15 bytes, no slash, colon or space, not `.` or `..`.
        let is_valid = (1..=15).contains(&name.len())
            && !name
                .contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
            && name != "."
            && name != "..";
        if !is_valid {
            doc.error(
                text.span(),
                format!("{name:?} cannot be an interface's name"),
                HELP,
            );
        }
        is_valid.then(|| name.clone())
    })
}

/// The `[[provider]]` sections by name. A section that was refused is there too, so that no trunk is accused of naming nobody.
fn own_providers(
    doc: &mut Document,
    raw: &[Spanned<RawProvider>],
    catalogue: &Catalogue,
) -> BTreeMap<String, Facts> {
    let mut own = BTreeMap::new();
    for section in raw {
        let facts = Facts::check(doc, section.get_ref().facts());
        let Some(name) = &section.get_ref().name else {
            doc.missing(
                Some(section.span()),
                "name",
                "this provider has no name",
                "add name = \"lab\", and name it in a trunk: provider = \"lab\"",
            );
            continue;
        };
        if !is_provider_name(doc, name) {
            continue;
        }
        if catalogue
            .provider_names()
            .any(|known| known == name.get_ref())
        {
            doc.warn(
                name.span(),
                format!("this replaces the catalogue's `{}` altogether", name.get_ref()),
                "to change single facts, set them in the [[trunk]] instead; for a provider of your own, choose another name",
            );
        }
        if own.insert(name.get_ref().clone(), facts).is_some() {
            doc.error(
                name.span(),
                format!("a second provider is called {:?}", name.get_ref()),
                "give each [[provider]] a name of its own",
            );
        }
    }
    own
}

fn is_provider_name(doc: &mut Document, name: &Text) -> bool {
    let is_valid = (1..=32).contains(&name.get_ref().len())
        && name.get_ref().bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
        });
    if !is_valid {
        doc.error(
            name.span(),
            format!("{:?} cannot be a provider's name", name.get_ref()),
            "write 1 to 32 lower-case letters, digits, `-` or `_`: it becomes a metric label and a column",
        );
    }
    is_valid
}

fn trunks(
    doc: &mut Document,
    raw: &[Spanned<RawTrunk>],
    catalogue: &Catalogue,
    own: &BTreeMap<String, Facts>,
    rates: Rates,
) -> Vec<(Origin, Provider)> {
    if raw.is_empty() {
        doc.missing(
            None,
            "trunk",
            "no trunk is given, so nobody could call",
            "add a section [[trunk]] with provider = \"vapi-us\" (`sipfilterctl providers` lists them all)",
        );
    }
    let mut origins = Vec::new();
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    let mut placed: Vec<(Range<usize>, Provider)> = Vec::new();
    for section in raw {
        let overrides = Facts::check(doc, section.get_ref().facts());
        let Some(name) = &section.get_ref().provider else {
            doc.missing(
                Some(section.span()),
                "provider",
                "this trunk names no provider",
                "add provider = \"vapi-us\" (`sipfilterctl providers` lists them all)",
            );
            continue;
        };
        if seen.insert(name.get_ref(), ()).is_some() {
            doc.error(
                name.span(),
                format!("a second trunk uses `{}`", name.get_ref()),
                "one [[trunk]] covers all numbers and accounts of a provider: merge the two",
            );
            continue;
        }
        let Some((facts, origin, unpublished)) = base_facts(doc, name, catalogue, own) else {
            continue;
        };
        let mut facts = overrides.or(facts);
        facts.rates = facts.rates.or(rates);
        if let Some(provider) =
            facts.finish(doc, name.span(), name.get_ref(), unpublished.as_deref())
        {
            origins.push(origin);
            placed.push((name.span(), provider));
        }
    }
    provider::check_overlaps(doc, &placed);
    provider::check_media_limits(doc, &placed);
    let providers = placed.into_iter().map(|(_, provider)| provider);
    origins.into_iter().zip(providers).collect()
}

/// What the provider of this name says for itself.
fn base_facts(
    doc: &mut Document,
    name: &Text,
    catalogue: &Catalogue,
    own: &BTreeMap<String, Facts>,
) -> Option<(Facts, Origin, Option<String>)> {
    if let Some(facts) = own.get(name.get_ref()) {
        return Some((facts.clone(), Origin::Configuration, None));
    }
    match catalogue.provider(name.get_ref()) {
        Some((profile, origin, diagnostics)) => {
            doc.absorb(diagnostics);
            let Profile {
                facts, unpublished, ..
            } = profile?;
            Some((facts, origin, unpublished))
        }
        None => {
            let known = own
                .keys()
                .map(String::as_str)
                .chain(catalogue.provider_names());
            let help = suggestion(name.get_ref(), known, "the catalogue has");
            doc.error(
                name.span(),
                format!("unknown provider {:?}", name.get_ref()),
                format!("{help}; describe any other in a section [[provider]]"),
            );
            None
        }
    }
}

fn warn_of_unused(doc: &mut Document, raw: &RawConfig) {
    for section in &raw.provider {
        let Some(name) = &section.get_ref().name else {
            continue;
        };
        let is_used = raw.trunk.iter().any(|trunk| {
            trunk
                .get_ref()
                .provider
                .as_ref()
                .is_some_and(|used| used.get_ref() == name.get_ref())
        });
        if !is_used {
            doc.warn(
                name.span(),
                format!(
                    "no trunk uses the provider `{}`, so its calls are dropped",
                    name.get_ref()
                ),
                format!(
                    "add a section [[trunk]] with provider = \"{}\", or remove this one",
                    name.get_ref()
                ),
            );
        }
    }
}
