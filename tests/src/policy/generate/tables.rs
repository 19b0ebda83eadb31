//! Policies, pinholes and slots.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sipfilter_common::{
    addr::{Address, Ipv4, Ipv6},
    budget::Budgets,
    key::PinholeKey,
    settings::{MAX_OUTER, MAX_PROTECTED, Mode, Modes, PortRange, Ports, Settings},
    slot::SlotCounts,
    value::{
        AllowList, Allowed, Budget, Flags, Latch, MediaLimits, MediaPorts, MediaRange,
        PayloadTypes, Pinhole, ProviderRule, Shapes, Source,
    },
};
use sipfilter_daemon::shell::policy::{KernelPinhole, KernelPolicy};

use super::{ORIGIN, SLOTS, Tables, far_port, far4, far6, pbx4, pbx6, port};
use crate::policy::{cases::OUTER, random::Random};

const MILLISECOND: u64 = 1_000_000;

/// A policy to load. Addresses and prefixes of both families; each mode in half of the loads.
pub fn policy(random: &mut Random) -> KernelPolicy {
    KernelPolicy {
        settings: settings(random),
        providers: prefixes(random, |random| ProviderRule {
            provider: random.below(4) as u16,
            transports: random.below(8) as u16,
            budgets: Budgets {
                begins: budget(random),
                continues: budget(random),
                segments: budget(random),
            },
        }),
        allowed: prefixes(random, allow_list),
        media: prefixes(random, media_limits),
        provider_media: provider_media(random),
    }
}

fn provider_media(random: &mut Random) -> BTreeMap<(u16, IpNet), MediaPorts> {
    let mut places: BTreeMap<_, _> = (0..random.below(14))
        .map(|_| {
            let provider = random.below(4) as u16;
            let (min, max) = port_range(random);
            ((provider, net(random)), MediaPorts { min, max })
        })
        .collect();
    for provider in 0..4 {
        if random.percent(50) {
            let (min, max) = port_range(random);
            places.insert(
                (provider, Ipv4Net::default().into()),
                MediaPorts { min, max },
            );
            places.insert(
                (provider, Ipv6Net::default().into()),
                MediaPorts { min, max },
            );
        }
    }
    places
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = Settings::EMPTY;
    let counts = [1, 1, 2, 3, 0, MAX_PROTECTED as u32];
    settings.protected4_count = random.pick(&counts);
    settings.protected6_count = random.pick(&counts);
    // Places behind the count are filled too: they must not matter.
    for (index, place) in (0..).zip(&mut settings.protected4) {
        *place = pbx4(index).into();
    }
    for (index, place) in (0..).zip(&mut settings.protected6) {
        *place = pbx6(index).into();
    }
    let ranges = [
        (10_000, 10_015),
        (10_000, 10_015),
        (10_000, 10_015),
        (10_000, 10_015),
        (10_000, 10_015),
        (10_000, 10_000),
        (10_001, 10_000),
        (0, 65_535),
        (0, 10_000),
        (9_999, 65_535),
    ];
    let range = |(min, max)| PortRange { min, max };
    settings.rtp = range(random.pick(&ranges));
    settings.udptl = range(random.pick(&[(1, 0), (4_000, 4_000), (10_010, 10_020)]));
    settings.pbx = ports(random);
    settings.providers = ports(random);
    if random.percent(50) {
        settings.outer[..OUTER.len()].copy_from_slice(&OUTER);
        if random.percent(20) {
            settings.outer[MAX_OUTER - 1] = 7;
        }
    }
    settings.modes = [
        (Mode::Observe, 15),
        (Mode::Strict, 50),
        (Mode::Replies, 60),
        (Mode::EnforceEgress, 50),
        (Mode::Provisional, 80),
    ]
    .into_iter()
    .filter(|&(_, chance)| random.percent(chance))
    .fold(Modes::DEFAULT, |modes, (mode, _)| modes.with(mode));
    settings
}

fn ports(random: &mut Random) -> Ports {
    let mut list = |usual: u16| {
        let mut places = [0; 4];
        for place in places.iter_mut().take(random.below(5)) {
            *place = if random.percent(70) {
                usual
            } else {
                random.pick(&[5060, 5061, 5062, 5080, 443, 10_003, 65_535])
            };
        }
        places
    };
    Ports {
        udp: list(5060),
        tcp: list(5060),
        tls: list(5061),
    }
}

fn prefixes<V>(random: &mut Random, mut value: impl FnMut(&mut Random) -> V) -> BTreeMap<IpNet, V> {
    (0..random.below(14))
        .map(|_| (net(random), value(random)))
        .collect()
}

fn net(random: &mut Random) -> IpNet {
    if random.percent(50) {
        let length = match random.below(6) {
            0 => random.below(33) as u8,
            1 => random.pick(&[0, 1, 8, 31]),
            _ => random.pick(&[24, 28, 29, 30, 32]),
        };
        let net = Ipv4Net::new(far4(random), length).expect("at most 32 bits");
        IpNet::V4(net.trunc())
    } else {
        let length = match random.below(6) {
            0 => random.below(129) as u8,
            1 => random.pick(&[0, 1, 31, 33, 127]),
            _ => random.pick(&[48, 64, 96, 125, 128]),
        };
        let net = Ipv6Net::new(far6(random), length).expect("at most 128 bits");
        IpNet::V6(net.trunc())
    }
}

fn port_range(random: &mut Random) -> (u16, u16) {
    match random.below(5) {
        0 => (0, 65_535),
        1 => (40_000, 40_000 + random.number() as u16 % 6),
        2 => {
            let only = far_port(random);
            (only, only)
        }
        3 => (far_port(random), far_port(random)),
        _ => (40_001, 40_003),
    }
}

fn allow_list(random: &mut Random) -> AllowList {
    let mut entries = [Allowed::NOTHING; _];
    let count = random.pick(&[0, 1, 2, entries.len()]);
    for entry in entries.iter_mut().take(count) {
        let (min, max) = if random.percent(50) {
            port_range(random)
        } else {
            let only = port(random);
            (only, only)
        };
        *entry = Allowed {
            protocol: random.pick(&[6, 6, 17, 17, 47, 132, 273]),
            min,
            max,
        };
    }
    AllowList { entries }
}

fn media_limits(random: &mut Random) -> MediaLimits {
    let mut ranges = [MediaRange::NOTHING; _];
    let count = random.pick(&[0, 1, 2, ranges.len()]);
    for range in ranges.iter_mut().take(count) {
        let (min, max) = port_range(random);
        *range = MediaRange {
            replies: u16::from(random.percent(60)),
            min,
            max,
        };
    }
    MediaLimits { ranges }
}

/// What packets meet in one episode.
pub(super) fn tables(random: &mut Random, policy: &KernelPolicy) -> Tables {
    let pinholes: Vec<_> = (0..random.below(30))
        .map(|_| pinhole(random, &policy.settings))
        .collect();
    let slots = (0..SLOTS)
        .filter_map(|slot| match random.below(4) {
            0 => Some((slot, slot_counts(random))),
            _ => None,
        })
        .collect();
    Tables { pinholes, slots }
}

/// A pinhole, mostly where packets to a protected address will look.
pub(super) fn pinhole(random: &mut Random, settings: &Settings) -> KernelPinhole {
    let port = if random.percent(80) {
        10_000 + random.number() as u16 % 16
    } else {
        port(random)
    };
    let index = |random: &mut Random, count: u32| match count {
        0 => 0,
        _ if random.percent(5) => count,
        _ => random.below(count as usize) as u32,
    };
    if random.percent(50) {
        let local = pbx4(index(random, settings.protected4_count) as u8);
        let local = PinholeKey::new(local.into(), port);
        KernelPinhole::V4(local, value(random, local, net4))
    } else {
        let local = pbx6(index(random, settings.protected6_count) as u16);
        let local = PinholeKey::new(local.into(), port);
        KernelPinhole::V6(local, value(random, local, net6))
    }
}

fn net4(random: &mut Random) -> (Ipv4, Ipv4) {
    loop {
        if let IpNet::V4(net) = net(random) {
            return (net.network().into(), Ipv4::mask(net.prefix_len()));
        }
    }
}

fn net6(random: &mut Random) -> (Ipv6, Ipv6) {
    loop {
        if let IpNet::V6(net) = net(random) {
            return (net.network().into(), Ipv6::mask(net.prefix_len()));
        }
    }
}

fn value<A: Address + Default>(
    random: &mut Random,
    local: PinholeKey<A>,
    mut network: impl FnMut(&mut Random) -> (A, A),
) -> Pinhole<A> {
    let mut sources = [Source::none(); _];
    let count = random.pick(&[1, 1, 2, 4]);
    for source in sources.iter_mut().take(count) {
        let (address, mask) = network(random);
        let (port_min, port_max) = match random.below(3) {
            0 => port_range(random),
            _ => (40_000, 40_005),
        };
        *source = Source {
            address,
            mask,
            port_min,
            port_max,
        };
    }
    Pinhole {
        opened: moment(random),
        idle: match random.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 | 3 => random.between(0, 40) * MILLISECOND,
            _ => 300_000 * MILLISECOND,
        },
        payload_types: PayloadTypes::new(match random.below(5) {
            0 => u128::MAX,
            1 => 0,
            2 => u128::from(random.number()) << 64 | u128::from(random.number()),
            _ => 1 | 1 << 8 | 1 << 101 | 1 << random.below(128),
        }),
        budget: budget(random),
        // Some share a slot, and some name one that is not there.
        slot: random.below(SLOTS as usize + 2) as u32,
        shapes: random.pick(&[
            Shapes::RTP,
            Shapes::RTP,
            Shapes::RTP,
            Shapes::RTP.with(Shapes::STUN),
            Shapes::RTP.with(Shapes::DTLS).with(Shapes::STUN),
            Shapes::STUN,
            Shapes::ANY,
        ]),
        flags: random.pick(&[
            Flags::default(),
            Flags::RTCP,
            Flags::LATCH,
            Flags::LATCH.with(Flags::RTCP),
        ]),
        generation: generation(random),
        provider: random.below(4) as u16,
        sources,
        provider_name: 0,
        call: random.number(),
        local,
        filling: A::Filling::default(),
    }
}

fn budget(random: &mut Random) -> Budget {
    Budget {
        interval: match random.below(6) {
            0 => 1_000_000_000,
            1 => random.below(5_000_000) as u32,
            2 => u32::MAX,
            _ => 0,
        },
        burst: random.pick(&[0, 1, 5, 5_000, u32::MAX]),
    }
}

fn generation(random: &mut Random) -> u16 {
    random.pick(&[0, 1, 1, 1, 2, 2, u16::MAX])
}

/// Around the beginning, so that limits pass while packets come; or long ago, or never.
fn moment(random: &mut Random) -> u64 {
    match random.below(16) {
        0 => 0,
        1 => ORIGIN - 3_600_000 * MILLISECOND,
        _ => ORIGIN - 60 * MILLISECOND + random.between(0, 100 * MILLISECOND),
    }
}

/// Counts near their end, times around the beginning, and latches, some to a source that packets come from.
fn slot_counts(random: &mut Random) -> SlotCounts {
    let count = |random: &mut Random| random.pick(&[0, 77, u64::MAX - 1, u64::MAX]);
    let latch = match random.below(3) {
        0 => 0,
        1 => Latch::new(generation(random), random.number()).0,
        _ => {
            let source = Ipv4::from(far4(random));
            let token = source.token(far_port(random), &[0; 2]);
            Latch::new(generation(random), token).0
        }
    };
    SlotCounts {
        ingress_packets: count(random),
        ingress_last: moment(random),
        egress_last: moment(random),
        due: moment(random),
        latch,
        egress_packets: count(random),
        dropped_packets: count(random),
    }
}

/// The address and port of a far end that a source of a pinhole names, the address's other bits by chance.
pub(super) fn named(random: &mut Random, pinhole: &KernelPinhole) -> (IpAddr, u16) {
    fn one_of<A: Copy>(random: &mut Random, sources: &[Source<A>]) -> Source<A> {
        let used = sources
            .iter()
            .filter(|source| source.port_min <= source.port_max);
        let used: Vec<_> = used.copied().collect();
        random.pick(if used.is_empty() { sources } else { &used })
    }
    fn ports<A>(random: &mut Random, source: &Source<A>) -> u16 {
        if source.port_min <= source.port_max {
            random.between(source.port_min.into(), source.port_max.into()) as u16
        } else {
            far_port(random)
        }
    }
    match pinhole {
        KernelPinhole::V4(_, value) => {
            let source = one_of(random, &value.sources);
            let mask = u32::from_be_bytes(source.mask.to_bytes());
            let network = u32::from_be_bytes(source.address.to_bytes());
            let host = far4(random).to_bits();
            let address = IpAddr::V4((network | host & !mask).into());
            (address, ports(random, &source))
        }
        KernelPinhole::V6(_, value) => {
            let source = one_of(random, &value.sources);
            let mask = u128::from_be_bytes(source.mask.to_bytes());
            let network = u128::from_be_bytes(source.address.to_bytes());
            let host = far6(random).to_bits();
            let address = IpAddr::V6((network | host & !mask).into());
            (address, ports(random, &source))
        }
    }
}
