//! Configurations with mistakes, and exactly what is said of each: place, key, message and remedy.

mod file;
mod pbx;
mod trunk;
mod tuning;
mod warning;

use std::{fs, path::Path};

use proptest::prelude::*;
use sipfilter_daemon::config::{Config, Diagnostic, Severity};

/// Name, file, and what is said of it.
type Case = (&'static str, &'static str, &'static [&'static str]);

fn cases() -> impl Iterator<Item = &'static Case> {
    let all = [
        file::CASES,
        pbx::CASES,
        trunk::CASES,
        tuning::CASES,
        warning::CASES,
    ];
    all.into_iter().flatten()
}

fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match Config::parse(Path::new("sipfilter.toml"), text) {
        Ok(config) => config.warnings,
        Err(error) => error.diagnostics().to_vec(),
    }
}

/// `error LINE:COLUMN KEY: MESSAGE => REMEDY`
fn line(diagnostic: &Diagnostic) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let key = match diagnostic.key.as_str() {
        "" => "-",
        key => key,
    };
    format!(
        "{severity} {}:{} {key}: {} => {}",
        diagnostic.line(),
        diagnostic.column(),
        diagnostic.message,
        diagnostic.help
    )
}

#[test]
fn each_mistake_is_named_with_its_place_and_its_remedy() {
    for (name, text, expect) in cases() {
        let found: Vec<String> = diagnostics(text).iter().map(line).collect();
        assert_eq!(found, *expect, "{name}:\n{text}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_its_order() {
    let text = r#"interfaces = "eth0"
[pbx]
prset = "asterisk"
rtp_ports = "2-1"
[[trunk]]
provider = "vapi-uss"
media = { ports = 5 }
[timers]
ack = "32"
"#;
    let found: Vec<(usize, String)> = diagnostics(text)
        .into_iter()
        .map(|it| (it.line(), it.key))
        .collect();
    let expect = [
        (1, "interfaces"),
        (3, "pbx.prset"),
        (4, "pbx.rtp_ports"),
        (6, "trunk[0].provider"),
        (7, "trunk[0].media.ports"),
        (9, "timers.ack"),
    ];
    assert_eq!(found, expect.map(|(line, key)| (line, key.to_owned())));
}

#[test]
fn a_message_shows_the_line_with_a_mark_under_the_mistake() {
    let text = "interfaces = [\"eth0\"]\n[pbx]\n  rtp_ports = \"2-1\" # réservé\n[[trunk]]\nprovider = \"vapi-us\"\n";
    let found = diagnostics(text);
    let expect = r#"error: the range 2-1 runs backwards
 --> sipfilter.toml:3:15, key `pbx.rtp_ports`
  |
3 |   rtp_ports = "2-1" # réservé
  |               ^^^^^
  = help: write "1-2""#;
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [expect]
    );
}

#[test]
fn control_characters_of_the_file_do_not_reach_the_terminal() {
    for text in [
        "\"x\\u001b[31m\" = 1\n",
        "[[provider]]\nname = \"\\u001b[31m\"\n",
        "interfaces = [\"\u{9b}31m\"]\n",
        "x\u{1b}[31m = 1\n",
    ] {
        for diagnostic in diagnostics(text) {
            let shown = diagnostic.to_string();
            assert!(
                !shown.chars().any(|c| c.is_control() && c != '\n'),
                "{shown:?}"
            );
        }
    }
}

#[test]
fn more_prefixes_than_the_kernel_holds_are_refused() {
    let prefixes: Vec<String> = (0..=4096)
        .map(|index| format!("\"198.18.{}.{}\"", index / 256, index % 256))
        .collect();
    let text = format!(
        "interfaces = [\"eth0\"]\n[pbx]\npreset = \"asterisk\"\n[[trunk]]\nprovider = \"vapi-us\"\nsignalling = [{}]\n",
        prefixes.join(", ")
    );
    let found: Vec<String> = diagnostics(&text).iter().map(line).collect();
    assert_eq!(
        found,
        [
            "error 5:12 trunk[0].provider: 4097 signalling prefixes up to here, and at most 4096 fit into the kernel's table => join neighbouring prefixes into wider ones"
        ]
    );
}

#[test]
fn a_file_of_the_catalogue_directory_goes_before_the_embedded_one_and_its_errors_name_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let providers = directory.path().join("catalogue/providers");
    fs::create_dir_all(&providers).expect("a directory");
    let profile = providers.join("vapi-us.toml");
    let main = directory.path().join("sipfilter.toml");
    let text = "interfaces = [\"eth0\"]\ncatalogue = \"catalogue\"\n[pbx]\npreset = \"asterisk\"\n[[trunk]]\nprovider = \"vapi-us\"\n";
    let head = "name = \"vapi-us\"\nsource = \"a letter\"\nverified = \"2026-11-21\"\n";

    let good = format!("{head}signalling = [\"192.0.2.7\"]\nmedia = {{ ports = \"1-2\" }}\n");
    fs::write(&profile, good).expect("a file");
    let config = Config::parse(&main, text).expect("it loads");
    let [vapi] = config.settings.providers.as_slice() else {
        panic!("one provider");
    };
    assert_eq!(vapi.signalling, ["192.0.2.7/32".parse().expect("a prefix")]);

    fs::write(&profile, format!("{head}signaling = [\"192.0.2.7\"]\n")).expect("a file");
    let error = Config::parse(&main, text).expect_err("it does not load");
    let [first, ..] = error.diagnostics() else {
        panic!("a diagnostic");
    };
    assert_eq!(first.file.name, profile.display().to_string());
    assert_eq!((first.line(), first.key.as_str()), (4, "signaling"));
    assert!(
        first.help.starts_with("did you mean `signalling`?"),
        "{}",
        first.help
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_crashes_the_loader(text in any::<String>()) {
        for diagnostic in diagnostics(&text) {
            prop_assert!(!diagnostic.help.is_empty());
            prop_assert!(!diagnostic.to_string().is_empty());
        }
    }

    #[test]
    fn no_change_of_a_plausible_file_crashes_the_loader(
        case in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        length in 0_usize..20,
        patch in "[\"\\[\\]{}=.,a-z0-9\n é]{0,8}",
    ) {
        let cases: Vec<_> = cases().collect();
        let (_, text, _) = case.get(&cases);
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len() + 1);
        let after = (at + length).min(chars.len());
        let changed: String = chars[..at].iter().copied().chain(patch.chars()).chain(chars[after..].iter().copied()).collect();
        for diagnostic in diagnostics(&changed) {
            prop_assert!(!diagnostic.help.is_empty());
            prop_assert!(!diagnostic.to_string().is_empty());
        }
    }
}
