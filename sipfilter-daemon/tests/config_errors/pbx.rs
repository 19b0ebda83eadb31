//! `[pbx]`, with the addresses behind a NAT.

use crate::Case;

pub const CASES: &[Case] = &[
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
];
