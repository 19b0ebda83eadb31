//! The scene and the table: a PBX with three pinholes, a provider, and what happens to each kind of packet.

use std::{net::SocketAddr, time::Duration};

use sipfilter_common::{reader::Reader, reason::Reason, value::PayloadTypes};
use sipfilter_daemon::engine::{
    CallNumber,
    pinhole::{Arming, Extras, Label, PacketRate, Pinhole, Source, Stream, Terms},
    settings::{
        EarlyMedia, Limits, Media, MediaSource, Pbx, Provider, ProviderId, Settings,
        SignallingPorts, SignallingRates, Timers, Transport,
    },
};

use super::frame::{Frame, ICMP, UDP};

/// Which program judges the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// XDP.
    In,
    /// TC.
    Out,
}

/// One packet and what must become of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Which program.
    pub way: Way,
    /// The frame.
    pub frame: Vec<u8>,
    /// On which interface it came in, if it leaves now: 0 for none.
    pub arrived_on: u32,
    /// The verdict's reason.
    pub reason: Reason,
    /// Where the copy for the daemon begins, if there is to be one.
    pub copy_from: Option<usize>,
    /// The same where nothing is enforced, for what is not let in otherwise.
    pub observed_from: Option<usize>,
}

impl Reader for Case {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.frame.as_slice().bytes(offset)
    }

    fn length(&self) -> usize {
        self.frame.len()
    }

    fn arrived_on(&self) -> u32 {
        self.arrived_on
    }
}

/// Indices of the outer interfaces.
pub const OUTER: [u32; 2] = [1_001, 1_002];

/// SIP's beginning, as a payload.
pub const SIP: &[u8] = b"OPTIONS sip:pbx SIP/2.0\r\n\r\n";
const RTP: &[u8] = &[0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0xff, 0xff];
const RTCP: &[u8] = &[0x81, 200, 0, 6, 1, 2, 3, 4];
const DTLS: &[u8] = &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const STUN: &[u8] = &[0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];

pub(super) const PBX4: &str = "203.0.113.10";
pub(super) const PBX6: &str = "[2001:db8:1::10]";

/// The settings of the scene: a UDP and TCP provider with one prefix per family, and a TLS-only one inside a wider prefix.
pub fn settings() -> Settings {
    let provider = |name: &str, signalling: &[&str], transports: &[Transport]| Provider {
        name: name.into(),
        signalling: signalling
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
        transports: transports.to_vec(),
        signalling_ports: SignallingPorts::default(),
        media: Media {
            source: MediaSource::Signalled,
            ports: 40_000..=60_000,
            prefixes: Vec::new(),
            replies: Vec::new(),
            packets_per_second: None,
        },
        early_media: EarlyMedia::OnAnswer,
        rates: SignallingRates::default(),
    };
    Settings {
        pbx: Pbx {
            addresses: vec![
                "203.0.113.10".parse().expect("an address"),
                "2001:db8:1::10".parse().expect("an address"),
            ],
            rtp_ports: 10_000..=20_000,
            udptl_ports: Some(4_000..=4_999),
            nat: Default::default(),
            signalling: SignallingPorts::default(),
        },
        providers: vec![
            provider(
                "lab",
                &["198.51.100.8/29", "2001:db8:2::/64"],
                &[Transport::Udp, Transport::Tcp],
            ),
            provider("secure", &["198.51.100.128/25"], &[Transport::Tls]),
            Provider {
                rates: SignallingRates {
                    requests: 1,
                    messages: 1,
                    segments: 1,
                },
                // Somewhere, so that it does not make anywhere a place for media.
                media: Media {
                    prefixes: vec!["198.51.100.72/32".parse().expect("a prefix")],
                    ..provider("slow", &[], &[]).media
                },
                ..provider(
                    "slow",
                    &["198.51.100.64/29", "2001:db8:4::/48"],
                    &[Transport::Udp, Transport::Tcp, Transport::Tls],
                )
            },
        ],
        limits: Limits::default(),
        timers: Timers::default(),
        filtering: Default::default(),
    }
}

/// How long the pinhole on port 10020 stays open: it has expired when the cases run.
pub const SHORT: Duration = Duration::from_millis(1);

const ARMING: Arming = Arming {
    call: CallNumber(7),
    turn: 1,
};

/// Packets that a pinhole of one packet per second takes at once.
const AT_ONCE: usize = 11;

fn terms(payload_types: &[u8], rtcp: bool) -> Terms {
    let set = payload_types
        .iter()
        .fold(0, |set, number| set | 1 << number);
    Terms {
        payload_types: PayloadTypes::new(set),
        rtcp,
        packets_per_second: PacketRate::UNLIMITED,
    }
}

/// The pinholes of the scene.
pub fn pinholes() -> Vec<Pinhole> {
    let pinhole = |local: &str, sources: &[(&str, u16, u16)], stream, idle| Pinhole {
        local: local.parse::<SocketAddr>().expect("a socket address"),
        sources: sources
            .iter()
            .map(|&(net, first, last)| Source {
                net: net.parse().expect("a prefix"),
                ports: (first, last),
            })
            .collect(),
        stream,
        extras: Extras::default(),
        terms: match stream {
            Stream::Rtcp => terms(&[], true),
            Stream::Rtp | Stream::Udptl => terms(&[0, 101], false),
        },
        latch: None,
        idle,
        provider: ProviderId(0),
        call: CallNumber(7),
        label: Label::NONE,
    };
    let long = Duration::from_secs(300);
    vec![
        pinhole(
            "203.0.113.10:10000",
            &[("198.51.100.20/32", 40_000, 60_000)],
            Stream::Rtp,
            long,
        ),
        pinhole(
            "203.0.113.10:10001",
            &[("198.51.100.20/32", 40_000, 60_000)],
            Stream::Rtcp,
            long,
        ),
        pinhole(
            "203.0.113.10:10010",
            &[
                ("192.0.2.64/32", 40_000, 60_000),
                ("192.0.2.65/32", 40_000, 40_000),
                ("192.0.2.128/26", 1, 65_535),
                ("198.51.100.20/32", 50_000, 50_010),
            ],
            Stream::Rtp,
            long,
        ),
        pinhole(
            "203.0.113.10:10020",
            &[("198.51.100.20/32", 40_000, 60_000)],
            Stream::Rtp,
            SHORT,
        ),
        pinhole(
            "203.0.113.10:10030",
            &[("0.0.0.0/0", 40_000, 60_000)],
            Stream::Rtp,
            long,
        ),
        pinhole(
            "203.0.113.10:4000",
            &[("198.51.100.20/32", 40_000, 60_000)],
            Stream::Udptl,
            long,
        ),
        Pinhole {
            extras: Extras {
                stun: true,
                dtls: false,
            },
            ..pinhole(
                "203.0.113.10:10040",
                &[("198.51.100.20/32", 40_000, 60_000)],
                Stream::Rtp,
                long,
            )
        },
        Pinhole {
            extras: Extras {
                stun: true,
                dtls: true,
            },
            ..pinhole(
                "203.0.113.10:10050",
                &[("198.51.100.20/32", 40_000, 60_000)],
                Stream::Rtp,
                long,
            )
        },
        pinhole(
            "[2001:db8:1::10]:10000",
            &[("2001:db8:3::20/128", 40_000, 60_000)],
            Stream::Rtp,
            long,
        ),
        Pinhole {
            terms: terms(&[0, 96], true),
            ..pinhole(
                "203.0.113.10:10060",
                &[("198.51.100.20/32", 40_000, 60_000)],
                Stream::Rtp,
                long,
            )
        },
        Pinhole {
            terms: terms(&[72, 127], false),
            ..pinhole(
                "203.0.113.10:10062",
                &[("198.51.100.20/32", 40_000, 60_000)],
                Stream::Rtp,
                long,
            )
        },
        Pinhole {
            terms: Terms {
                packets_per_second: PacketRate::new(1),
                ..terms(&[0], false)
            },
            ..pinhole(
                "203.0.113.10:10070",
                &[("198.51.100.20/32", 40_000, 60_000)],
                Stream::Rtp,
                long,
            )
        },
        Pinhole {
            latch: Some(ARMING),
            terms: Terms {
                packets_per_second: PacketRate::new(1),
                ..terms(&[0], false)
            },
            ..pinhole(
                "203.0.113.10:10080",
                &[("0.0.0.0/0", 40_000, 60_000)],
                Stream::Rtp,
                long,
            )
        },
        Pinhole {
            latch: Some(ARMING),
            ..pinhole(
                "[2001:db8:1::10]:10080",
                &[("2001:db8:3::/48", 40_000, 60_000)],
                Stream::Rtp,
                long,
            )
        },
    ]
}

/// The table. Cases run in order against one set of tables: later fragments follow their first ones.
pub fn cases() -> Vec<Case> {
    [
        ingress_scope(),
        ingress_signalling(),
        ingress_media(),
        ingress_payload(),
        ingress_budget(),
        ingress_latch(),
        ingress_fragments(),
        ingress_malformed(),
        ingress_limits(),
        egress(),
    ]
    .concat()
}

fn case(name: &'static str, way: Way, frame: &Frame, reason: Reason, copied: bool) -> Case {
    Case {
        name,
        way,
        frame: frame.build(),
        arrived_on: 0,
        reason,
        copy_from: copied.then(|| frame.ip_offset()),
        observed_from: (reason == Reason::SignallingLimited).then(|| frame.ip_offset()),
    }
}

pub(super) fn inward(name: &'static str, frame: Frame, reason: Reason) -> Case {
    case(name, Way::In, &frame, reason, reason == Reason::Signalling)
}

pub(super) fn outward(name: &'static str, frame: Frame, reason: Reason) -> Case {
    case(
        name,
        Way::Out,
        &frame,
        reason,
        reason == Reason::EgressSignalling,
    )
}

pub(super) fn raw(name: &'static str, way: Way, frame: Vec<u8>, reason: Reason) -> Case {
    Case {
        name,
        way,
        frame,
        arrived_on: 0,
        reason,
        copy_from: None,
        observed_from: None,
    }
}

pub(super) fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0, 0, 0, 0, 2, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(60, 0);
    frame
}

fn ingress_scope() -> Vec<Case> {
    let to_pbx = |port: u16| format!("{PBX4}:{port}");
    vec![
        raw("arp passes", Way::In, arp(), Reason::NotIp),
        inward(
            "sip to an unprotected address passes",
            Frame::udp("192.0.2.9:5060", "203.0.113.11:5060", SIP),
            Reason::NotProtected,
        ),
        inward(
            "rtp to an unprotected address passes",
            Frame::udp("192.0.2.9:40000", "203.0.113.11:10000", RTP),
            Reason::NotProtected,
        ),
        inward(
            "ipv6 to an unprotected address passes",
            Frame::udp("[2001:db8:9::9]:5060", "[2001:db8:1::11]:5060", SIP),
            Reason::NotProtected,
        ),
        inward(
            "icmp passes",
            Frame::other(ICMP, "192.0.2.9:0", &to_pbx(0), &[8, 0, 0, 0, 0, 0, 0, 0]),
            Reason::OtherProtocol,
        ),
        inward(
            "icmpv6 passes",
            Frame::other(
                58,
                "[2001:db8:9::9]:0",
                &format!("{PBX6}:0"),
                &[128, 0, 0, 0, 0, 0, 0, 0],
            ),
            Reason::OtherProtocol,
        ),
        inward(
            "ssh passes",
            Frame::tcp("192.0.2.9:50000", &to_pbx(22), b""),
            Reason::OtherTraffic,
        ),
        inward(
            "dns passes",
            Frame::udp("192.0.2.9:53", &to_pbx(33_000), b"answer"),
            Reason::OtherTraffic,
        ),
        inward(
            "a port just below the rtp range passes",
            Frame::udp("192.0.2.9:40000", &to_pbx(9_999), RTP),
            Reason::OtherTraffic,
        ),
        inward(
            "a port just above the rtp range passes",
            Frame::udp("192.0.2.9:40000", &to_pbx(20_001), RTP),
            Reason::OtherTraffic,
        ),
        inward(
            "tcp to an rtp port is no media",
            Frame::tcp("192.0.2.9:40000", &to_pbx(10_000), b""),
            Reason::OtherTraffic,
        ),
    ]
}

/// What the slow provider may send at once.
pub const BURST: usize = 32;

/// One packet a second is allowed, so that whatever follows a burst is too much unless its budget is another one.
fn ingress_limits() -> Vec<Case> {
    let sip = format!("{PBX4}:5060");
    let slow = "198.51.100.64:5060";
    let burst = |case: Case| vec![case; BURST];
    [
        burst(inward(
            "requests within the budget",
            Frame::udp(slow, &sip, SIP),
            Reason::Signalling,
        )),
        vec![
            inward(
                "requests beyond it are dropped",
                Frame::udp(slow, &sip, SIP),
                Reason::SignallingLimited,
            ),
            inward(
                "so is what is no sip",
                Frame::udp(slow, &sip, b"\0\0\0\0\0"),
                Reason::SignallingLimited,
            ),
            inward(
                "and what is hardly anything",
                Frame::udp(slow, &sip, b"BYE"),
                Reason::SignallingLimited,
            ),
            inward(
                "whatever the source port",
                Frame::udp("198.51.100.64:40000", &sip, SIP),
                Reason::SignallingLimited,
            ),
            inward(
                "and its first fragment",
                Frame::udp(slow, &sip, SIP).fragment(77, 0, true),
                Reason::SignallingLimited,
            ),
            Case {
                observed_from: Some(14),
                ..inward(
                    "which takes the others with it",
                    Frame::udp(slow, &sip, &[b'x'; 64]).fragment(77, 4, false),
                    Reason::StrayFragment,
                )
            },
            inward(
                "a later fragment that came first is a request to all knowledge",
                Frame::udp(slow, &sip, &[b'x'; 64]).fragment(78, 4, false),
                Reason::SignallingLimited,
            ),
            inward(
                "another address of the provider has its own budget",
                Frame::udp("198.51.100.65:5060", &sip, SIP),
                Reason::Signalling,
            ),
            inward(
                "the end of a call is no request that begins something",
                Frame::udp(slow, &sip, b"BYE sip:pbx SIP/2.0\r\n\r\n"),
                Reason::Signalling,
            ),
            Case {
                copy_from: Some(14),
                ..inward(
                    "a response's first fragment",
                    Frame::udp(slow, &sip, b"SIP/2.0 200 OK\r\n\r\n").fragment(79, 0, true),
                    Reason::Signalling,
                )
            },
            Case {
                copy_from: Some(14),
                ..inward(
                    "and its others are paid for like it",
                    Frame::udp(slow, &sip, &[b'x'; 64]).fragment(79, 4, false),
                    Reason::Fragment,
                )
            },
        ],
        burst(inward(
            "responses within what is left of the budget, and beyond",
            Frame::udp("198.51.100.67:5060", &sip, b"SIP/2.0 200 OK\r\n\r\n"),
            Reason::Signalling,
        )),
        vec![
            inward(
                "a flood of responses has its limit too",
                Frame::udp("198.51.100.67:5060", &sip, b"SIP/2.0 200 OK\r\n\r\n"),
                Reason::SignallingLimited,
            ),
            inward(
                "and keeps no request away",
                Frame::udp("198.51.100.67:5060", &sip, SIP),
                Reason::Signalling,
            ),
            inward(
                "nor a connection",
                Frame::tcp("198.51.100.67:41000", &sip, SIP),
                Reason::Signalling,
            ),
        ],
        burst(inward(
            "segments to the pbx",
            Frame::tcp("198.51.100.68:41000", &sip, SIP),
            Reason::Signalling,
        )),
        vec![
            inward(
                "beyond the budget are dropped",
                Frame::tcp("198.51.100.68:41000", &sip, SIP),
                Reason::SignallingLimited,
            ),
            Case {
                observed_from: None,
                ..inward(
                    "of tls too",
                    Frame::tcp("198.51.100.68:41000", &format!("{PBX4}:5061"), b"x"),
                    Reason::SignallingLimited,
                )
            },
            inward(
                "of a connection that the pbx made too",
                Frame::tcp("198.51.100.68:5060", &format!("{PBX4}:43210"), SIP),
                Reason::SignallingLimited,
            ),
            inward(
                "while its datagrams pass",
                Frame::udp("198.51.100.68:5060", &sip, SIP),
                Reason::Signalling,
            ),
        ],
        (0..BURST)
            .map(|host| {
                inward(
                    "hosts of one ipv6 network",
                    Frame::udp(
                        &format!("[2001:db8:4:1::{host:x}]:5060"),
                        &format!("{PBX6}:5060"),
                        SIP,
                    ),
                    Reason::Signalling,
                )
            })
            .collect(),
        vec![
            inward(
                "share one budget",
                Frame::udp("[2001:db8:4:1::ffff]:5060", &format!("{PBX6}:5060"), SIP),
                Reason::SignallingLimited,
            ),
            inward(
                "which is not the next network's",
                Frame::udp("[2001:db8:4:2::1]:5060", &format!("{PBX6}:5060"), SIP),
                Reason::Signalling,
            ),
        ],
    ]
    .concat()
}

/// SIP that fits into no single buffer of a driver, but into a jumbo frame. Every byte differs from its neighbours'.
fn jumbo() -> Vec<u8> {
    let tail = (0..8_000_u32).map(|index| b'a' + (index * 7 % 26) as u8);
    SIP.iter().copied().chain(tail).collect()
}

fn ingress_signalling() -> Vec<Case> {
    let sip = format!("{PBX4}:5060");
    let tls = format!("{PBX4}:5061");
    vec![
        inward(
            "a provider's sip passes and is copied",
            Frame::udp("198.51.100.10:5060", &sip, SIP),
            Reason::Signalling,
        ),
        inward(
            "a jumbo frame's sip is copied from all of its buffers",
            Frame::udp("198.51.100.10:5060", &sip, &jumbo()),
            Reason::Signalling,
        ),
        inward(
            "a stranger's jumbo frame is dropped",
            Frame::udp("192.0.2.9:5060", &sip, &jumbo()),
            Reason::UnknownSource,
        ),
        raw(
            "a jumbo frame that is shorter than its ip packet is malformed",
            Way::In,
            {
                let mut frame = Frame::udp("198.51.100.10:5060", &sip, &jumbo()).build();
                frame.pop();
                frame
            },
            Reason::Malformed,
        ),
        inward(
            "from any source port",
            Frame::udp("198.51.100.10:33333", &sip, SIP),
            Reason::Signalling,
        ),
        inward(
            "the prefix's last address counts",
            Frame::udp("198.51.100.15:5060", &sip, SIP),
            Reason::Signalling,
        ),
        inward(
            "the next address does not",
            Frame::udp("198.51.100.16:5060", &sip, SIP),
            Reason::UnknownSource,
        ),
        inward(
            "a stranger's sip is dropped",
            Frame::udp("192.0.2.9:5060", &sip, SIP),
            Reason::UnknownSource,
        ),
        inward(
            "over ipv6 too",
            Frame::udp("[2001:db8:2::5]:5060", &format!("{PBX6}:5060"), SIP),
            Reason::Signalling,
        ),
        inward(
            "an ipv6 stranger is dropped",
            Frame::udp("[2001:db8:2:1::5]:5060", &format!("{PBX6}:5060"), SIP),
            Reason::UnknownSource,
        ),
        inward(
            "sip over tcp passes and is copied",
            Frame::tcp("198.51.100.10:41000", &sip, SIP),
            Reason::Signalling,
        ),
        inward(
            "a stranger's tcp is dropped",
            Frame::tcp("192.0.2.9:41000", &sip, SIP),
            Reason::UnknownSource,
        ),
        inward(
            "a provider without tls may not use it",
            Frame::tcp("198.51.100.10:41000", &tls, b"x"),
            Reason::UnknownSource,
        ),
        inward(
            "a tls provider may not use udp",
            Frame::udp("198.51.100.130:5060", &sip, SIP),
            Reason::UnknownSource,
        ),
        Case {
            copy_from: None,
            ..inward(
                "tls passes without a copy",
                Frame::tcp("198.51.100.130:41000", &tls, b"x"),
                Reason::Signalling,
            )
        },
        inward(
            "the pbx dialled out over tcp",
            Frame::tcp("198.51.100.10:5060", &format!("{PBX4}:45678"), SIP),
            Reason::Signalling,
        ),
        inward(
            "a stranger's tcp from 5060 is other traffic",
            Frame::tcp("192.0.2.9:5060", &format!("{PBX4}:45678"), SIP),
            Reason::OtherTraffic,
        ),
        inward(
            "behind one vlan tag",
            Frame::udp("198.51.100.10:5060", &sip, SIP).tagged(0x8100),
            Reason::Signalling,
        ),
        inward(
            "behind two vlan tags",
            Frame::udp("198.51.100.10:5060", &sip, SIP)
                .tagged(0x8100)
                .tagged(0x88a8),
            Reason::Signalling,
        ),
        inward(
            "a stranger behind two vlan tags",
            Frame::udp("192.0.2.9:5060", &sip, SIP)
                .tagged(0x8100)
                .tagged(0x88a8),
            Reason::UnknownSource,
        ),
        inward(
            "behind ipv4 options",
            Frame::udp("198.51.100.10:5060", &sip, SIP).with_options(10),
            Reason::Signalling,
        ),
        inward(
            "a stranger behind ipv4 options",
            Frame::udp("192.0.2.9:5060", &sip, SIP).with_options(3),
            Reason::UnknownSource,
        ),
        inward(
            "behind extension headers",
            Frame::udp("[2001:db8:2::5]:5060", &format!("{PBX6}:5060"), SIP).with_extensions(4),
            Reason::Signalling,
        ),
        inward(
            "a stranger behind extension headers",
            Frame::udp("[2001:db8:9::9]:5060", &format!("{PBX6}:5060"), SIP).with_extensions(2),
            Reason::UnknownSource,
        ),
        inward(
            "a large message is copied whole",
            Frame::udp("198.51.100.10:5060", &sip, &vec![b'x'; 2_500]),
            Reason::Signalling,
        ),
    ]
}

fn ingress_media() -> Vec<Case> {
    let rtp = |source: &str, port: u16, payload: &[u8]| {
        Frame::udp(source, &format!("{PBX4}:{port}"), payload)
    };
    let good = "198.51.100.20:45000";
    vec![
        inward(
            "negotiated rtp passes",
            rtp(good, 10_000, RTP),
            Reason::Media,
        ),
        inward(
            "padded to ethernet's minimum",
            rtp(good, 10_000, &RTP[..12]).padded(6),
            Reason::Media,
        ),
        inward(
            "behind a vlan tag",
            rtp(good, 10_000, RTP).tagged(0x8100),
            Reason::Media,
        ),
        inward(
            "behind ipv4 options",
            rtp(good, 10_000, RTP).with_options(2),
            Reason::Media,
        ),
        inward(
            "from the range's first port",
            rtp("198.51.100.20:40000", 10_000, RTP),
            Reason::Media,
        ),
        inward(
            "from the range's last port",
            rtp("198.51.100.20:60000", 10_000, RTP),
            Reason::Media,
        ),
        inward(
            "rtcp on its own port passes",
            rtp(good, 10_001, RTCP),
            Reason::Media,
        ),
        inward(
            "from a port below the range",
            rtp("198.51.100.20:39999", 10_000, RTP),
            Reason::WrongSource,
        ),
        inward(
            "from a port above the range",
            rtp("198.51.100.20:60001", 10_000, RTP),
            Reason::WrongSource,
        ),
        inward(
            "from the signalling address",
            rtp("198.51.100.10:45000", 10_000, RTP),
            Reason::WrongSource,
        ),
        inward(
            "from a stranger",
            rtp("192.0.2.9:45000", 10_000, RTP),
            Reason::WrongSource,
        ),
        inward(
            "to a port without a call",
            rtp(good, 10_002, RTP),
            Reason::NoPinhole,
        ),
        inward(
            "to the range's last port without a call",
            rtp(good, 20_000, RTP),
            Reason::NoPinhole,
        ),
        inward(
            "a second source of the pinhole",
            rtp("192.0.2.64:45000", 10_010, RTP),
            Reason::Media,
        ),
        inward(
            "a source with one port",
            rtp("192.0.2.65:40000", 10_010, RTP),
            Reason::Media,
        ),
        inward(
            "a source with one port, from another",
            rtp("192.0.2.65:40001", 10_010, RTP),
            Reason::WrongSource,
        ),
        inward(
            "a source prefix",
            rtp("192.0.2.191:7", 10_010, RTP),
            Reason::Media,
        ),
        inward(
            "beside a source prefix",
            rtp("192.0.2.192:7", 10_010, RTP),
            Reason::WrongSource,
        ),
        inward(
            "the last place of four",
            rtp("198.51.100.20:50010", 10_010, RTP),
            Reason::Media,
        ),
        inward(
            "the last place's ports hold",
            rtp("198.51.100.20:50011", 10_010, RTP),
            Reason::WrongSource,
        ),
        inward(
            "any address in the port range",
            rtp("192.0.2.77:40000", 10_030, RTP),
            Reason::Media,
        ),
        inward(
            "any address outside the port range",
            rtp("192.0.2.77:5060", 10_030, RTP),
            Reason::WrongSource,
        ),
        inward(
            "an idle pinhole is shut",
            rtp(good, 10_020, RTP),
            Reason::PinholeExpired,
        ),
        inward("stun is no rtp", rtp(good, 10_000, STUN), Reason::NotMedia),
        inward(
            "rtp version 1 is none",
            rtp(good, 10_000, &[0x40; 20]),
            Reason::NotMedia,
        ),
        inward(
            "an empty datagram is none",
            rtp(good, 10_000, b""),
            Reason::NotMedia,
        ),
        inward(
            "padding is not payload",
            rtp(good, 10_000, b"").padded(18),
            Reason::NotMedia,
        ),
        inward(
            "stun where ice was negotiated",
            rtp(good, 10_040, STUN),
            Reason::Media,
        ),
        inward("rtp there too", rtp(good, 10_040, RTP), Reason::Media),
        inward("but no dtls", rtp(good, 10_040, DTLS), Reason::NotMedia),
        inward(
            "dtls where it was negotiated",
            rtp(good, 10_050, DTLS),
            Reason::Media,
        ),
        inward("stun beside it", rtp(good, 10_050, STUN), Reason::Media),
        inward(
            "zrtp nowhere",
            rtp(good, 10_050, &[0x10; 16]),
            Reason::NotMedia,
        ),
        inward(
            "turn channels nowhere",
            rtp(good, 10_050, &[0x40; 16]),
            Reason::NotMedia,
        ),
        inward(
            "stun from a stranger",
            rtp("192.0.2.9:45000", 10_050, STUN),
            Reason::WrongSource,
        ),
        inward(
            "udptl has no version",
            rtp(good, 4_000, &[0, 1, 2, 3]),
            Reason::Media,
        ),
        inward(
            "udptl from a stranger",
            rtp("192.0.2.9:45000", 4_000, &[0, 1, 2, 3]),
            Reason::WrongSource,
        ),
        inward(
            "udptl without a call",
            rtp(good, 4_001, &[0, 1, 2, 3]),
            Reason::NoPinhole,
        ),
        inward(
            "ipv6 rtp passes",
            Frame::udp("[2001:db8:3::20]:45000", &format!("{PBX6}:10000"), RTP),
            Reason::Media,
        ),
        inward(
            "ipv6 rtp behind extension headers",
            Frame::udp("[2001:db8:3::20]:45000", &format!("{PBX6}:10000"), RTP).with_extensions(3),
            Reason::Media,
        ),
        inward(
            "ipv6 rtp from a neighbour",
            Frame::udp("[2001:db8:3::21]:45000", &format!("{PBX6}:10000"), RTP),
            Reason::WrongSource,
        ),
        inward(
            "ipv6 rtp from a wrong port",
            Frame::udp("[2001:db8:3::20]:39999", &format!("{PBX6}:10000"), RTP),
            Reason::WrongSource,
        ),
        inward(
            "ipv6 rtp without a call",
            Frame::udp("[2001:db8:3::20]:45000", &format!("{PBX6}:10002"), RTP),
            Reason::NoPinhole,
        ),
    ]
}

/// An RTP packet of this payload type and marker, cut to a length.
fn rtp_of(second: u8, length: usize) -> Vec<u8> {
    let mut packet = vec![0x80, second];
    packet.resize(length, 0);
    packet
}

fn ingress_payload() -> Vec<Case> {
    let to = |port: u16, payload: &[u8]| {
        Frame::udp("198.51.100.20:45000", &format!("{PBX4}:{port}"), payload)
    };
    vec![
        inward(
            "a listed payload type with the marker",
            to(10_000, &rtp_of(0x80 | 101, 16)),
            Reason::Media,
        ),
        inward(
            "one that is not listed",
            to(10_000, &rtp_of(8, 172)),
            Reason::PayloadType,
        ),
        inward(
            "one that is not listed, with the marker",
            to(10_000, &rtp_of(0x80 | 8, 172)),
            Reason::PayloadType,
        ),
        inward(
            "the last payload type",
            to(10_062, &rtp_of(127, 172)),
            Reason::Media,
        ),
        inward(
            "the one before it",
            to(10_062, &rtp_of(126, 172)),
            Reason::PayloadType,
        ),
        inward("a bare header", to(10_000, &rtp_of(0, 12)), Reason::Media),
        inward(
            "less than a header",
            to(10_000, &rtp_of(0, 11)),
            Reason::NotMedia,
        ),
        inward("one byte is nothing", to(10_000, &[0x80]), Reason::NotMedia),
        inward(
            "one byte and padding are nothing",
            to(10_000, &[0x80]).padded(17),
            Reason::NotMedia,
        ),
        inward(
            "rtcp where it is not multiplexed",
            to(10_000, RTCP),
            Reason::PayloadType,
        ),
        inward("rtcp where it is", to(10_060, RTCP), Reason::Media),
        inward("rtp beside it", to(10_060, &rtp_of(96, 40)), Reason::Media),
        inward(
            "the first of rtcp's packet types",
            to(10_060, &rtp_of(192, 8)),
            Reason::Media,
        ),
        inward(
            "the last of them",
            to(10_060, &rtp_of(223, 8)),
            Reason::Media,
        ),
        inward(
            "below them it is rtp",
            to(10_060, &rtp_of(191, 40)),
            Reason::PayloadType,
        ),
        inward(
            "above them too",
            to(10_060, &rtp_of(224, 40)),
            Reason::Media,
        ),
        inward(
            "less than rtcp's header",
            to(10_060, &rtp_of(200, 7)),
            Reason::NotMedia,
        ),
        inward(
            "a payload type that looks like rtcp, where it is listed",
            to(10_062, &rtp_of(200, 40)),
            Reason::Media,
        ),
        inward(
            "and without the marker",
            to(10_062, &rtp_of(72, 40)),
            Reason::Media,
        ),
        inward("rtp on rtcp's port", to(10_001, RTP), Reason::PayloadType),
        inward(
            "less than a header of rtcp on its port",
            to(10_001, &RTCP[..7]),
            Reason::NotMedia,
        ),
        inward(
            "udptl that looks like rtp",
            to(4_000, &[0x80, 8, 1, 2]),
            Reason::Media,
        ),
        inward(
            "ipv6, a payload type that is not listed",
            Frame::udp(
                "[2001:db8:3::20]:45000",
                &format!("{PBX6}:10000"),
                &rtp_of(8, 172),
            ),
            Reason::PayloadType,
        ),
    ]
}

fn ingress_budget() -> Vec<Case> {
    let to = |source: &str, port: u16, payload: &[u8]| {
        Frame::udp(source, &format!("{PBX4}:{port}"), payload)
    };
    let good = "198.51.100.20:45000";
    let mut cases = vec![inward("a burst", to(good, 10_070, RTP), Reason::Media); AT_ONCE - 1];
    // What is dropped for another reason spends nothing.
    for _ in 0..AT_ONCE {
        cases.push(inward(
            "what was not negotiated",
            to(good, 10_070, &rtp_of(8, 40)),
            Reason::PayloadType,
        ));
        cases.push(inward(
            "a stranger's",
            to("192.0.2.9:45000", 10_070, RTP),
            Reason::WrongSource,
        ));
    }
    cases.push(inward(
        "the burst's last",
        to(good, 10_070, RTP),
        Reason::Media,
    ));
    cases.extend(vec![
        inward(
            "one too many",
            to(good, 10_070, RTP),
            Reason::RateLimited
        );
        2
    ]);
    cases
}

fn ingress_latch() -> Vec<Case> {
    let to4 = |source: &str, payload: &[u8]| Frame::udp(source, &format!("{PBX4}:10080"), payload);
    let to6 = |source: &str, payload: &[u8]| Frame::udp(source, &format!("{PBX6}:10080"), payload);
    let mut cases = vec![
        inward(
            "what was not negotiated latches nothing",
            to4("192.0.2.77:45000", &rtp_of(8, 40)),
            Reason::PayloadType,
        ),
        inward(
            "what is outside the limits latches nothing",
            to4("192.0.2.77:39999", RTP),
            Reason::WrongSource,
        ),
        inward(
            "the first packet latches",
            to4("198.51.100.20:45000", RTP),
            Reason::Media,
        ),
        inward(
            "another address does not pass any more",
            to4("198.51.100.21:45000", RTP),
            Reason::WrongSource,
        ),
        inward(
            "nor another port",
            to4("198.51.100.20:45001", RTP),
            Reason::WrongSource,
        ),
    ];
    for _ in 0..AT_ONCE {
        cases.push(inward(
            "nor does it spend the budget",
            to4("192.0.2.77:45000", RTP),
            Reason::WrongSource,
        ));
    }
    for _ in 1..AT_ONCE {
        cases.push(inward(
            "the source that is latched to passes",
            to4("198.51.100.20:45000", RTP),
            Reason::Media,
        ));
    }
    cases.extend([
        inward(
            "within its budget",
            to4("198.51.100.20:45000", RTP),
            Reason::RateLimited,
        ),
        inward(
            "ipv6: the first packet latches",
            to6("[2001:db8:3::20]:45000", RTP),
            Reason::Media,
        ),
        inward(
            "ipv6: another address does not pass any more",
            to6("[2001:db8:3::21]:45000", RTP),
            Reason::WrongSource,
        ),
        inward(
            "ipv6: nor another port",
            to6("[2001:db8:3::20]:45001", RTP),
            Reason::WrongSource,
        ),
        inward(
            "ipv6: the source that is latched to passes",
            to6("[2001:db8:3::20]:45000", RTP),
            Reason::Media,
        ),
    ]);
    cases
}

fn ingress_fragments() -> Vec<Case> {
    let sip4 = |source: &str| Frame::udp(source, &format!("{PBX4}:5060"), &[b'x'; 64]);
    let sip6 = |source: &str| Frame::udp(source, &format!("{PBX6}:5060"), &[b'x'; 64]);
    let copied = |name, frame: Frame, reason| case(name, Way::In, &frame, reason, true);
    vec![
        inward(
            "a first fragment of sip",
            sip4("198.51.100.10:5060").fragment(1, 0, true),
            Reason::Signalling,
        ),
        copied(
            "its later fragment",
            sip4("198.51.100.10:5060").fragment(1, 9, false),
            Reason::Fragment,
        ),
        copied(
            "a provider's later fragment that overtook the first",
            sip4("198.51.100.10:5060").fragment(2, 9, false),
            Reason::Fragment,
        ),
        inward(
            "a stranger's first fragment",
            sip4("192.0.2.9:5060").fragment(3, 0, true),
            Reason::UnknownSource,
        ),
        inward(
            "and its later fragment",
            sip4("192.0.2.9:5060").fragment(3, 9, false),
            Reason::StrayFragment,
        ),
        inward(
            "a stranger's later fragment alone",
            sip4("192.0.2.9:5060").fragment(4, 9, false),
            Reason::StrayFragment,
        ),
        inward(
            "other traffic in fragments",
            Frame::udp("192.0.2.9:53", &format!("{PBX4}:33000"), &[0; 64]).fragment(5, 0, true),
            Reason::OtherTraffic,
        ),
        inward(
            "and its later fragment",
            Frame::udp("192.0.2.9:53", &format!("{PBX4}:33000"), &[0; 64]).fragment(5, 9, false),
            Reason::Fragment,
        ),
        inward(
            "another datagram's id does not help",
            Frame::udp("192.0.2.9:53", &format!("{PBX4}:33000"), &[0; 64]).fragment(6, 9, false),
            Reason::StrayFragment,
        ),
        inward(
            "an ipv6 first fragment of sip",
            sip6("[2001:db8:2::5]:5060").fragment(0x10001, 0, true),
            Reason::Signalling,
        ),
        copied(
            "its later fragment",
            sip6("[2001:db8:2::5]:5060").fragment(0x10001, 9, false),
            Reason::Fragment,
        ),
        inward(
            "an ipv6 stranger's later fragment",
            sip6("[2001:db8:9::9]:5060").fragment(0x10001, 9, false),
            Reason::StrayFragment,
        ),
        inward(
            "an atomic fragment is whole",
            sip6("[2001:db8:2::5]:5060").fragment(7, 0, false),
            Reason::Signalling,
        ),
        inward(
            "a first fragment without ports",
            Frame::other(47, "198.51.100.10:0", &format!("{PBX4}:0"), &[0; 8]).fragment(8, 0, true),
            Reason::OtherProtocol,
        ),
    ]
}

fn ingress_malformed() -> Vec<Case> {
    let sip = Frame::udp("198.51.100.10:5060", &format!("{PBX4}:5060"), SIP).build();
    let sip6 = Frame::udp("[2001:db8:2::5]:5060", &format!("{PBX6}:5060"), SIP).build();
    let changed = |frame: &[u8], changes: &[(usize, u8)]| {
        let mut frame = frame.to_vec();
        for &(offset, byte) in changes {
            frame[offset] = byte;
        }
        frame
    };
    let cut = |frame: &[u8], length: usize| frame[..length].to_vec();
    let bad = |name, frame| raw(name, Way::In, frame, Reason::Malformed);
    vec![
        bad("ipv4 cut inside its header", cut(&sip, 14 + 19)),
        bad(
            "ipv4 shorter than its total length",
            cut(&sip, sip.len() - 1),
        ),
        bad(
            "ipv4 with a header length of 4 words",
            changed(&sip, &[(14, 0x44)]),
        ),
        bad("ipv4 with version 5", changed(&sip, &[(14, 0x55)])),
        bad(
            "ipv4 with a total length below its header",
            changed(&sip, &[(16, 0), (17, 19)]),
        ),
        bad(
            "ipv4 that ends before the ports",
            changed(&sip, &[(16, 0), (17, 22)]),
        ),
        bad(
            "ipv4 that ends inside the udp header",
            changed(&sip, &[(16, 0), (17, 27)]),
        ),
        bad(
            "udp length below its header",
            changed(&sip, &[(38, 0), (39, 7)]),
        ),
        bad(
            "udp length beyond the packet",
            changed(&sip, &[(38, 4), (39, 0)]),
        ),
        bad("ipv6 cut inside its header", cut(&sip6, 14 + 39)),
        bad(
            "ipv6 shorter than its payload length",
            cut(&sip6, sip6.len() - 1),
        ),
        bad("ipv6 with version 4", changed(&sip6, &[(14, 0x40)])),
        bad(
            "ipv6 that ends inside an extension header",
            changed(&sip6, &[(18, 0), (19, 4), (20, 60)]),
        ),
        bad(
            "ipv6 with too many extension headers",
            Frame::udp("[2001:db8:2::5]:5060", &format!("{PBX6}:5060"), SIP)
                .with_extensions(5)
                .build(),
        ),
        bad(
            "a tiny first fragment",
            Frame::other(50, "192.0.2.9:0", &format!("{PBX4}:0"), &[0, 1])
                .fragment(9, 0, true)
                .relabelled(UDP)
                .build(),
        ),
        raw(
            "a frame with a vlan tag cut off",
            Way::In,
            vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00],
            Reason::NotIp,
        ),
    ]
}

fn egress() -> Vec<Case> {
    let from_pbx = |port: u16| format!("{PBX4}:{port}");
    let copied = |name, frame: Frame| case(name, Way::Out, &frame, Reason::EgressSignalling, true);
    vec![
        raw("arp leaves", Way::Out, arp(), Reason::EgressOther),
        outward(
            "sip to the provider leaves and is copied",
            Frame::udp(&from_pbx(5060), "198.51.100.10:5060", SIP),
            Reason::EgressSignalling,
        ),
        outward(
            "to whatever port it asked from",
            Frame::udp(&from_pbx(5060), "198.51.100.10:33333", SIP),
            Reason::EgressSignalling,
        ),
        outward(
            "from whatever port of the pbx",
            Frame::udp(&from_pbx(34_567), "198.51.100.10:5060", SIP),
            Reason::EgressSignalling,
        ),
        outward(
            "sip to somebody else is not read",
            Frame::udp(&from_pbx(5060), "192.0.2.9:5060", SIP),
            Reason::EgressForeignSignalling,
        ),
        outward(
            "another host's sip is not read",
            Frame::udp("203.0.113.11:5060", "198.51.100.10:5060", SIP),
            Reason::EgressOther,
        ),
        outward(
            "over ipv6",
            Frame::udp(&format!("{PBX6}:5060"), "[2001:db8:2::5]:5060", SIP),
            Reason::EgressSignalling,
        ),
        outward(
            "over tcp, as the answering side",
            Frame::tcp(&from_pbx(5060), "198.51.100.10:41000", SIP),
            Reason::EgressSignalling,
        ),
        outward(
            "over tcp, as the calling side",
            Frame::tcp(&from_pbx(45_678), "198.51.100.10:5060", SIP),
            Reason::EgressSignalling,
        ),
        Case {
            copy_from: None,
            ..outward(
                "tls leaves without a copy",
                Frame::tcp(&from_pbx(45_678), "198.51.100.130:5061", b"x"),
                Reason::EgressSignalling,
            )
        },
        copied(
            "a later fragment to the provider",
            Frame::udp(&from_pbx(5060), "198.51.100.10:5060", &[b'x'; 64]).fragment(1, 9, false),
        ),
        outward(
            "a later fragment to somebody else",
            Frame::udp(&from_pbx(5060), "192.0.2.9:5060", &[b'x'; 64]).fragment(1, 9, false),
            Reason::EgressOther,
        ),
        outward(
            "media of a call is counted",
            Frame::udp(&from_pbx(10_000), "198.51.100.20:45000", RTP),
            Reason::EgressMedia,
        ),
        outward(
            "ipv6 media of a call",
            Frame::udp(&format!("{PBX6}:10000"), "[2001:db8:3::20]:45000", RTP),
            Reason::EgressMedia,
        ),
        Case {
            arrived_on: 77,
            ..outward(
                "sip that came in from the pbx's side",
                Frame::udp(&from_pbx(5060), "198.51.100.10:5060", SIP),
                Reason::EgressSignalling,
            )
        },
        Case {
            arrived_on: OUTER[1],
            ..outward(
                "sip that came in from outside is no word of the pbx's",
                Frame::udp(&from_pbx(5060), "198.51.100.10:5060", SIP),
                Reason::EgressForged,
            )
        },
        Case {
            arrived_on: OUTER[0],
            ..outward(
                "nor is its later fragment",
                Frame::udp(&from_pbx(5060), "198.51.100.10:5060", &[b'x'; 64])
                    .fragment(1, 9, false),
                Reason::EgressForged,
            )
        },
        Case {
            arrived_on: OUTER[0],
            ..outward(
                "what else is forwarded back is nobody's business",
                Frame::udp("203.0.113.11:5060", "198.51.100.10:5060", SIP),
                Reason::EgressOther,
            )
        },
        outward(
            "media of no call",
            Frame::udp(&from_pbx(10_002), "198.51.100.20:45000", RTP),
            Reason::EgressOther,
        ),
        outward(
            "behind a vlan tag",
            Frame::udp(&from_pbx(5060), "198.51.100.10:5060", SIP).tagged(0x8100),
            Reason::EgressSignalling,
        ),
        outward(
            "icmp leaves",
            Frame::other(ICMP, &from_pbx(0), "192.0.2.9:0", &[0; 8]),
            Reason::EgressOther,
        ),
        raw(
            "a malformed packet leaves",
            Way::Out,
            Frame::udp(&from_pbx(5060), "198.51.100.10:5060", SIP).build()[..40].to_vec(),
            Reason::EgressOther,
        ),
    ]
}
