//! Pinholes read back from the kernel's form: the inverse of what `policy` translates, for a daemon that takes over what another has left.
//!
//! Pure translation. Invariant: a pinhole that is read back and written again lets the same packets in.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use sipfilter_common::{
    addr::Address,
    value::{self, Flags, PayloadTypes, Shapes},
};

use crate::engine::{
    CallNumber,
    pinhole::{Arming, Extras, Label, PacketRate, Pinhole, Source, Stream, Terms},
    settings::ProviderId,
};

/// By a run that is over: no call has the number 0, so that any other arming is another one.
const ARMED: Arming = Arming {
    call: CallNumber(0),
    turn: 0,
};

/// The pinhole that a kernel's entry stands for. `prefix_length` reads a mask of its family.
pub fn pinhole<A: Address + Into<IpAddr>>(
    local: SocketAddr,
    value: &value::Pinhole<A>,
    prefix_length: impl Fn(A) -> u8,
) -> Pinhole {
    let mut sources: Vec<Source> = value
        .sources
        .iter()
        .filter(|source| source.port_min <= source.port_max)
        .filter_map(|source| {
            let net = IpNet::new(source.address.into(), prefix_length(source.mask)).ok()?;
            let ports = (source.port_min, source.port_max);
            Some(Source { net, ports })
        })
        .collect();
    sources.sort_unstable();
    let is_any = value.shapes.is_any();
    let has = |shape| !is_any && value.shapes.admits(shape);
    let rtcp = value.flags.has(Flags::RTCP);
    Pinhole {
        local,
        sources,
        stream: if is_any {
            Stream::Udptl
        } else if rtcp && value.payload_types == PayloadTypes::default() {
            Stream::Rtcp
        } else {
            Stream::Rtp
        },
        extras: Extras {
            stun: has(Shapes::STUN),
            dtls: has(Shapes::DTLS),
        },
        terms: Terms {
            payload_types: value.payload_types,
            rtcp,
            packets_per_second: value
                .budget
                .packets_per_second()
                .map_or(PacketRate::UNLIMITED, PacketRate::new),
        },
        latch: value.flags.has(Flags::LATCH).then_some(ARMED),
        idle: Duration::from_nanos(value.idle),
        provider: ProviderId(value.provider),
        call: CallNumber(0),
        label: Label(value.call),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sipfilter_common::addr::Ipv4;

    use super::*;
    use crate::shell::policy::{KernelPinhole, Place};

    #[test]
    fn what_is_read_back_is_what_was_written() {
        let source = |net: &str, ports| Source {
            net: net.parse().unwrap(),
            ports,
        };
        let rtp = Pinhole {
            local: (Ipv4Addr::new(192, 0, 2, 10), 10_000).into(),
            sources: vec![
                source("198.51.100.0/24", (20_000, 40_000)),
                source("203.0.113.7/32", (1, 65_535)),
            ],
            stream: Stream::Rtp,
            extras: Extras {
                stun: true,
                dtls: false,
            },
            terms: Terms {
                payload_types: PayloadTypes::new(1 << 8 | 1 << 101),
                rtcp: true,
                packets_per_second: PacketRate::new(400),
            },
            latch: Some(ARMED),
            idle: Duration::from_secs(300),
            provider: ProviderId(3),
            call: CallNumber(0),
            label: Label(77),
        };
        let udptl = Pinhole {
            stream: Stream::Udptl,
            extras: Extras::default(),
            terms: Terms::ANY,
            latch: None,
            label: Label::NONE,
            ..rtp.clone()
        };
        for written in [rtp, udptl] {
            let place = Place {
                slot: 5,
                generation: 2,
                opened: 1,
                idle: 300_000_000_000,
                provider: 9,
            };
            let KernelPinhole::V4(key, value) = KernelPinhole::new(&written, place) else {
                panic!("an IPv4 pinhole");
            };
            assert_eq!(value.provider_name, 9);
            let local = SocketAddr::new(IpAddr::from(key.address()), key.port());
            let read = pinhole(local, &value, Ipv4::prefix_length);
            assert_eq!(read, written);
        }
    }
}
