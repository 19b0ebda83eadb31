//! The file as a whole, its sections, and its first keys.

use crate::Case;

pub const CASES: &[Case] = &[
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
];
