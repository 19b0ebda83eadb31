//! What has a default: limits, timers, log, catalogue.

use crate::Case;

pub const CASES: &[Case] = &[
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
];
