//! `[[trunk]]` and `[[provider]]`.

use crate::Case;

pub const CASES: &[Case] = &[
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
];
