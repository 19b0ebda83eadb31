//! What holds for every input: the same messages however bytes are cut, repeated and shuffled; nothing written first is changed;
//! accounts that a recount confirms.

use std::collections::BTreeMap;

use etherparse::{IpFragOffset, IpNumber, defrag::IpDefragBuf};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::tcp_stream::{Arrival, HalfStream},
    *,
};

/// Messages with bodies that look like messages now and then.
fn texts() -> impl Strategy<Value = Vec<String>> {
    let body = "(line\r\n|SIP/2\\.0 200 OK\r\n|\r\n|INVITE sip:x SIP/2\\.0\r\n|[a-z:]{0,30}){0,12}";
    vec(("[a-z0-9]{1,12}", body), 1..6)
        .prop_map(|texts| texts.iter().map(|(call, body)| sip(call, body)).collect())
}

/// Pieces of `length` bytes that cover all of them: those between the cuts, in order of `keys`, and more that overlap them.
fn pieces(
    length: usize,
    cuts: &[Index],
    more: &[(Index, Index)],
    keys: &[u32],
) -> Vec<(usize, usize)> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
    ends.extend([0, length]);
    ends.sort_unstable();
    ends.dedup();
    let mut pieces: Vec<_> = ends.windows(2).map(|pair| (pair[0], pair[1])).collect();
    for (one, other) in more {
        let (one, other) = (one.index(length + 1), other.index(length + 1));
        pieces.push((one.min(other), one.max(other)));
    }
    let mut order: Vec<_> = pieces.into_iter().enumerate().collect();
    order.sort_by_key(|(index, _)| keys[index % keys.len()]);
    order
        .into_iter()
        .map(|(_, piece)| piece)
        .filter(|(from, to)| from < to)
        .collect()
}

/// The messages of a stream that begins with a handshake at this sequence number and comes in these pieces.
fn stream(first: u32, bytes: &[u8], pieces: &[(usize, usize)]) -> World {
    let mut world = World::new();
    world.segment(Tcp {
        flags: SYN,
        sequence: first.wrapping_sub(1),
        ..INBOUND
    });
    for &(from, to) in pieces {
        let sequence = first.wrapping_add(from as u32);
        world.segment(Tcp {
            sequence,
            data: &bytes[from..to],
            ..INBOUND
        });
    }
    world
}

fn messages(world: &World) -> Vec<String> {
    world
        .messages
        .iter()
        .map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned())
        .collect()
}

/// The rules of fragments, one after the other, over a list.
#[derive(Default)]
struct Naive {
    parts: Vec<(usize, Vec<u8>, bool)>,
    is_dropped: bool,
}

impl Naive {
    /// Whether the fragment makes the datagram whole.
    fn add(&mut self, offset: usize, data: &[u8], more: bool) -> bool {
        if self.is_dropped || self.parts.contains(&(offset, data.to_vec(), more)) {
            return false;
        }
        let end = offset + data.len();
        let overlaps = self
            .parts
            .iter()
            .any(|(at, held, _)| *at < end && offset < at + held.len());
        let is_behind = self.parts.iter().any(|(at, held, held_more)| {
            let held_end = at + held.len();
            (!held_more && end > held_end) || (!more && held_end > end)
        });
        let is_tiny = offset == 0 && data.len() < 48;
        if overlaps || is_behind || is_tiny {
            self.is_dropped = true;
            return false;
        }
        self.parts.push((offset, data.to_vec(), more));
        let held: usize = self.parts.iter().map(|(_, data, _)| data.len()).sum();
        let is_whole = self
            .parts
            .iter()
            .any(|(at, data, more)| !more && at + data.len() == held);
        if is_whole {
            self.parts.clear();
        }
        is_whole
    }
}

proptest! {
    #[test]
    fn messages_do_not_depend_on_segments(
        texts in texts(),
        between in "(\r\n){0,2}",
        first in prop_oneof![any::<u32>(), (0..2_000_u32).prop_map(u32::wrapping_neg)],
        cuts in vec(any::<Index>(), 0..20),
        more in vec(any::<(Index, Index)>(), 0..6),
        keys in vec(any::<u32>(), 1..30),
    ) {
        let bytes = texts.join(&between).into_bytes();
        let pieces = pieces(bytes.len(), &cuts, &more, &keys);
        let world = stream(first, &bytes, &pieces);
        prop_assert_eq!(messages(&world), texts);
        world.expect_counts(&[(Count::SegmentConflict, 0), (Count::StreamGap, 0), (Count::StreamBytesDiscarded, 0)]);
    }

    #[test]
    fn from_the_middle_only_messages_that_begin_there_are_read(
        texts in texts(),
        start in any::<Index>(),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let bytes = texts.concat().into_bytes();
        let start = start.index(bytes.len());
        let rest = &bytes[start..];
        let mut world = World::new();
        for (from, to) in pieces(rest.len(), &cuts, &[], &[0]) {
            world.segment(Tcp { sequence: from as u32, data: &rest[from..to], ..INBOUND });
        }
        let mut begin = 0;
        let mut expect = Vec::new();
        for text in texts {
            if begin >= start {
                expect.push(text.clone());
            }
            begin += text.len();
        }
        prop_assert_eq!(messages(&world), expect);
    }

    #[test]
    fn a_lost_segment_costs_no_more_than_the_messages_it_touches(
        texts in texts(),
        cuts in vec(any::<Index>(), 1..20),
        lost in any::<Index>(),
    ) {
        let bytes = texts.concat().into_bytes();
        let mut pieces = pieces(bytes.len(), &cuts, &[], &[0]);
        let (from, to) = pieces.remove(lost.index(pieces.len()));
        let mut world = stream(1, &bytes, &pieces);
        world.segment(Tcp { sequence: 1, acknowledgment: 1 + bytes.len() as u32, ..OUTBOUND });
        world.wait(Duration::from_secs(60));
        let mut begin = 0;
        let mut expect = Vec::new();
        for text in texts {
            let end = begin + text.len();
            if end <= from || begin >= to {
                expect.push(text);
            }
            begin = end;
        }
        prop_assert_eq!(messages(&world), expect);
    }

    #[test]
    fn the_first_write_of_each_byte_is_the_one_that_is_read(
        first in any::<u32>(),
        segments in vec((0..300_u32, vec(any::<u8>(), 1..60)), 1..40),
    ) {
        let mut model = BTreeMap::new();
        let mut read = Vec::new();
        let mut stream = HalfStream::default();
        stream.start(first);
        for (offset, bytes) in &segments {
            for (at, byte) in (*offset..).zip(bytes) {
                model.entry(at).or_insert(*byte);
            }
            if let Arrival::Fresh { ready, later } = stream.accept(first.wrapping_add(*offset), bytes) {
                read.extend_from_slice(ready);
                if let Some((position, later)) = later {
                    stream.hold(position, later, usize::MAX).unwrap();
                }
            }
            stream.check_invariants();
            while let Some(piece) = stream.take_ready() {
                read.extend_from_slice(&piece);
            }
            stream.check_invariants();
            let expect: Vec<u8> = (0..).map_while(|at| model.get(&at).copied()).collect();
            prop_assert_eq!(&read, &expect);
        }
    }

    #[test]
    fn datagrams_do_not_depend_on_fragments(
        payload in vec(any::<u8>(), 100..2_000),
        cuts in vec(any::<Index>(), 1..12),
        repeats in vec(any::<Index>(), 0..6),
        keys in vec(any::<u32>(), 1..20),
        is_ipv6 in any::<bool>(),
    ) {
        let datagram = udp(&payload);
        let base = if is_ipv6 { FRAGMENT_V6 } else { FRAGMENT_V4 };
        // Multiples of eight, far enough apart for either family.
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(datagram.len() / 48) * 48).filter(|&cut| cut > 0).collect();
        ends.extend([0, datagram.len()]);
        ends.sort_unstable();
        ends.dedup();
        prop_assume!(ends.len() > 2);
        let mut parts: Vec<_> = ends
            .windows(2)
            .map(|pair| Frag { offset: pair[0], more: pair[1] < datagram.len(), data: &datagram[pair[0]..pair[1]], ..base })
            .collect();
        let whole = parts.clone();
        for repeat in repeats {
            parts.push(whole[repeat.index(whole.len())]);
        }
        let mut order: Vec<_> = parts.into_iter().enumerate().collect();
        order.sort_by_key(|(index, _)| keys[index % keys.len()]);

        let mut world = World::new();
        let mut library = IpDefragBuf::new(IpNumber::UDP, Vec::new(), Vec::new());
        for (_, part) in order {
            let before = library.is_complete();
            library.add(IpFragOffset::try_new((part.offset / 8) as u16).unwrap(), part.more, part.data).unwrap();
            world.fragment(part);
            if !before {
                prop_assert_eq!(world.messages.len() == 1, library.is_complete());
            }
        }
        prop_assert_eq!(&world.messages[0].1, &payload);
        prop_assert_eq!(&library.take_bufs().0[8..], &payload);
    }

    #[test]
    fn fragments_that_fight_end_as_in_a_naive_model(
        parts in vec((prop_oneof![Just(0), 0..12_usize], prop_oneof![Just(56), Just(64), 1..16_usize], any::<bool>(), 0..2_u8), 1..12),
    ) {
        let mut world = World::new();
        let mut model = Naive::default();
        let mut expect = 0;
        for &(offset, length, more, fill) in &parts {
            let offset = offset * 8;
            let length = if more { length.div_ceil(8) * 8 } else { length };
            // The first byte of UDP's length would make some datagrams unreadable; ports and payload may fight.
            let mut bytes = udp(&[fill; 400]);
            bytes[4..6].copy_from_slice(&[0, 9]);
            let data = &bytes[offset..offset + length];
            if offset == 0 && !more {
                continue;
            }
            world.fragment(Frag { offset, more, data, ..FRAGMENT_V4 });
            expect += usize::from(model.add(offset, data, more));
            prop_assert_eq!(world.messages.len(), expect);
        }
    }

    #[test]
    fn arbitrary_packets_never_panic_and_never_break_the_accounts(
        packets in vec((any::<bool>(), 0..4_u8, vec(any::<u8>(), 0..120), any::<[u8; 4]>(), 0..2_000_u64), 1..60),
    ) {
        let mut world = World::new();
        for (outbound, kind, data, [a, b, flags, d], millis) in &packets {
            let direction = if *outbound { Direction::Egress } else { Direction::Ingress };
            let remote = if a % 2 == 0 { PROVIDER } else { "198.51.100.11:5060" };
            let packet = match kind {
                0 => data.clone(),
                1 => Frag { id: u32::from(a % 2), offset: usize::from(*b) * 8, more: d % 3 > 0, data, ..FRAGMENT_V4 }.bytes(),
                2 => Frag { id: u32::from(a % 2), offset: usize::from(*b) * 8, more: d % 3 > 0, data, ..FRAGMENT_V6 }.bytes(),
                _ => {
                    let jump = if d % 16 == 0 { u32::from(*b) << 24 } else { u32::from(*b) };
                    Tcp { direction, remote, flags: *flags, sequence: jump, acknowledgment: u32::from(*d), data, ..INBOUND }.bytes()
                }
            };
            world.packet(direction, &packet);
            world.wait(Duration::from_millis(*millis));
        }
        world.wait(Duration::from_secs(3_600));
        prop_assert_eq!(world.reassembler.fragment_usage(), Usage::default());
        prop_assert_eq!(world.reassembler.stream_usage(), Usage::default());
        prop_assert_eq!(world.reassembler.poll_timeout(), None);
    }
}
