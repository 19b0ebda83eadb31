//! SIP over TCP, cut into segments, reordered, repeated and lost at will: what comes out are messages that were sent, in their order.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use sipfilter_daemon::engine::{
    Direction, Instant,
    reassemble::{Limits, Reassembler},
};

use crate::packet::part;

const MESSAGES: [&str; 4] = [
    "OPTIONS sip:1@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.10;branch=z9hG4bK-1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n\
     Call-ID: one\r\nCSeq: 1 OPTIONS\r\nContent-Length: 4\r\n\r\nbody",
    "SIP/2.0 200 OK\r\nv: SIP/2.0/TCP 192.0.2.10\r\nf: <sip:a@b>;tag=1\r\nt: <sip:c@d>;tag=2\r\ni: two\r\nCSeq: 2 BYE\r\nl: 0\r\n\r\n",
    "BYE sip:1@example.com SIP/2.0\r\nf: <sip:a@b>;tag=1\r\nt: <sip:c@d>;tag=2\r\ni: three\r\nCSeq: 3 BYE\r\nl: 0\r\n\r\n",
    "INFO sip:1@example.com SIP/2.0\r\nf: <sip:a@b>;tag=1\r\nt: <sip:c@d>\r\ni: four\r\nCSeq: 4 INFO\r\nl: 9\r\n\r\n\r\n\r\nSIP/2",
];

#[derive(Debug, Arbitrary)]
struct Case {
    sequence: u32,
    syn: bool,
    cuts: Vec<u8>,
    /// Which segment comes next; its flags; how long after the one before; what the other side acknowledges.
    order: Vec<(u8, u8, u8, u8)>,
}

/// Reads the bytes as a case and plays it.
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return;
    };
    let stream = MESSAGES.concat().into_bytes();
    let mut segments = Vec::new();
    let mut begin = 0;
    for cut in case.cuts.iter().take(64) {
        let end = (begin + usize::from(*cut) + 1).min(stream.len());
        segments.push((begin, end));
        begin = end;
        if end == stream.len() {
            break;
        }
    }
    if begin < stream.len() {
        segments.push((begin, stream.len()));
    }

    let mut reassembler = Reassembler::new(Limits::default());
    let mut now = Duration::from_secs(1);
    let mut sent = MESSAGES.iter();
    let mut has_restarted = false;
    let sequence = |offset: usize| case.sequence.wrapping_add(offset as u32);
    if case.syn {
        take(
            &mut reassembler,
            now,
            true,
            sequence(0).wrapping_sub(1),
            0,
            0x02,
            &[],
        );
        take(&mut reassembler, now, false, 7_000, sequence(0), 0x12, &[]);
    }
    for (index, flags, wait, acknowledged) in case.order.iter().take(256) {
        let (begin, end) = segments[usize::from(*index) % segments.len()];
        now += Duration::from_millis(u64::from(*wait) * 10);
        reassembler.handle_timeout(Instant(now));
        // Now and then the end of the stream, or a reset.
        let flags = match flags {
            0 => 0x14,
            1 => 0x11,
            _ => 0x18,
        };
        has_restarted |= flags == 0x14;
        let bytes = &stream[begin..end];
        take(
            &mut reassembler,
            now,
            true,
            sequence(begin),
            7_001,
            flags,
            bytes,
        );
        let (_, read) = segments[usize::from(*acknowledged) % segments.len()];
        take(
            &mut reassembler,
            now,
            false,
            7_001,
            sequence(read),
            0x10,
            &[],
        );
        while let Some(delivery) = reassembler.poll_delivery() {
            if delivery.bytes.iter().all(|byte| b"\r\n".contains(byte)) {
                continue;
            }
            let text = String::from_utf8_lossy(&delivery.bytes);
            let text = text.trim_start_matches(['\r', '\n']);
            // After a reset the same numbers may begin another connection.
            if has_restarted {
                assert!(MESSAGES.contains(&text), "{text:?} was never sent");
            } else {
                assert!(
                    sent.any(|message| *message == text),
                    "{text:?} was not sent, or not now"
                );
            }
        }
    }
    reassembler.handle_timeout(Instant(now + Duration::from_secs(1_000_000)));
    assert_eq!(reassembler.stream_usage().entries, 0);
    assert_eq!(reassembler.stream_usage().bytes, 0);
}

fn take(
    reassembler: &mut Reassembler,
    now: Duration,
    ingress: bool,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    bytes: &[u8],
) {
    let outside: (IpAddr, u16) = (Ipv4Addr::new(198, 51, 100, 5).into(), 40_000);
    let pbx: (IpAddr, u16) = (Ipv4Addr::new(192, 0, 2, 10).into(), 5060);
    let (direction, from, to) = if ingress {
        (Direction::Ingress, outside, pbx)
    } else {
        (Direction::Egress, pbx, outside)
    };
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgment.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(bytes);
    let packet = part(from.0, to.0, 6, 0, false, &segment);
    let taken = reassembler.handle_packet(Instant(now), direction, &packet, &mut |_| true);
    assert!(taken.is_ok());
}
