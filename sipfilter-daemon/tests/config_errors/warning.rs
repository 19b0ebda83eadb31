//! What is let pass with a word.

use crate::Case;

pub const CASES: &[Case] = &[
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
