//! Every rule of fragments.

use etherparse::{IpFragOffset, IpNumber, defrag::IpDefragBuf};

use super::{
    super::{counts::Count::*, ip_frag::*},
    *,
};

/// The fragments of a UDP datagram, cut at these places.
fn fragments<'a>(base: Frag<'a>, datagram: &'a [u8], cuts: &[usize]) -> Vec<Frag<'a>> {
    let ends = cuts.iter().copied().chain([datagram.len()]);
    let begins = [0].into_iter().chain(cuts.iter().copied());
    begins
        .zip(ends)
        .map(|(begin, end)| Frag {
            offset: begin,
            more: end < datagram.len(),
            data: &datagram[begin..end],
            ..base
        })
        .collect()
}

#[test]
fn fragments_of_both_families_in_any_order_make_the_datagram() {
    let text = "x".repeat(300);
    let datagram = udp(text.as_bytes());
    for base in [FRAGMENT_V4, FRAGMENT_V6] {
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut world = World::new();
            let parts = fragments(base, &datagram, &[104, 208]);
            for index in order {
                world.expect(&[]);
                world.fragment(parts[index]);
            }
            let (flow, _) = world.messages[0];
            assert_eq!(flow.source.to_string(), format_address(base.source));
            assert_eq!(
                flow.destination.to_string(),
                format_address(base.destination)
            );
            world.expect(&[&text]);
            assert_eq!(world.reassembler.fragment_usage(), Usage::default());
            world.expect_counts(&[(DatagramReassembled, 1), (ConnectionOpened, 0)]);
        }
    }
}

fn format_address(address: &str) -> String {
    SocketAddr::new(address.parse().unwrap(), 5060).to_string()
}

#[test]
fn what_makes_datagrams_different_keeps_them_apart() {
    let datagram = udp(&[b'x'; 200]);
    let parts = fragments(FRAGMENT_V4, &datagram, &[104]);
    let others = [
        Frag { id: 8, ..parts[1] },
        Frag {
            source: "198.51.100.11",
            ..parts[1]
        },
        Frag {
            destination: "203.0.113.11",
            ..parts[1]
        },
        Frag {
            protocol: 6,
            ..parts[1]
        },
    ];
    let mut world = World::new();
    world.fragment(parts[0]);
    for other in others {
        world.fragment(other);
    }
    world.packet(Direction::Egress, &parts[1].bytes());
    world.expect(&[]);
    assert_eq!(world.reassembler.fragment_usage().entries, 6);
    world.fragment(parts[1]);
    assert_eq!(world.messages.len(), 1);
}

#[test]
fn ipv6_headers_behind_the_fragment_header_are_stepped_over() {
    // Destination options (RFC 8200 §4.6) of eight bytes, then UDP.
    let mut datagram = vec![17, 0, 1, 4, 0, 0, 0, 0];
    datagram.extend(udp(
        b"behind options padded to more than the smallest fragment",
    ));
    let base = Frag {
        protocol: 60,
        ..FRAGMENT_V6
    };
    let mut world = World::new();
    for part in fragments(base, &datagram, &[56]).into_iter().rev() {
        world.fragment(part);
    }
    world.expect(&["behind options padded to more than the smallest fragment"]);
}

#[test]
fn a_tcp_segment_in_fragments_is_a_segment() {
    let text = sip("fragmented", "");
    let whole = Tcp {
        data: text.as_bytes(),
        ..INBOUND
    }
    .bytes();
    let mut world = World::new();
    let base = Frag {
        protocol: 6,
        ..FRAGMENT_V4
    };
    for part in fragments(base, &whole[20..], &[64, 128]) {
        world.fragment(part);
    }
    world.expect(&[&text]);
}

/// What a list of fragments leads to.
#[track_caller]
fn check(parts: &[Frag<'_>], is_whole: bool, counts: &[(Count, u64)]) {
    let mut world = World::new();
    for part in parts {
        world.fragment(*part);
    }
    assert_eq!(world.messages.len(), usize::from(is_whole));
    world.expect_counts(counts);
}

#[test]
fn an_equal_copy_changes_nothing_and_any_other_overlap_drops_the_datagram() {
    let datagram = udp(&[b'x'; 200]);
    let other = vec![b'y'; 208];
    for base in [FRAGMENT_V4, FRAGMENT_V6] {
        let parts = fragments(base, &datagram, &[104]);
        let (first, last) = (parts[0], parts[1]);
        check(&[first, first, last], true, &[(FragmentDuplicate, 1)]);
        check(&[last, last, first], true, &[(FragmentDuplicate, 1)]);
        let overlaps = [
            // Other bytes, a longer and a shorter copy, and one that begins inside.
            Frag {
                data: &other[..104],
                ..first
            },
            Frag {
                data: &datagram[..112],
                ..first
            },
            Frag {
                data: &datagram[..96],
                ..first
            },
            Frag {
                offset: 8,
                data: &datagram[8..64],
                ..first
            },
            Frag {
                offset: 96,
                data: &datagram[96..152],
                ..first
            },
        ];
        for overlap in overlaps {
            check(
                &[first, overlap, last],
                false,
                &[(DatagramOverlap, 1), (FragmentOfDropped, 1)],
            );
            check(&[overlap, first, last], false, &[(DatagramOverlap, 1)]);
        }
        // An equal copy of the last one that says not to be the last.
        let unsure = Frag { more: true, ..last };
        check(&[last, unsure, first], false, &[(DatagramOverlap, 1)]);
        check(&[unsure, last, first], false, &[(DatagramOverlap, 1)]);
    }
}

#[test]
fn the_end_stands_where_it_was_first_said_to_stand() {
    let datagram = udp(&[b'x'; 392]);
    let parts = fragments(FRAGMENT_V4, &datagram, &[104, 208, 312]);
    let shorter = Frag {
        more: false,
        ..parts[1]
    };
    let beyond = Frag {
        offset: 400,
        data: &datagram[..8],
        ..parts[0]
    };
    for order in [
        vec![parts[3], shorter],
        vec![shorter, parts[3]],
        vec![parts[2], shorter],
        vec![parts[3], beyond],
    ] {
        check(&order, false, &[(DatagramEndConflict, 1)]);
    }
}

#[test]
fn tiny_fragments_are_refused_where_no_real_link_makes_them() {
    let datagram = udp(&[b'x'; 300]);
    let tiny = [(DatagramTiny, 1)];
    let fine = [(DatagramReassembled, 1)];
    for (base, cuts, is_whole) in [
        (FRAGMENT_V4, vec![48], true),
        (FRAGMENT_V4, vec![40], false),
        (FRAGMENT_V4, vec![8], false),
        // What a router makes of 1,480 bytes on the way into a smaller link: a large piece and a small one.
        (FRAGMENT_V4, vec![104, 112, 208, 216], true),
        (FRAGMENT_V4, vec![304], true),
        (FRAGMENT_V6, vec![48, 96], true),
        (FRAGMENT_V6, vec![104, 112], false),
        (FRAGMENT_V6, vec![40], false),
        (FRAGMENT_V6, vec![304], true),
    ] {
        let parts = fragments(base, &datagram, &cuts);
        check(&parts, is_whole, if is_whole { &fine } else { &tiny });
    }
}

#[test]
fn fragments_that_cannot_be_are_refused_alone() {
    let datagram = udp(&[b'x'; 200]);
    let parts = fragments(FRAGMENT_V4, &datagram, &[104]);
    let big = vec![0; 1_000];
    for wrong in [
        Frag {
            data: &[],
            offset: 48,
            ..parts[0]
        },
        Frag {
            data: &[],
            more: false,
            offset: 48,
            ..parts[0]
        },
        Frag {
            data: &datagram[..100],
            ..parts[0]
        },
        Frag {
            data: &big,
            offset: 65_528,
            ..parts[0]
        },
        Frag {
            data: &datagram[..8],
            offset: 65_528,
            more: false,
            ..parts[0]
        },
    ] {
        check(
            &[parts[0], wrong, parts[1]],
            true,
            &[(FragmentMalformed, 1)],
        );
    }
    let longest = vec![b'x'; 65_000];
    let longest = udp(&longest);
    let cuts: Vec<_> = (1..45)
        .map(|index| index * 1_480)
        .take_while(|&cut| cut < longest.len())
        .collect();
    check(
        &fragments(FRAGMENT_V4, &longest, &cuts),
        true,
        &[(FragmentMalformed, 0)],
    );
}

#[test]
fn a_datagram_comes_in_128_fragments_at_the_most() {
    for (count, is_whole) in [(MAX_PARTS, true), (MAX_PARTS + 1, false)] {
        let datagram = udp(&vec![b'x'; 40 + 8 * (count - 1)]);
        let cuts: Vec<_> = (0..count - 1).map(|index| 48 + 8 * index).collect();
        let parts = fragments(FRAGMENT_V4, &datagram, &cuts);
        assert_eq!(parts.len(), count);
        check(
            &parts,
            is_whole,
            &[(DatagramTooManyFragments, u64::from(!is_whole))],
        );
    }
}

#[test]
fn fragments_wait_half_a_minute() {
    let datagram = udp(&[b'x'; 200]);
    let parts = fragments(FRAGMENT_V4, &datagram, &[104]);
    for (wait, is_whole) in [(29_999, true), (30_000, false)] {
        let mut world = World::new();
        world.fragment(parts[0]);
        world.wait(Duration::from_millis(wait));
        world.fragment(parts[1]);
        assert_eq!(world.messages.len(), usize::from(is_whole));
        world.expect_counts(&[(DatagramTimeout, u64::from(!is_whole))]);
    }
    // A dropped datagram is remembered as long, and leaves without being counted again.
    let mut world = World::new();
    world.fragment(Frag {
        data: &datagram[..8],
        ..parts[0]
    });
    world.wait(Duration::from_secs(30));
    world.expect_counts(&[(DatagramTiny, 1), (DatagramTimeout, 0)]);
    assert_eq!(world.reassembler.fragment_usage(), Usage::default());
    assert_eq!(world.reassembler.poll_timeout(), None);
}

#[test]
fn one_fragment_takes_the_memory_of_one_fragment() {
    let far = Frag {
        offset: 65_000,
        data: &[b'x'; 8],
        ..FRAGMENT_V4
    };
    let mut world = World::new();
    world.fragment(far);
    assert_eq!(
        world.reassembler.fragment_usage().bytes,
        DATAGRAM_CHARGE + PART_CHARGE + 8
    );

    // The reason why the library's buffer is not used here.
    let mut buffer = IpDefragBuf::new(IpNumber::UDP, Vec::new(), Vec::new());
    buffer
        .add(IpFragOffset::try_new(65_000 / 8).unwrap(), true, &[b'x'; 8])
        .unwrap();
    assert!(buffer.data().capacity() > 65_000);
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let datagram = udp(b"atomic");
    let mut world = World::new();
    world.fragment(Frag {
        more: false,
        data: &datagram,
        ..FRAGMENT_V6
    });
    world.expect(&["atomic"]);
    world.expect_counts(&[(Count::Fragment, 0)]);
}

#[test]
fn broken_packets_are_counted() {
    let whole = ip(
        "198.51.100.10".parse().unwrap(),
        "203.0.113.10".parse().unwrap(),
        17,
        &udp(b"x"),
    );
    let mut wrong_length = whole.clone();
    wrong_length[24..26].copy_from_slice(&7_u16.to_be_bytes());
    let mut segment = INBOUND.bytes();
    segment[32] = 0x40;
    let mut world = World::new();
    for packet in [
        &[][..],
        &whole[..19],
        &whole[..27],
        &[0x20; 40],
        &wrong_length,
        &segment,
    ] {
        world.packet(Direction::Ingress, packet);
    }
    world.expect_counts(&[(PacketMalformed, 6), (PacketOther, 0)]);
    let mut icmp = whole;
    icmp[9] = 1;
    world.packet(Direction::Ingress, &icmp);
    world.expect_counts(&[(PacketMalformed, 6), (PacketOther, 1)]);
    world.expect(&[]);
}
