//! The same scene under every mode: what is watched only, and what strict scope makes of the rest.
//!
//! Each scene has settings of its own and its packets in order; the pinholes are those of [`cases`].

use sipfilter_common::reason::{Action, Reason};
use sipfilter_daemon::engine::settings::{Allow, Egress, Enforcement, Filtering, Scope, Settings};

mod provisional;

use self::provisional::{early_offers, provisional_cases, without_places};
use super::{
    cases::{Case, PBX4, PBX6, SIP, Way, arp, cases, inward, outward, raw, settings},
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

    /// Where the copy of a packet must begin, if there is to be one.
    pub fn copy_from(&self, case: &Case) -> Option<usize> {
        match self.settings.filtering.enforcement {
            Enforcement::Enforce => case.copy_from,
            Enforcement::Observe => case.copy_from.or(case.observed_from),
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
            tolerated: is_egress,
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
            tolerated: is_egress,
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
        Scene {
            name: "egress counted",
            settings: egress(Egress::Count),
            cases: egress_cases(),
            tolerated: is_egress,
        },
        Scene {
            name: "egress enforced",
            settings: egress(Egress::Enforce),
            cases: egress_cases(),
            tolerated: |_| false,
        },
        Scene {
            name: "everything else by default, egress enforced",
            settings: egress(Egress::Enforce),
            cases: cases(),
            tolerated: |_| false,
        },
        Scene {
            name: "replies",
            settings: replies(),
            cases: reply_cases(),
            tolerated: is_egress,
        },
        Scene {
            name: "provisional places",
            settings: early_offers(),
            cases: provisional_cases(),
            tolerated: is_egress,
        },
        Scene {
            name: "provisional places, observing",
            settings: Settings {
                filtering: observing().filtering,
                ..early_offers()
            },
            cases: provisional_cases(),
            tolerated: |_| true,
        },
        Scene {
            name: "provisional places switched off",
            settings: without_places(),
            cases: provisional_cases()
                .into_iter()
                .map(|case| Case {
                    reason: match case.reason {
                        Reason::Provisional => Reason::NoPinhole,
                        other => other,
                    },
                    ..case
                })
                .collect(),
            tolerated: is_egress,
        },
    ]
}

/// What is counted on its way out unless egress is enforced.
fn is_egress(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::EgressForeignSignalling | Reason::EgressForeignMedia | Reason::EgressForged
    )
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
        outward(
            "the host asks a name server",
            Frame::udp(&to(33_000), "192.0.2.53:53", &[1, 2]),
            Reason::EgressOther,
        ),
        inward(
            "and gets its answer",
            Frame::udp("192.0.2.53:53", &to(33_000), &[1, 2]),
            Reason::Reply,
        ),
        inward(
            "from nobody else",
            Frame::udp("192.0.2.54:53", &to(33_000), &[1, 2]),
            Reason::OutOfScope,
        ),
        inward(
            "nor from another port",
            Frame::udp("192.0.2.53:54", &to(33_000), &[1, 2]),
            Reason::OutOfScope,
        ),
        inward(
            "nor to another port",
            Frame::udp("192.0.2.53:53", &to(33_001), &[1, 2]),
            Reason::OutOfScope,
        ),
        outward(
            "the host asks over ipv6",
            Frame::udp(&to6(33_000), "[2001:db8:8::53]:53", &[1, 2]),
            Reason::EgressOther,
        ),
        inward(
            "and gets its answer over ipv6",
            Frame::udp("[2001:db8:8::53]:53", &to6(33_000), &[1, 2]),
            Reason::Reply,
        ),
        outward(
            "a media port's packets to somebody",
            Frame::udp(&to(10_100), "192.0.2.53:45000", &[0x80, 0]),
            Reason::EgressOther,
        ),
        inward(
            "are not answered, since no provider's replies are let in",
            Frame::udp("192.0.2.53:45000", &to(10_100), &[0x80, 0]),
            Reason::NoPinhole,
        ),
    ]
}

/// Both providers say from where their media comes.
fn egress(egress: Egress) -> Settings {
    let mut settings = settings();
    settings.filtering.egress = egress;
    let media = [
        &["198.51.100.0/25", "2001:db8:3::/64"],
        &["198.51.100.128/25", "2001:db8:5::/64"],
    ];
    for (provider, prefixes) in settings.providers.iter_mut().zip(media) {
        provider.media.prefixes = prefixes
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect();
    }
    settings
}

fn egress_cases() -> Vec<Case> {
    let from = |port: u16| format!("{PBX4}:{port}");
    let from6 = |port: u16| format!("{PBX6}:{port}");
    let foreign = |name, frame| outward(name, frame, Reason::EgressForeignSignalling);
    let astray = |name, frame| outward(name, frame, Reason::EgressForeignMedia);
    let other = |name, frame| outward(name, frame, Reason::EgressOther);
    let media = |name, frame| outward(name, frame, Reason::EgressMedia);
    vec![
        foreign(
            "sip to a stranger, from the sip port to any other",
            Frame::udp(&from(5060), "192.0.2.9:40000", SIP),
        ),
        foreign(
            "from any port to the sip port",
            Frame::udp(&from(34_567), "192.0.2.9:5060", SIP),
        ),
        foreign(
            "from a media port to the sip port",
            Frame::udp(&from(10_002), "192.0.2.9:5060", SIP),
        ),
        foreign(
            "over ipv6",
            Frame::udp(&from6(34_567), "[2001:db8:9::9]:5060", SIP),
        ),
        foreign(
            "to a provider that speaks tls alone",
            Frame::udp(&from(5060), "198.51.100.130:5060", SIP),
        ),
        foreign(
            "a new tcp connection to a stranger",
            Frame::tcp(&from(45_678), "192.0.2.9:5060", &[]).flags(SYN),
        ),
        foreign(
            "over tls",
            Frame::tcp(&from(45_678), "192.0.2.9:5061", &[]).flags(SYN),
        ),
        foreign(
            "over tcp and ipv6",
            Frame::tcp(&from6(45_678), "[2001:db8:9::9]:5060", &[]).flags(SYN),
        ),
        foreign(
            "an answer on a stranger's connection",
            Frame::tcp(&from(5060), "192.0.2.9:40000", &[]).flags(SYN_ACK),
        ),
        foreign(
            "a first fragment",
            Frame::udp(&from(5060), "192.0.2.9:5060", &[b'x'; 64]).fragment(31, 0, true),
        ),
        other(
            "without which the later one is nothing",
            Frame::udp(&from(5060), "192.0.2.9:5060", &[b'x'; 64]).fragment(31, 9, false),
        ),
        outward(
            "sip to a provider",
            Frame::udp(&from(5060), "198.51.100.10:5060", SIP),
            Reason::EgressSignalling,
        ),
        other(
            "sip to a provider from a media port, as ever",
            Frame::udp(&from(10_002), "198.51.100.10:5060", SIP),
        ),
        other(
            "a web page",
            Frame::tcp(&from(45_678), "192.0.2.9:443", &[]).flags(SYN),
        ),
        other("a name", Frame::udp(&from(34_567), "192.0.2.53:53", &[0])),
        other(
            "sip of a host that is not protected",
            Frame::udp("203.0.113.11:5060", "192.0.2.9:5060", SIP),
        ),
        media(
            "media of a call",
            Frame::udp(&from(10_000), "198.51.100.20:45000", &[0x80, 0]),
        ),
        media(
            "to another address of the provider's",
            Frame::udp(&from(10_000), "198.51.100.77:45000", &[0x80, 0]),
        ),
        media(
            "to an address that the call named outside every limit",
            Frame::udp(&from(10_010), "192.0.2.64:45000", &[0x80, 0]),
        ),
        astray(
            "of a call, to somebody else",
            Frame::udp(&from(10_000), "192.0.2.66:45000", &[0x80, 0]),
        ),
        astray(
            "of a call, to a port outside the limits",
            Frame::udp(&from(10_000), "198.51.100.20:39999", &[0x80, 0]),
        ),
        astray(
            "of no call, to somebody else",
            Frame::udp(&from(10_002), "192.0.2.66:45000", &[0x80, 0]),
        ),
        astray(
            "of no call, over ipv6",
            Frame::udp(&from6(10_002), "[2001:db8:9::9]:45000", &[0x80, 0]),
        ),
        other(
            "of no call yet, to a provider",
            Frame::udp(&from(10_002), "198.51.100.77:45000", &[0x80, 0]),
        ),
        other(
            "of no call yet, to a provider over ipv6",
            Frame::udp(&from6(10_002), "[2001:db8:5::9]:45000", &[0x80, 0]),
        ),
    ]
}

/// The TLS provider's signalling cannot be read, so that its replies are let in.
fn replies() -> Settings {
    let mut settings = egress(Egress::Count);
    for provider in settings.providers.iter_mut().skip(1) {
        provider.media.replies = vec![3_478..=3_478, 40_000..=60_000];
    }
    settings
}

fn reply_cases() -> Vec<Case> {
    let pbx = |port: u16| format!("{PBX4}:{port}");
    let pbx6 = |port: u16| format!("{PBX6}:{port}");
    let rtp: &[u8] = &[0x80, 0, 0, 1];
    let out = |name, source: &str, destination: &str| {
        outward(
            name,
            Frame::udp(source, destination, rtp),
            Reason::EgressOther,
        )
    };
    let back = |name, source: &str, destination: &str, payload: &[u8], reason| {
        inward(name, Frame::udp(source, destination, payload), reason)
    };
    let far = "198.51.100.130:45000";
    vec![
        back("nobody sent yet", far, &pbx(10_100), rtp, Reason::NoPinhole),
        out("the pbx sends", &pbx(10_100), far),
        back(
            "the provider answers",
            far,
            &pbx(10_100),
            rtp,
            Reason::Reply,
        ),
        back("with stun", far, &pbx(10_100), &[0, 1], Reason::Reply),
        back("with dtls", far, &pbx(10_100), &[22, 0xfe], Reason::Reply),
        back(
            "with a turn channel",
            far,
            &pbx(10_100),
            &[0x40, 0],
            Reason::Reply,
        ),
        back(
            "not with anything",
            far,
            &pbx(10_100),
            &[0xff, 0],
            Reason::NotMedia,
        ),
        back("nor with nothing", far, &pbx(10_100), &[], Reason::NotMedia),
        back(
            "from another port",
            "198.51.100.130:45001",
            &pbx(10_100),
            rtp,
            Reason::NoPinhole,
        ),
        back(
            "from another address",
            "198.51.100.131:45000",
            &pbx(10_100),
            rtp,
            Reason::NoPinhole,
        ),
        back("to another port", far, &pbx(10_102), rtp, Reason::NoPinhole),
        inward(
            "a first fragment",
            Frame::udp(far, &pbx(10_100), &[0x80; 64]).fragment(41, 0, true),
            Reason::Reply,
        ),
        inward(
            "and its later one",
            Frame::udp(far, &pbx(10_100), &[0x80; 64]).fragment(41, 9, false),
            Reason::Fragment,
        ),
        out("to turn", &pbx(10_104), "198.51.100.130:3478"),
        back(
            "turn answers",
            "198.51.100.130:3478",
            &pbx(10_104),
            &[1, 1],
            Reason::Reply,
        ),
        out("over ipv6", &pbx6(10_100), "[2001:db8:5::9]:45000"),
        back(
            "answered",
            "[2001:db8:5::9]:45000",
            &pbx6(10_100),
            rtp,
            Reason::Reply,
        ),
        out(
            "to a provider without replies",
            &pbx(10_106),
            "198.51.100.77:45000",
        ),
        back(
            "no answer",
            "198.51.100.77:45000",
            &pbx(10_106),
            rtp,
            Reason::NoPinhole,
        ),
        outward(
            "to a port outside the limits",
            Frame::udp(&pbx(10_108), "198.51.100.130:39999", rtp),
            Reason::EgressForeignMedia,
        ),
        back(
            "is not answered",
            "198.51.100.130:39999",
            &pbx(10_108),
            rtp,
            Reason::NoPinhole,
        ),
        outward(
            "a call's media to the provider",
            Frame::udp(&pbx(10_000), far, rtp),
            Reason::EgressMedia,
        ),
        back(
            "opens nothing beside its pinhole",
            far,
            &pbx(10_000),
            rtp,
            Reason::WrongSource,
        ),
    ]
}
