//! How the packet policy is applied, as the configuration says it: what it becomes, and exactly what is said of mistakes.

use std::path::Path;

use sipfilter_daemon::{
    config::{Config, Severity},
    engine::settings::{Egress, Enforcement, Scope},
};

const REST: &str =
    "interfaces = [\"eth0\"]\n[pbx]\npreset = \"asterisk\"\n[[trunk]]\nprovider = \"vapi-us\"\n";

/// What is said of a file that begins with `top` and ends with `end`, without the lines' numbers.
#[track_caller]
fn check(name: &str, top: &str, end: &str, expect: &[&str]) {
    let text = format!("{top}\n{REST}{end}");
    let diagnostics = match Config::parse(Path::new("sipfilter.toml"), &text) {
        Ok(config) => config.warnings,
        Err(error) => error.diagnostics().to_vec(),
    };
    let found: Vec<String> = diagnostics
        .iter()
        .map(|it| {
            let severity = match it.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            format!("{severity} {}: {} => {}", it.key, it.message, it.help)
        })
        .collect();
    assert_eq!(found, expect, "{name}:\n{text}");
}

#[test]
fn each_mistake_is_named_with_its_remedy() {
    for (name, top, end, expect) in CASES {
        check(name, top, end, expect);
    }
}

#[test]
fn the_default_enforces_and_minds_voice_alone() {
    let config = Config::parse(Path::new("sipfilter.toml"), REST).expect("it is good");
    let filtering = config.settings.filtering;
    assert_eq!(filtering.enforcement, Enforcement::Enforce);
    assert_eq!(filtering.scope, Scope::Voice);
    assert_eq!(filtering.egress, Egress::Count);
    let [vapi] = config.settings.providers.as_slice() else {
        panic!("one provider");
    };
    assert!(vapi.media.replies.is_empty());
}

#[test]
fn egress_and_replies_are_taken_as_written() {
    let text = format!(
        "egress = \"enforce\"\n{REST}media = {{ replies = [\"3478\", \"10000-50000\"] }}\n"
    );
    let config = Config::parse(Path::new("sipfilter.toml"), &text).expect("it is good");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.settings.filtering.egress, Egress::Enforce);
    assert_eq!(
        config.settings.providers[0].media.replies,
        [3_478..=3_478, 10_000..=50_000]
    );
}

#[test]
fn an_allow_list_becomes_rules() {
    let text = format!(
        "enforcement = \"observe\"\nscope = \"strict\"\n{REST}{}",
        r#"
[[strict.allow]]
protocol = "tcp"
ports = ["22", "8000-8100"]
from = ["192.0.2.0/24", "2001:db8::7"]
[[strict.allow]]
protocol = "gre"
"#
    );
    let config = Config::parse(Path::new("sipfilter.toml"), &text).expect("it is good");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let filtering = config.settings.filtering;
    assert_eq!(filtering.enforcement, Enforcement::Observe);
    let Scope::Strict(rules) = filtering.scope else {
        panic!("strict scope");
    };
    let [tcp, gre] = rules.as_slice() else {
        panic!("two rules");
    };
    assert_eq!(tcp.protocol, 6);
    assert_eq!(tcp.ports, [22..=22, 8_000..=8_100]);
    assert_eq!(
        tcp.from,
        [
            "192.0.2.0/24".parse().unwrap(),
            "2001:db8::7/128".parse().unwrap()
        ]
    );
    assert_eq!((gre.protocol, gre.ports.len(), gre.from.len()), (47, 0, 0));
}

const CASES: &[(&str, &str, &str, &[&str])] = &[
    (
        "words",
        "enforcement = \"off\"\nscope = \"all\"\negress = \"drop\"",
        "",
        &[
            r#"error enforcement: unknown value "off" => the possible values are: `enforce`, `observe`"#,
            r#"error scope: unknown value "all" => the possible values are: `voice`, `strict`"#,
            r#"error egress: unknown value "drop" => the possible values are: `count`, `enforce`"#,
        ],
    ),
    (
        "a rule without its parts",
        "scope = \"strict\"",
        r#"
[[strict.allow]]
ports = ["22"]
[[strict.allow]]
protocol = "tpc"
ports = ["22"]
[[strict.allow]]
protocol = "tcp"
[[strict.allow]]
protocol = "tcp"
ports = ["22"]
"#,
        &[
            r#"error strict.allow[0].protocol: this section names no protocol => add protocol = "tcp" or "udp", and ports = ["22"]"#,
            r#"error strict.allow[1].protocol: unknown value "tpc" => did you mean `tcp`? the possible values are: `tcp`, `udp`, `gre`, `ipip`, `ipv6`, `l2tp`, `sctp`"#,
            r#"error strict.allow[2].ports: this section names no ports => add ports = ["22", "8000-8100"]; every port would be "1-65535""#,
        ],
    ),
    (
        "parts that do not fit",
        "scope = \"strict\"",
        r#"
[[strict.allow]]
protocol = "gre"
ports = ["1"]
[[strict.allow]]
protocol = "udp"
ports = ["90-80"]
[[strict.allow]]
protocol = "tcp"
ports = ["22"]
from = []
[[strict.allow]]
protocol = "tcp"
ports = ["22"]
from = ["0.0.0.0/0"]
form = "192.0.2.0/24"
"#,
        &[
            r#"warning scope: strict scope lets in no new connection to TCP port 22: sessions that are established go on, but nobody can log in by SSH => add [[strict.allow]] with protocol = "tcp", ports = ["22"], from = ["192.0.2.0/24"] (or the port that is really used, if you do not need 22)"#,
            r#"error strict.allow[0].ports: ports are read of TCP and UDP alone, not of protocol gre => leave the key out: the rule lets in the whole protocol"#,
            r#"error strict.allow[1].ports[0]: the range 90-80 runs backwards => write "80-90""#,
            r#"error strict.allow[2].from: the list of sources is empty, which would be nobody => name prefixes, from = ["192.0.2.0/24"], or leave the key out for anywhere"#,
            r#"error strict.allow[3].from[0]: 0.0.0.0/0 would let everybody in => write the provider's own prefixes; an unknown provider's addresses are not to be guessed"#,
            r#"error strict.allow[3].form: unknown key `form` => did you mean `from`? the keys here are: `protocol`, `ports`, `from`"#,
        ],
    ),
    (
        "more port ranges than the kernel holds for one prefix",
        "scope = \"strict\"",
        r#"
[[strict.allow]]
protocol = "tcp"
ports = ["22", "24", "26", "28", "30", "32", "34", "36"]
[[strict.allow]]
protocol = "udp"
ports = ["22", "24", "26", "28", "30", "32", "34", "36"]
from = ["192.0.2.0/24"]
[[strict.allow]]
protocol = "47"
"#,
        &[
            r#"error strict.allow[2]: with this rule 192.0.2.0/24 has 17 port ranges, and at most 16 fit into the kernel's list for one prefix => join neighbouring ports into ranges, or let in fewer"#,
        ],
    ),
    (
        "warning: strict scope without ssh, and ports that are voice's",
        "scope = \"strict\"",
        r#"
[[strict.allow]]
protocol = "tcp"
ports = ["443", "5060"]
[[strict.allow]]
protocol = "udp"
ports = ["9000-11000"]
"#,
        &[
            r#"warning scope: strict scope lets in no new connection to TCP port 22: sessions that are established go on, but nobody can log in by SSH => add [[strict.allow]] with protocol = "tcp", ports = ["22"], from = ["192.0.2.0/24"] (or the port that is really used, if you do not need 22)"#,
            r#"warning strict.allow[0].ports[1]: the PBX's SIP ports are among 5060, and the allow-list is not asked about those => who may signal is said by a [[trunk]], and media passes through pinholes; nothing to do if the rest is meant"#,
            r#"warning strict.allow[1].ports[0]: the PBX's RTP ports are among 9000-11000, and the allow-list is not asked about those => who may signal is said by a [[trunk]], and media passes through pinholes; nothing to do if the rest is meant"#,
        ],
    ),
    (
        "warning: an allow-list that nobody asks for",
        "",
        "[[strict.allow]]\nprotocol = \"tcp\"\nports = [\"22\"]\n",
        &[
            r#"warning strict.allow[0]: the allow-list has no effect: only strict scope asks for it => write scope = "strict" at the top of the file, or remove the section"#,
        ],
    ),
    (
        "replies from no port",
        "",
        "media = { replies = [\"3478\", \"50000-10000\"] }\n",
        &[
            r#"error trunk[0].media.replies[1]: the range 50000-10000 runs backwards => write "10000-50000""#,
        ],
    ),
    (
        "more media ranges than the kernel holds for one prefix",
        "",
        "media = { replies = [\"2\", \"4\", \"6\", \"8\", \"10\", \"12\", \"14\", \"16\", \"18\", \"20\", \"22\", \"24\", \"26\", \"28\", \"30\", \"32\"] }\n",
        &[
            r#"error trunk[0].provider: with `vapi-us`, the media of 0.0.0.0/0 has 17 port ranges, and at most 16 fit into the kernel's list for one prefix => join the ranges of media.ports and media.replies, or give media.prefixes so that the providers are told apart"#,
        ],
    ),
];
