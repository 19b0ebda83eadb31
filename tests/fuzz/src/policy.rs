//! One frame through the packet policy, against tables with pinholes of both families: no bytes panic, and a frame that passes as
//! media or signalling is one that the tables allow by a second, slower reading.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
};

use sipfilter_common::{
    addr::{Address, Ipv4, Ipv6},
    budget::Budgets,
    classify::{Verdict, classify_egress, classify_ingress, classify_plain},
    host::HostTables,
    key::PinholeKey,
    parse::{Fragment, Ip, Network, parse_ethernet, parse_ipv4, parse_ipv6, parse_raw},
    reason::{Action, Reason},
    settings::{PortRange, Settings},
    value::{Budget, Flags, PayloadTypes, Pinhole, ProviderRule, Shapes, Source},
};

/// The payload types of every pinhole.
const NEGOTIATED: u128 = 1 | 1 << 8 | 1 << 72 | 1 << 101;

const PBX4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PBX6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const MEDIA4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const MEDIA6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0x77);
const PROVIDER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);
const PROVIDER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0);

/// Judges the bytes as a frame in both directions.
pub fn run(bytes: &[u8]) {
    if let Some(short) = classify_plain(&bytes, &tables()) {
        assert_eq!(short, classify_ingress(&bytes, &tables()));
    }
    let tables = tables();
    let ingress = classify_ingress(&bytes, &tables);
    justify(bytes, &tables, ingress);
    let egress = classify_egress(&bytes, &tables);
    assert_eq!(
        egress.action,
        Action::Pass,
        "nothing is dropped on the way out"
    );
    for verdict in [ingress, egress] {
        if let Some(start) = verdict.copy_from() {
            assert!(start <= bytes.len());
            assert_eq!(verdict.action, Action::Pass);
        }
    }

    // Padding behind the IP packet is the link's business (IEEE 802.3 pads to 60 bytes).
    if !matches!(ingress.reason, Reason::Malformed | Reason::NotIp) {
        let padded = [bytes, &[0xff; 7]].concat();
        let fresh = self::tables();
        assert_eq!(
            classify_ingress(&padded.as_slice(), &fresh).reason,
            ingress.reason
        );
    }
    // The daemon's reading of a copy, which begins with the IP header.
    let _ = parse_raw(&bytes).map(|network| match network {
        Network::Ipv4(start) => parse_ipv4(&bytes, start).is_ok(),
        Network::Ipv6(start) => parse_ipv6(&bytes, start).is_ok(),
        Network::Other => false,
    });
}

/// Whether the tables really allow what passed.
fn justify(bytes: &[u8], tables: &HostTables, verdict: Verdict) {
    match parse_ethernet(&bytes) {
        Ok(Network::Ipv4(start)) => {
            if let Ok(ip) = parse_ipv4(&bytes, start) {
                let is_provider = |source: Ipv4| source.matches(PROVIDER4.into(), Ipv4::mask(28));
                justify_ip(
                    bytes,
                    tables,
                    &ip,
                    verdict,
                    PBX4.into(),
                    is_provider,
                    |key| tables.pinholes4.get(&key),
                );
            }
        }
        Ok(Network::Ipv6(start)) => {
            if let Ok(ip) = parse_ipv6(&bytes, start) {
                let is_provider = |source: Ipv6| source.matches(PROVIDER6.into(), Ipv6::mask(64));
                justify_ip(
                    bytes,
                    tables,
                    &ip,
                    verdict,
                    PBX6.into(),
                    is_provider,
                    |key| tables.pinholes6.get(&key),
                );
            }
        }
        _ => assert_eq!(verdict.reason, Reason::NotIp),
    }
}

fn justify_ip<'t, A: Address + Eq + 't>(
    bytes: &[u8],
    tables: &HostTables,
    ip: &Ip<A>,
    verdict: Verdict,
    pbx: A,
    is_provider: impl Fn(A) -> bool,
    pinhole: impl Fn(PinholeKey<A>) -> Option<&'t Pinhole<A>>,
) {
    match verdict.reason {
        Reason::Media => {
            assert!(ip.destination == pbx);
            let ports = ip.ports(&bytes).expect("media without ports");
            let pinhole =
                pinhole(PinholeKey::new(pbx, ports.destination)).expect("media without a pinhole");
            assert!(pinhole.sources.iter().any(|source| {
                (source.port_min..=source.port_max).contains(&ports.source)
                    && ip.source.matches(source.address, source.mask)
            }));
            let (start, end) = ip.udp_payload(&bytes).expect("media without a payload");
            assert!(end <= bytes.len());
            assert!(start < end);
            let datagram = &bytes[start..end];
            if pinhole.shapes == Shapes::RTP {
                assert_eq!(datagram[0] >> 6, 2);
            }
            if pinhole.shapes != Shapes::ANY && datagram[0] >> 6 == 2 {
                let is_rtcp = pinhole.flags.has(Flags::RTCP) && (192..224).contains(&datagram[1]);
                let is_negotiated = NEGOTIATED >> (datagram[1] & 0x7f) & 1 == 1;
                assert!(is_rtcp && datagram.len() >= 8 || is_negotiated && datagram.len() >= 12);
            }
            // The second packet of one moment is one too many, and whoever is not latched to is not even that.
            let again = classify_ingress(&bytes, tables).reason;
            assert_eq!(again, Reason::RateLimited);
        }
        Reason::Signalling => {
            assert!(is_provider(ip.source) && ip.destination == pbx);
        }
        Reason::Fragment => assert!(is_provider(ip.source)),
        Reason::NotProtected => assert!(ip.destination != pbx),
        Reason::OtherTraffic => {
            if let Ok(ports) = ip.ports(&bytes)
                && ip.fragment == Fragment::Whole
                && ip.protocol == sipfilter_common::parse::UDP
            {
                assert!(
                    ports.destination != 5060 && !(10_000..20_000).contains(&ports.destination)
                );
            }
        }
        _ => {}
    }
}

fn settings() -> Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    *SETTINGS.get_or_init(|| {
        let mut settings = Settings::EMPTY;
        settings.protected4[0] = PBX4.into();
        settings.protected4_count = 1;
        settings.protected6[0] = PBX6.into();
        settings.protected6_count = 1;
        settings.rtp = PortRange {
            min: 10_000,
            max: 19_999,
        };
        for ports in [&mut settings.pbx, &mut settings.providers] {
            ports.udp[0] = 5060;
            ports.tcp[0] = 5060;
            ports.tls[0] = 5061;
        }
        settings
    })
}

fn tables() -> HostTables {
    let mut tables = HostTables::new(settings(), 4);
    let rule = ProviderRule {
        provider: 0,
        transports: 0b111,
        budgets: Budgets::default(),
    };
    tables.add_provider(IpAddr::V4(PROVIDER4), 28, rule);
    tables.add_provider(IpAddr::V6(PROVIDER6), 64, rule);
    let ports = [
        (10_000, Shapes::RTP),
        (10_001, Shapes::RTP.with(Shapes::STUN)),
        (10_002, Shapes::ANY),
    ];
    for (slot, (port, shapes)) in (0_u32..).zip(ports) {
        tables.pinholes4.insert(
            PinholeKey::new(PBX4.into(), port),
            pinhole(
                PinholeKey::new(PBX4.into(), port),
                MEDIA4.into(),
                Ipv4::mask(32),
                slot,
                shapes,
            ),
        );
        tables.pinholes6.insert(
            PinholeKey::new(PBX6.into(), port),
            pinhole(
                PinholeKey::new(PBX6.into(), port),
                MEDIA6.into(),
                Ipv6::mask(128),
                slot,
                shapes,
            ),
        );
    }
    tables
}

fn pinhole<A: Address + Default>(
    local: PinholeKey<A>,
    address: A,
    mask: A,
    slot: u32,
    shapes: Shapes,
) -> Pinhole<A> {
    let mut sources = [Source::none(); sipfilter_common::value::MAX_SOURCES];
    sources[0] = Source {
        address,
        mask,
        port_min: 20_000,
        port_max: 40_000,
    };
    Pinhole {
        opened: 0,
        idle: 1,
        payload_types: PayloadTypes::new(NEGOTIATED),
        budget: Budget::new(1, 0),
        slot,
        shapes,
        flags: if shapes == Shapes::RTP {
            Flags::LATCH
        } else {
            Flags::RTCP
        },
        generation: 1,
        provider: 0,
        sources,
        provider_name: 0,
        call: 1,
        local,
        filling: A::Filling::default(),
    }
}
