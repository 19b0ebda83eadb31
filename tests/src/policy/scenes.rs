//! The same scene under every mode: what is watched only, and what strict scope makes of the rest.
//!
//! Each scene has settings of its own and its packets in order; the pinholes are those of [`cases`].

use sipfilter_common::reason::{Action, Reason};
use sipfilter_daemon::engine::settings::{Allow, Enforcement, Filtering, Scope, Settings};

use super::{
    cases::{Case, PBX4, PBX6, SIP, Way, arp, cases, inward, raw, settings},
    frame::{Frame, ICMP, TCP},
};

const GRE: u8 = 47;
const ESP: u8 = 50;
const SCTP: u8 = 132;
const ICMP6: u8 = 58;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 0x04;

/// Settings, and what they make of packets.
pub struct Scene {
    /// What it shows.
    pub name: &'static str,
    /// The settings.
    pub settings: Settings,
    /// The packets, in order.
    pub cases: Vec<Case>,
    /// Reasons that call for a drop by themselves and pass here.
    pub tolerated: fn(Reason) -> bool,
}

impl Scene {
    /// What must become of a packet.
    pub fn action(&self, reason: Reason) -> Action {
        if (self.tolerated)(reason) {
            Action::Pass
        } else {
            reason.action()
        }
    }
}

/// Every scene.
pub fn scenes() -> Vec<Scene> {
    vec![
        Scene {
            name: "by default",
            settings: settings(),
            cases: cases(),
            tolerated: |_| false,
        },
        Scene {
            name: "observing",
            settings: observing(),
            cases: cases(),
            tolerated: |_| true,
        },
        Scene {
            name: "strict",
            settings: strict(),
            cases: strict_cases(),
            tolerated: |_| false,
        },
        Scene {
            name: "observing strictly",
            settings: Settings {
                filtering: Filtering {
                    enforcement: Enforcement::Observe,
                    ..strict().filtering
                },
                ..settings()
            },
            cases: strict_cases(),
            tolerated: |_| true,
        },
    ]
}

fn observing() -> Settings {
    let mut settings = settings();
    settings.filtering.enforcement = Enforcement::Observe;
    settings
}

fn strict() -> Settings {
    let allow = |protocol, ports: &[(u16, u16)], from: &[&str]| Allow {
        protocol,
        ports: ports.iter().map(|&(first, last)| first..=last).collect(),
        from: from
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
    };
    let mut settings = settings();
    settings.filtering.scope = Scope::Strict(vec![
        allow(6, &[(443, 443), (8_000, 8_100)], &[]),
        allow(6, &[(22, 22)], &["192.0.2.0/24", "2001:db8:9::/48"]),
        allow(17, &[(51_820, 51_820)], &["192.0.2.64/26"]),
        allow(GRE, &[], &["192.0.2.7/32"]),
    ]);
    settings
}

fn strict_cases() -> Vec<Case> {
    let to = |port: u16| format!("{PBX4}:{port}");
    let to6 = |port: u16| format!("{PBX6}:{port}");
    let syn = |source: &str, destination: &str| Frame::tcp(source, destination, &[]).flags(SYN);
    let other = |protocol, source: &str| Frame::other(protocol, source, &to(0), &[0; 8]);
    vec![
        raw("arp passes in strict scope", Way::In, arp(), Reason::NotIp),
        inward(
            "what is not protected is not in scope",
            syn("192.0.2.9:40000", "203.0.113.99:23"),
            Reason::NotProtected,
        ),
        inward(
            "sip of a provider",
            Frame::udp("198.51.100.10:5060", &to(5060), SIP),
            Reason::Signalling,
        ),
        inward(
            "sip of a stranger, as ever",
            Frame::udp("192.0.2.9:5060", &to(5060), SIP),
            Reason::UnknownSource,
        ),
        inward(
            "media without a pinhole, as ever",
            Frame::udp("192.0.2.9:40000", &to(10_002), &[0x80, 0]),
            Reason::NoPinhole,
        ),
        inward("ping", other(ICMP, "192.0.2.9:0"), Reason::OtherProtocol),
        inward(
            "neighbour discovery",
            Frame::other(ICMP6, "[2001:db8:8::9]:0", &to6(0), &[135, 0, 0, 0]),
            Reason::OtherProtocol,
        ),
        inward("esp", other(ESP, "192.0.2.9:0"), Reason::OtherProtocol),
        inward(
            "gre from where it is allowed",
            other(GRE, "192.0.2.7:0"),
            Reason::OtherProtocol,
        ),
        inward(
            "gre from elsewhere",
            other(GRE, "192.0.2.8:0"),
            Reason::OutOfScope,
        ),
        inward(
            "a protocol that nobody allowed",
            other(SCTP, "192.0.2.7:0"),
            Reason::OutOfScope,
        ),
        inward(
            "a new connection that is allowed from anywhere",
            syn("198.51.100.99:40000", &to(443)),
            Reason::OtherTraffic,
        ),
        inward(
            "over ipv6 too",
            syn("[2001:db8:8::9]:40000", &to6(443)),
            Reason::OtherTraffic,
        ),
        inward(
            "within a range of ports",
            syn("198.51.100.99:40000", &to(8_100)),
            Reason::OtherTraffic,
        ),
        inward(
            "beside the range",
            syn("198.51.100.99:40000", &to(8_101)),
            Reason::OutOfScope,
        ),
        inward(
            "ssh from the office",
            syn("192.0.2.9:40000", &to(22)),
            Reason::OtherTraffic,
        ),
        inward(
            "ssh from the office over ipv6",
            syn("[2001:db8:9::9]:40000", &to6(22)),
            Reason::OtherTraffic,
        ),
        inward(
            "ssh from elsewhere",
            syn("198.51.100.99:40000", &to(22)),
            Reason::OutOfScope,
        ),
        inward(
            "ssh from elsewhere over ipv6",
            syn("[2001:db8:8::9]:40000", &to6(22)),
            Reason::OutOfScope,
        ),
        inward(
            "the office's narrower prefix keeps the wider ones' ports",
            syn("192.0.2.70:40000", &to(443)),
            Reason::OtherTraffic,
        ),
        inward(
            "and those of the prefix between",
            syn("192.0.2.70:40000", &to(22)),
            Reason::OtherTraffic,
        ),
        inward(
            "an allowed tcp port does not allow udp",
            Frame::udp("198.51.100.99:40000", &to(443), &[1, 2, 3]),
            Reason::OutOfScope,
        ),
        inward(
            "an established session, wherever it comes from",
            Frame::tcp("198.51.100.99:40000", &to(22), b"ls"),
            Reason::OtherTraffic,
        ),
        inward(
            "the answer to a connection that the host opened",
            Frame::tcp("198.51.100.99:443", &to(40_000), &[]).flags(SYN_ACK),
            Reason::OtherTraffic,
        ),
        inward(
            "a reset",
            Frame::tcp("198.51.100.99:443", &to(40_000), &[]).flags(RST),
            Reason::OtherTraffic,
        ),
        inward(
            "a segment that is cut off before its flags",
            Frame::other(
                ESP,
                "198.51.100.99:0",
                &to(0),
                &[0x9c, 0x40, 0, 22, 0, 0, 0, 1],
            )
            .relabelled(TCP),
            Reason::Malformed,
        ),
        inward(
            "udp that is allowed",
            Frame::udp("192.0.2.70:40000", &to(51_820), &[1, 2, 3]),
            Reason::OtherTraffic,
        ),
        inward(
            "udp from elsewhere",
            Frame::udp("192.0.2.9:40000", &to(51_820), &[1, 2, 3]),
            Reason::OutOfScope,
        ),
        inward(
            "dhcp",
            Frame::udp("192.0.2.1:67", &to(68), &[2]),
            Reason::OtherTraffic,
        ),
        inward(
            "dhcpv6",
            Frame::udp("[2001:db8:8::1]:547", &to6(546), &[7]),
            Reason::OtherTraffic,
        ),
        inward(
            "a first fragment out of scope",
            Frame::udp("192.0.2.9:40000", &to(51_821), &[0; 64]).fragment(21, 0, true),
            Reason::OutOfScope,
        ),
        inward(
            "goes with its later fragment",
            Frame::udp("192.0.2.9:40000", &to(51_821), &[0; 64]).fragment(21, 9, false),
            Reason::StrayFragment,
        ),
        inward(
            "a first fragment that is allowed",
            Frame::udp("192.0.2.70:40000", &to(51_820), &[0; 64]).fragment(22, 0, true),
            Reason::OtherTraffic,
        ),
        inward(
            "brings its later fragment",
            Frame::udp("192.0.2.70:40000", &to(51_820), &[0; 64]).fragment(22, 9, false),
            Reason::Fragment,
        ),
    ]
}
