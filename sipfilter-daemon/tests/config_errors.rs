//! Configurations with mistakes, and exactly what is said of each: place, key, message and remedy.

use std::{fs, path::Path};

use proptest::prelude::*;
use sipfilter_daemon::config::{Config, Diagnostic, Severity};

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
    for (name, text, expect) in CASES {
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
        let (_, text, _) = case.get(CASES);
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

/// Name, file, and what is said of it.
const CASES: &[(&str, &str, &[&str])] = &[
    (
        "an empty file lacks everything",
        "",
        &[
            r#"error 1:1 interfaces: no interface is given => name the interface that faces the providers, as `ip link` shows it: interfaces = ["eth0"]"#,
            r#"error 1:1 pbx: the section [pbx] is missing => add [pbx] with preset = "asterisk" (or another of "3cx", "asterisk", "freepbx", "freeswitch", "kamailio-rtpengine"), or rtp_ports = "10000-20000" as in the PBX's own configuration"#,
            r#"error 1:1 trunk: no trunk is given, so nobody could call => add a section [[trunk]] with provider = "vapi-us" (`sipfilterctl providers` lists them all)"#,
        ],
    ),
    (
        "text that is no TOML",
        r#"interfaces = [eth0]
"#,
        &[
            r#"error 1:15 interfaces[0]: this is not TOML: string values must be quoted, expected literal string => texts, addresses and port ranges stand in quotes: rtp_ports = "10000-20000""#,
        ],
    ),
    (
        "an unclosed text",
        r#"interfaces = ["eth0]
"#,
        &[
            "error 1:21 interfaces[0]: this is not TOML: unclosed array, expected `]` => a line is `key = value`, `[section]` or `[[list-section]]`; texts, addresses and port ranges stand in quotes",
            r#"error 1:21 interfaces[0]: this is not TOML: invalid basic string, expected `"` => texts, addresses and port ranges stand in quotes: rtp_ports = "10000-20000""#,
        ],
    ),
    (
        "a key given twice",
        r#"interfaces = ["eth0"]
interfaces = ["eth1"]
"#,
        &[
            "error 2:1 -: this is not TOML: duplicate key => keep one of the two, or write a list in one place",
        ],
    ),
    (
        "an unknown key near a known one",
        r#"interface = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 1:1 interface: unknown key `interface` => did you mean `interfaces`? the keys here are: `interfaces`, `catalogue`, `enforcement`, `scope`, `egress`, `provisional`, `on_stop`, `strict`, `pbx`, `trunk`, `provider`, `limits`, `timers`, `log`, `metrics`, `privacy`, `xdp`",
        ],
    ),
    (
        "an unknown section",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[reports]
port = 1
"#,
        &[
            "error 6:2 reports: unknown key `reports` => the keys here are: `interfaces`, `catalogue`, `enforcement`, `scope`, `egress`, `provisional`, `on_stop`, `strict`, `pbx`, `trunk`, `provider`, `limits`, `timers`, `log`, `metrics`, `privacy`, `xdp`",
        ],
    ),
    (
        "metrics: no port",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[metrics]
listen = "127.0.0.1"
"#,
        &[
            r#"error 7:10 metrics.listen: "127.0.0.1" is neither an address with a port nor "off" => write "127.0.0.1:9760", or "[::1]:9760", or "off""#,
        ],
    ),
    (
        "warning: metrics for everybody",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[metrics]
listen = "0.0.0.0:9760"
"#,
        &[
            "warning 7:10 metrics.listen: whoever reaches 0.0.0.0:9760 can read the metrics => they name your providers and count your calls: let a firewall admit the Prometheus server alone, or listen on 127.0.0.1",
        ],
    ),
    (
        "interfaces: not a list",
        r#"interfaces = "eth0"
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 1:14 interfaces: wrong kind of value: string "eth0", expected a list => write it like this: interfaces = ["eth0"]"#,
        ],
    ),
    (
        "interfaces: empty",
        r#"interfaces = []
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 1:14 interfaces: the list of interfaces is empty => name the interface that faces the providers, as `ip link` shows it: interfaces = ["eth0"]"#,
        ],
    ),
    (
        "interfaces: a name twice",
        r#"interfaces = ["eth0", "eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
"#,
        &[r#"error 1:23 interfaces[1]: "eth0" is listed twice => remove one of the two"#],
    ),
    (
        "interfaces: an impossible name",
        r#"interfaces = ["a-name-that-is-too-long"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 1:15 interfaces[0]: "a-name-that-is-too-long" cannot be an interface's name => name the interface that faces the providers, as `ip link` shows it: interfaces = ["eth0"]"#,
        ],
    ),
    (
        "pbx: neither preset nor ports",
        r#"interfaces = ["eth0"]
[pbx]
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 2:1 pbx.rtp_ports: the PBX's RTP ports are not given => add rtp_ports = "10000-20000" as in the PBX's own configuration, or preset = one of "3cx", "asterisk", "freepbx", "freeswitch", "kamailio-rtpengine""#,
        ],
    ),
    (
        "pbx: unknown preset",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterix"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 3:10 pbx.preset: unknown PBX preset "asterix" => did you mean `asterisk`? the presets are: `3cx`, `asterisk`, `freepbx`, `freeswitch`, `kamailio-rtpengine`; for any other PBX write rtp_ports = "10000-20000" instead"#,
        ],
    ),
    (
        "pbx: ports reversed",
        r#"interfaces = ["eth0"]
[pbx]
rtp_ports = "20000-10000"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 3:13 pbx.rtp_ports: the range 20000-10000 runs backwards => write "10000-20000""#,
        ],
    ),
    (
        "pbx: ports not a range",
        r#"interfaces = ["eth0"]
[pbx]
rtp_ports = "many"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 3:13 pbx.rtp_ports: "many" is not a range of ports => write the first and the last port, each from 1 to 65535: "10000-20000""#,
        ],
    ),
    (
        "pbx: port too high",
        r#"interfaces = ["eth0"]
[pbx]
rtp_ports = "10000-70000"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 3:13 pbx.rtp_ports: "10000-70000" is not a range of ports => write the first and the last port, each from 1 to 65535: "10000-20000""#,
        ],
    ),
    (
        "pbx: port zero",
        r#"interfaces = ["eth0"]
[pbx]
rtp_ports = "0-20000"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 3:13 pbx.rtp_ports: port 0 is no port => write "1-20000", or better the range that is really used"#,
        ],
    ),
    (
        "pbx: ports as a number",
        r#"interfaces = ["eth0"]
[pbx]
rtp_ports = 10000
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 3:13 pbx.rtp_ports: wrong kind of value: integer `10000`, expected a string => write it like this: rtp_ports = "10000-20000""#,
        ],
    ),
    (
        "pbx: SIP port inside the RTP range",
        r#"interfaces = ["eth0"]
[pbx]
rtp_ports = "5000-6000"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 3:13 pbx.rtp_ports: the PBX's RTP range 5000-6000 contains its SIP port 5060 => narrow the range here and in the PBX so that it leaves out 5060, or name the SIP ports in signalling = { udp = […] }",
        ],
    ),
    (
        "pbx: SIP port inside the UDPTL range",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
udptl_ports = "5060-5070"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 4:15 pbx.udptl_ports: the PBX's UDPTL range 5060-5070 contains its SIP port 5060 => narrow the range here and in the PBX so that it leaves out 5060, or name the SIP ports in signalling = { udp = […] }",
        ],
    ),
    (
        "pbx: address with a length",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
addresses = ["203.0.113.10/24"]
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 4:14 pbx.addresses[0]: "203.0.113.10/24" is not an IP address => write the address without a length: "203.0.113.10""#,
        ],
    ),
    (
        "pbx: no address",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
addresses = []
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 4:13 pbx.addresses: the list of protected addresses is empty => list the PBX's addresses, or leave the key out for those of the interfaces",
        ],
    ),
    (
        "pbx: multicast, mapped",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
addresses = ["224.0.0.1", "::ffff:192.0.2.1"]
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 4:14 pbx.addresses[0]: 224.0.0.1 is no host's address => write a unicast address, such as "203.0.113.10""#,
            r#"error 4:27 pbx.addresses[1]: ::ffff:192.0.2.1 is an IPv4 address in IPv6 clothes => write "192.0.2.1""#,
        ],
    ),
    (
        "pbx: too many addresses",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14", "192.0.2.15", "192.0.2.16", "192.0.2.17"]
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 4:13 pbx.addresses: 17 IPv4 addresses, and at most 16 fit into the kernel's policy => keep the 16 on which the PBX takes calls",
        ],
    ),
    (
        "pbx: too many SIP ports",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
signalling = { udp = [1, 2, 3, 4, 5] }
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 4:22 pbx.signalling.udp: 5 ports for one transport, and at most 4 fit into the kernel's policy => keep the 4 that are in use",
        ],
    ),
    (
        "pbx: SIP port zero and twice",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
signalling = { udp = [0, 5060, 5060] }
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 4:23 pbx.signalling.udp[0]: port 0 is no port => write a port from 1 to 65535, usually 5060 (5061 for TLS)",
            "error 4:32 pbx.signalling.udp[2]: port 5060 is listed twice => remove one of the two",
        ],
    ),
    (
        "pbx: SIP port too high",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
signalling = { udp = [70000] }
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 4:23 pbx.signalling.udp[0]: wrong kind of value: integer `70000`, expected a port number from 1 to 65535 => write it like this: udp = [5060]",
        ],
    ),
    (
        "pbx: no SIP port at all",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
signalling = { udp = [], tcp = [], tls = [] }
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 2:1 pbx: the PBX has no SIP port at all => leave at least one: signalling = { udp = [5060] }",
        ],
    ),
    (
        "pbx: TLS on the TCP port",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
signalling = { tls = [5060] }
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 4:23 pbx.signalling.tls[0]: port 5060 is listed for tcp and for tls => TLS runs over TCP: list the port under the one that is spoken there (usually tcp = [5060], tls = [5061])",
        ],
    ),
    (
        "nat: outside the addresses",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
addresses = ["203.0.113.10"]
[pbx.nat]
"192.0.2.1" = "203.0.113.11"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 6:15 pbx.nat."192.0.2.1": 203.0.113.11 is not one of pbx.addresses => the right side is the address that the outside sees: add "203.0.113.11" to pbx.addresses"#,
        ],
    ),
    (
        "nat: families differ",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[pbx.nat]
"192.0.2.1" = "2001:db8::1"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 5:15 pbx.nat."192.0.2.1": 192.0.2.1 and 2001:db8::1 are of different families => map an IPv4 address to an IPv4 address and an IPv6 address to an IPv6 address"#,
        ],
    ),
    (
        "nat: not an address",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[pbx.nat]
"pbx" = "203.0.113.11"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 5:1 pbx.nat.pbx: "pbx" is not an IP address => write one address, such as "203.0.113.10" or "2001:db8::10""#,
        ],
    ),
    (
        "nat: to itself",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[pbx.nat]
"192.0.2.1" = "192.0.2.1"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            r#"error 5:15 pbx.nat."192.0.2.1": 192.0.2.1 is mapped to itself => remove the line: an address that stands for itself needs none"#,
        ],
    ),
    (
        "no trunk",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
"#,
        &[
            r#"error 1:1 trunk: no trunk is given, so nobody could call => add a section [[trunk]] with provider = "vapi-us" (`sipfilterctl providers` lists them all)"#,
        ],
    ),
    (
        "trunk in single brackets",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[trunk]
provider = "vapi-us"
"#,
        &[
            "error 4:1 trunk: wrong kind of value: table, expected a list => write it like this: a section [[trunk]], in double brackets, for each trunk",
        ],
    ),
    (
        "trunk without provider",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
"#,
        &[
            r#"error 4:1 trunk[0].provider: this trunk names no provider => add provider = "vapi-us" (`sipfilterctl providers` lists them all)"#,
        ],
    ),
    (
        "trunk with unknown provider",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi"
"#,
        &[
            r#"error 5:12 trunk[0].provider: unknown provider "vapi" => the catalogue has: `bland`, `didww`, `elevenlabs`, `flynumber`, `livekit`, `retell`, `twilio`, `vapi-eu`, `vapi-us`, `vonage`; describe any other in a section [[provider]]"#,
        ],
    ),
    (
        "two trunks of one provider",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 7:12 trunk[1].provider: a second trunk uses `vapi-us` => one [[trunk]] covers all numbers and accounts of a provider: merge the two",
        ],
    ),
    (
        "an unpublished profile",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "bland"
"#,
        &[
            r#"error 5:12 trunk[0].provider: provider `bland` has no signalling addresses => Bland AI publishes no signalling addresses: ask Bland AI for those of your account; then add its addresses below this line, for example: signalling = ["198.51.100.10/32"]"#,
        ],
    ),
    (
        "provider without name",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[[provider]]
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
"#,
        &[
            r#"error 6:1 provider[0].name: this provider has no name => add name = "lab", and name it in a trunk: provider = "lab""#,
        ],
    ),
    (
        "provider with a bad name",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[[provider]]
name = "My Lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
"#,
        &[
            r#"error 7:8 provider[0].name: "My Lab" cannot be a provider's name => write 1 to 32 lower-case letters, digits, `-` or `_`: it becomes a metric label and a column"#,
            r#"warning 7:8 provider[0].name: no trunk uses the provider `My Lab`, so its calls are dropped => add a section [[trunk]] with provider = "My Lab", or remove this one"#,
        ],
    ),
    (
        "provider without addresses",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
media = { ports = "40000-60000" }
"#,
        &[
            r#"error 5:12 trunk[0].provider: provider `lab` has no signalling addresses => add its addresses below this line, for example: signalling = ["198.51.100.10/32"]"#,
        ],
    ),
    (
        "provider without ports",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
"#,
        &[
            r#"error 5:12 trunk[0].provider: provider `lab` has no RTP port range => say from which ports its RTP comes: media = { ports = "40000-60000" }, or "1-65535" if it does not say"#,
        ],
    ),
    (
        "provider: ports reversed are not missing as well",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "2-1" }
"#,
        &[r#"error 9:19 provider[0].media.ports: the range 2-1 runs backwards => write "1-2""#],
    ),
    (
        "provider: signalling of the wrong kind is not missing as well",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = "198.51.100.10/32"
media = { ports = "40000-60000" }
"#,
        &[
            r#"error 8:14 provider[0].signalling: wrong kind of value: string "198.51.100.10/32", expected a list => write it like this: signalling = ["198.51.100.10/32"]"#,
        ],
    ),
    (
        "provider: bad prefixes",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/24", "198.51.100.0/33", "198.51.100", "0.0.0.0/0", "::ffff:192.0.2.0/120"]
media = { ports = "40000-60000" }
"#,
        &[
            r#"error 8:15 provider[0].signalling[0]: 198.51.100.10/24 has bits set beyond its /24 => write "198.51.100.0/24" for the whole network, or "198.51.100.10/32" for the one address"#,
            r#"error 8:35 provider[0].signalling[1]: "198.51.100.0/33" is not an address prefix => the length "33" must be a number from 1 to 32; for this one address alone write "198.51.100.0/32""#,
            r#"error 8:54 provider[0].signalling[2]: "198.51.100" is not an address prefix => write an address, a slash and the length: "198.51.100.10/32", "203.0.113.0/24" or "2001:db8::/32""#,
            "error 8:68 provider[0].signalling[3]: 0.0.0.0/0 would let everybody in => write the provider's own prefixes; an unknown provider's addresses are not to be guessed",
            r#"error 8:81 provider[0].signalling[4]: ::ffff:192.0.2.0/120 is an IPv4 address in IPv6 clothes => write "192.0.2.0/24""#,
        ],
    ),
    (
        "provider: host name",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["sip.example.org"]
media = { ports = "40000-60000" }
"#,
        &[
            r#"error 8:15 provider[0].signalling[0]: "sip.example.org" is not an address prefix => host names are not taken, because what a name resolves to need not be what signals: write an address, a slash and the length: "198.51.100.10/32", "203.0.113.0/24" or "2001:db8::/32""#,
        ],
    ),
    (
        "provider: unknown transport",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
transports = ["upd"]
"#,
        &[
            r#"error 10:15 provider[0].transports[0]: unknown value "upd" => did you mean `udp`? the possible values are: `udp`, `tcp`, `tls`"#,
        ],
    ),
    (
        "provider: no transport",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
transports = []
"#,
        &[
            r#"error 10:14 provider[0].transports: no transport is left => list those in use: transports = ["udp", "tcp", "tls"], or leave the key out for all three"#,
        ],
    ),
    (
        "provider: transport without port",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
signalling_ports = { tls = [] }
"#,
        &[
            r#"error 5:12 trunk[0].provider: provider `lab` uses tls but has no tls port => take "tls" out of transports, or give signalling_ports.tls a port"#,
        ],
    ),
    (
        "provider: prefix mode without prefixes",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { source = "prefix", ports = "1-2" }
"#,
        &[
            r#"error 5:12 trunk[0].provider: provider `lab` takes its media from prefixes, and none is given => add media.prefixes = ["203.0.113.0/24"], or set media.source = "signalled""#,
        ],
    ),
    (
        "provider: too many prefixes",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "1-2", prefixes = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"] }
"#,
        &[
            r#"error 5:12 trunk[0].provider: provider `lab` has 5 media prefixes of one family, and one pinhole holds 4 => join them into fewer, wider prefixes, or set media.source = "signalled" and early_media = "on-answer""#,
        ],
    ),
    (
        "provider: unknown source mode",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { source = "any", ports = "1-2" }
"#,
        &[
            r#"error 9:20 provider[0].media.source: unknown value "any" => the possible values are: `signalled`, `exact`, `prefix`, `latch`"#,
        ],
    ),
    (
        "provider: unknown early media",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
early_media = "on_offer"
"#,
        &[
            r#"error 10:15 provider[0].early_media: unknown value "on_offer" => did you mean `on-offer`? the possible values are: `on-offer`, `on-answer`"#,
        ],
    ),
    (
        "provider called twice",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
"#,
        &[
            r#"error 11:8 provider[1].name: a second provider is called "lab" => give each [[provider]] a name of its own"#,
        ],
    ),
    (
        "two trunks share a prefix",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["44.229.228.186"]
media = { ports = "40000-60000" }
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 11:12 trunk[1].provider: `vapi-us` and `lab` both signal from 44.229.228.186/32 => one address belongs to one trunk: remove it from one of the two (signalling = […] in the trunk)",
        ],
    ),
    (
        "limits: out of bounds",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[limits]
calls = 0
pinholes = 9999999
"#,
        &[
            "error 7:9 limits.calls: 0 is outside 1 to 1000000 => write a number from 1 to 1000000",
            "error 8:12 limits.pinholes: 9999999 is outside 1 to 4194304 => write a number from 1 to 4194304",
        ],
    ),
    (
        "limits of signalling: out of bounds, wrong kind, unknown",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
signalling_limits = { messages_per_second = 1000001, segments_per_second = "many" }
[limits.signalling]
requests_per_second = 9
invites_per_second = 10
"#,
        &[
            "error 6:45 trunk[0].signalling_limits.messages_per_second: 1000001 is outside 10 to 1000000 => write a number from 10 to 1000000",
            r#"error 6:76 trunk[0].signalling_limits.segments_per_second: wrong kind of value: string "many", expected a positive number => write it like this: segments_per_second = 32000"#,
            "error 8:23 limits.signalling.requests_per_second: 9 is outside 10 to 1000000 => write a number from 10 to 1000000",
            "error 9:1 limits.signalling.invites_per_second: unknown key `invites_per_second` => did you mean `messages_per_second`? the keys here are: `requests_per_second`, `messages_per_second`, `segments_per_second`",
        ],
    ),
    (
        "limits: share above the whole",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[limits]
calls = 10
calls_per_provider = 11
"#,
        &[
            "error 8:22 limits.calls_per_provider: calls_per_provider = 11 is more than calls = 10 => write at most 10, or raise limits.calls",
        ],
    ),
    (
        "limits: negative",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[limits]
calls = -1
"#,
        &[
            "error 7:9 limits.calls: wrong kind of value: integer `-1`, expected a positive number => write it like this: calls = 20000",
        ],
    ),
    (
        "timers: no unit, no duration, too long",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[timers]
ack = "32"
invite = "soon"
linger = "2d"
"#,
        &[
            r#"error 7:7 timers.ack: "32" is not a duration => a duration needs its unit: write "32s" for seconds or "32m" for minutes"#,
            r#"error 8:10 timers.invite: "soon" is not a duration => write a number and its unit: "32s", "5m", "1h 30m""#,
            r#"error 9:10 timers.linger: 2d is outside 1s to 1day => write a duration from "1s" to "1day""#,
        ],
    ),
    (
        "timers: hold shorter than idle",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[timers]
media_idle = "10m"
hold_idle = "5m"
"#,
        &[
            r#"error 8:13 timers.hold_idle: hold_idle is shorter than media_idle, 10m => write at least "10m": a call on hold is silent for longer"#,
        ],
    ),
    (
        "log and xdp: unknown words",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[log]
level = "verbose"
format = "jsn"
[xdp]
mode = "skb"
"#,
        &[
            r#"error 7:9 log.level: unknown value "verbose" => the possible values are: `error`, `warn`, `info`, `debug`, `trace`"#,
            r#"error 8:10 log.format: unknown value "jsn" => did you mean `json`? the possible values are: `text`, `json`"#,
            r#"error 10:8 xdp.mode: unknown value "skb" => the possible values are: `auto`, `native`, `generic`"#,
        ],
    ),
    (
        "catalogue: no such directory",
        r#"catalogue = "/nonexistent/sipfilter"
interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
"#,
        &[
            "error 1:13 catalogue: cannot read the catalogue /nonexistent/sipfilter: it has neither a folder `providers` nor a folder `pbx` => name a directory that holds `providers/NAME.toml` or `pbx/NAME.toml`, or leave the key out",
        ],
    ),
    (
        "warning: unused provider",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
"#,
        &[
            r#"warning 7:8 provider[0].name: no trunk uses the provider `lab`, so its calls are dropped => add a section [[trunk]] with provider = "lab", or remove this one"#,
        ],
    ),
    (
        "warning: replaces the catalogue",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[[provider]]
name = "vapi-us"
signalling = ["198.51.100.10/32"]
media = { ports = "40000-60000" }
"#,
        &[
            "warning 7:8 provider[0].name: this replaces the catalogue's `vapi-us` altogether => to change single facts, set them in the [[trunk]] instead; for a provider of your own, choose another name",
        ],
    ),
    (
        "warning: overlap",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "flynumber"
[[trunk]]
provider = "didww"
signalling = ["46.19.209.14/32"]
"#,
        &[
            "warning 7:12 trunk[1].provider: 46.19.209.14/32 of `didww` lies inside 46.19.208.0/21 of `flynumber`: its calls count as `didww`'s => the most specific prefix wins; nothing to do if that is what is meant",
        ],
    ),
    (
        "warning: wide prefix",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "lab"
[[provider]]
name = "lab"
signalling = ["10.0.0.0/8"]
media = { ports = "40000-60000" }
"#,
        &[
            "warning 8:15 provider[0].signalling[0]: 10.0.0.0/8 is very wide: whoever is in it may signal to the PBX => list the provider's own signalling addresses if it publishes them",
        ],
    ),
    (
        "warning: early media from anywhere",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
early_media = "on-offer"
"#,
        &[
            r#"warning 5:12 trunk[0].provider: early media of provider `vapi-us` is let in from any address while a call rings, because it has no media.prefixes => add media.prefixes = ["203.0.113.0/24"], or set early_media = "on-answer""#,
        ],
    ),
    (
        "warning: short timers",
        r#"interfaces = ["eth0"]
[pbx]
preset = "asterisk"
[[trunk]]
provider = "vapi-us"
[timers]
invite = "1m"
ack = "5s"
"#,
        &[
            r#"warning 7:10 timers.invite: 1m is short: calls can be lost => write "3m" or more: a call may ring that long (RFC 3261, timer C)"#,
            r#"warning 8:7 timers.ack: 5s is short: calls can be lost => write "32s" or more: a 200 is retransmitted that long (RFC 3261, 64*T1)"#,
        ],
    ),
];
