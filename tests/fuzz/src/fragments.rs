//! One datagram in IP fragments, cut, ordered and repeated at will, among packets of any bytes: what is put together is what was sent.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use sipfilter_daemon::engine::{
    Direction, Instant,
    reassemble::{Limits, Reassembler},
    settings::Transport,
};

use crate::packet::part;

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    v6: bool,
    /// Where the datagram is cut, in steps of eight bytes from the last cut.
    cuts: Vec<u8>,
    /// Which part comes next, and how long after the one before.
    order: Vec<(u8, u8)>,
    /// Packets of any bytes in between.
    noise: Vec<&'a [u8]>,
    payload: &'a [u8],
}

/// Reads the bytes as a case and plays it.
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return;
    };
    let (source, destination): (IpAddr, IpAddr) = if case.v6 {
        (
            Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into(),
        )
    } else {
        (
            Ipv4Addr::new(198, 51, 100, 5).into(),
            Ipv4Addr::new(192, 0, 2, 10).into(),
        )
    };
    let payload = &case.payload[..case.payload.len().min(4_000)];
    let length = payload.len() as u16 + 8;
    let mut datagram = Vec::new();
    for field in [5060, 5060, length, 0] {
        datagram.extend(u16::to_be_bytes(field));
    }
    datagram.extend_from_slice(payload);

    let mut parts = Vec::new();
    let mut begin = 0;
    for cut in case.cuts.iter().take(64) {
        let end = begin + 8 * (usize::from(*cut) + 1);
        if end >= datagram.len() {
            break;
        }
        parts.push((begin, end));
        begin = end;
    }
    parts.push((begin, datagram.len()));

    let mut reassembler = Reassembler::new(Limits::default());
    let mut now = Duration::from_secs(1);
    let mut noise = case.noise.iter();
    for (index, wait) in case.order.iter().take(256) {
        let (begin, end) = parts[usize::from(*index) % parts.len()];
        now += Duration::from_secs(u64::from(wait / 16));
        reassembler.handle_timeout(Instant(now));
        let more = end < datagram.len();
        let packet = part(source, destination, 17, begin, more, &datagram[begin..end]);
        let follows = &mut |_: &_| true;
        let taken = reassembler.handle_packet(Instant(now), Direction::Ingress, &packet, follows);
        if let Ok(Some(delivery)) = taken {
            assert_eq!(delivery.transport, Transport::Udp);
            assert_eq!(delivery.bytes.as_ref(), payload);
            assert_eq!(delivery.flow.source.ip(), source);
        }
        if let Some(bytes) = noise.next() {
            let direction = [Direction::Ingress, Direction::Egress][usize::from(wait % 2)];
            let _ = reassembler.handle_packet(Instant(now), direction, bytes, follows);
        }
        while reassembler.poll_delivery().is_some() {}
    }
    // Everything is given up in the end.
    reassembler.handle_timeout(Instant(now + Duration::from_secs(100_000)));
    assert_eq!(reassembler.fragment_usage().entries, 0);
    assert_eq!(reassembler.fragment_usage().bytes, 0);
}
