//! Every cap, reached; accounts are recounted after each packet.

use super::{
    super::{counts::Count::*, ip_frag::*, ledger::Quota, stream_table::*},
    *,
};

/// A first fragment that nothing follows.
fn stray<'a>(source: &'a str, id: u32, data: &'a [u8]) -> Frag<'a> {
    Frag {
        source,
        id,
        data,
        ..FRAGMENT_V4
    }
}

fn fragment_quota(quota: Quota) -> World {
    World::with(Limits {
        fragments: FragmentLimits {
            quota,
            ..FragmentLimits::default()
        },
        ..Limits::default()
    })
}

const WIDE: Quota = Quota {
    entries_per_source: usize::MAX,
    bytes_per_source: usize::MAX,
    entries: usize::MAX,
    bytes: usize::MAX,
};

/// What one stray of 48 bytes is charged.
const STRAY: usize = DATAGRAM_CHARGE + PART_CHARGE + 48;

#[test]
fn fragments_stop_at_each_cap_and_the_oldest_goes() {
    let data = [0; 48];
    for (quota, count) in [
        (
            Quota {
                entries_per_source: 3,
                ..WIDE
            },
            DatagramShedSourceCount,
        ),
        (
            Quota {
                bytes_per_source: 3 * STRAY,
                ..WIDE
            },
            DatagramShedSourceBytes,
        ),
        (Quota { entries: 3, ..WIDE }, DatagramShedTotalCount),
        (
            Quota {
                bytes: 3 * STRAY,
                ..WIDE
            },
            DatagramShedTotalBytes,
        ),
    ] {
        let mut world = fragment_quota(quota);
        for id in 0..10 {
            world.fragment(stray("198.51.100.10", id, &data));
        }
        assert_eq!(
            world.reassembler.fragment_usage(),
            Usage {
                entries: 3,
                bytes: 3 * STRAY
            }
        );
        world.expect_counts(&[(count, 7)]);
        // The newest are there still.
        let rest = udp(&[b'x'; 80]);
        let first = Frag {
            data: &rest[..48],
            id: 9,
            ..FRAGMENT_V4
        };
        let last = Frag {
            offset: 48,
            more: false,
            data: &rest[48..],
            ..first
        };
        world.fragment(last);
        world.expect_counts(&[(DatagramReassembled, 1)]);
    }
}

#[test]
fn a_flood_of_first_fragments_does_not_keep_a_datagram_out() {
    let data = [0; 1_480];
    let flood = |id| Frag {
        id,
        data: &data,
        ..FRAGMENT_V6
    };
    let datagram = udp(&[b'x'; 200]);
    let first = Frag {
        id: u32::MAX,
        data: &datagram[..104],
        ..FRAGMENT_V6
    };
    let last = Frag {
        offset: 104,
        more: false,
        data: &datagram[104..],
        ..first
    };
    let mut world = World::new();
    for round in 0..10 {
        for id in 0..500 {
            world.fragment(flood(round * 1_000 + id));
        }
        world.fragment(first);
        for id in 500..600 {
            world.fragment(flood(round * 1_000 + id));
        }
        world.fragment(last);
    }
    assert_eq!(world.messages.len(), 10);
    world.expect_counts(&[(DatagramShedSourceCount, 10 * 600 - 255)]);
}

#[test]
fn who_holds_the_most_pays_for_a_full_table() {
    let mut world = fragment_quota(Quota {
        entries: 10,
        ..WIDE
    });
    world.fragment(stray("198.51.100.20", 1, &[0; 48]));
    for id in 0..20 {
        world.fragment(stray("198.51.100.10", id, &[0; 48]));
    }
    world.fragment(stray("198.51.100.30", 1, &[0; 48]));
    let datagram = [0; 200];
    for source in ["198.51.100.20", "198.51.100.30"] {
        world.fragment(Frag {
            source,
            id: 1,
            offset: 48,
            more: false,
            data: &datagram,
            ..FRAGMENT_V4
        });
    }
    world.expect_counts(&[(DatagramReassembled, 2), (DatagramShedTotalCount, 12)]);
}

#[test]
fn a_datagram_larger_than_its_cap_is_dropped_alone() {
    let mut world = fragment_quota(Quota {
        bytes_per_source: 2_000,
        ..WIDE
    });
    let data = [0; 1_000];
    for index in 0..3 {
        world.fragment(Frag {
            offset: 1_000 * index,
            data: &data,
            ..FRAGMENT_V4
        });
    }
    world.expect_counts(&[(DatagramShedSourceBytes, 1), (FragmentOfDropped, 1)]);
    let mut world = fragment_quota(Quota { bytes: 100, ..WIDE });
    world.fragment(stray("198.51.100.10", 1, &data));
    assert_eq!(world.reassembler.fragment_usage(), Usage::default());
}

fn stream_quota(quota: Quota) -> World {
    World::with(Limits {
        streams: StreamLimits {
            quota,
            ..StreamLimits::default()
        },
        ..Limits::default()
    })
}

/// A handshake that the provider finishes.
fn connect(world: &mut World, remote: &str) {
    world.segment(Tcp {
        remote,
        flags: SYN,
        sequence: 1_000,
        ..INBOUND
    });
    world.segment(Tcp {
        remote,
        flags: SYN | ACK,
        sequence: 5_000,
        acknowledgment: 1_001,
        ..OUTBOUND
    });
    world.segment(Tcp {
        remote,
        sequence: 1_001,
        acknowledgment: 5_001,
        ..INBOUND
    });
}

/// A handshake that nobody finishes.
fn knock(world: &mut World, remote: &str) {
    world.segment(Tcp {
        remote,
        flags: SYN,
        sequence: 1_000,
        ..INBOUND
    });
    world.segment(Tcp {
        remote,
        flags: SYN | ACK,
        sequence: 5_000,
        acknowledgment: 1_001,
        ..OUTBOUND
    });
}

fn says(world: &mut World, remote: &str, text: &str) {
    world.segment(Tcp {
        remote,
        sequence: 1_001,
        acknowledgment: 5_001,
        data: text.as_bytes(),
        ..INBOUND
    });
}

#[test]
fn connections_stop_at_each_cap_and_proven_ones_stay() {
    for (quota, count) in [
        (
            Quota {
                entries_per_source: 3,
                ..WIDE
            },
            ConnectionShedSource,
        ),
        (
            Quota {
                bytes_per_source: 3 * CONNECTION_CHARGE,
                ..WIDE
            },
            ConnectionShedSource,
        ),
        (Quota { entries: 3, ..WIDE }, ConnectionShedTotal),
        (
            Quota {
                bytes: 3 * CONNECTION_CHARGE,
                ..WIDE
            },
            ConnectionShedTotal,
        ),
    ] {
        let remotes: Vec<_> = (1..=5)
            .map(|port| format!("198.51.100.10:{port}"))
            .collect();
        let text = sip("proven", "");
        let mut world = stream_quota(quota);
        for remote in &remotes[..3] {
            connect(&mut world, remote);
        }
        knock(&mut world, &remotes[3]);
        world.expect_counts(&[(count, 2), (ConnectionEvicted, 0)]);
        for remote in &remotes[..4] {
            says(&mut world, remote, &text);
        }
        world.expect(&[&text, &text, &text]);
        world.segment(Tcp {
            remote: &remotes[0],
            flags: RST,
            ..OUTBOUND
        });
        connect(&mut world, &remotes[4]);
        says(&mut world, &remotes[4], &text);
        world.expect(&[&text]);
    }
}

#[test]
fn a_flood_of_forged_handshakes_does_not_keep_a_connection_out() {
    let text = sip("through", "");
    for quota in [
        Quota {
            entries_per_source: 50,
            ..WIDE
        },
        Quota {
            entries: 50,
            ..WIDE
        },
    ] {
        let mut world = stream_quota(quota);
        connect(&mut world, PROVIDER);
        for port in 10_000..10_200 {
            knock(&mut world, &format!("198.51.100.10:{port}"));
        }
        let late = "198.51.100.10:9999";
        world.segment(Tcp {
            remote: late,
            flags: SYN,
            sequence: 1_000,
            ..INBOUND
        });
        for port in 20_000..20_020 {
            knock(&mut world, &format!("198.51.100.10:{port}"));
        }
        connect(&mut world, late);
        says(&mut world, PROVIDER, &text);
        says(&mut world, late, &text);
        world.expect(&[&text, &text]);
        assert!(world.count(ConnectionEvicted) > 100);
        world.wait(StreamLimits::default().bare);
        assert_eq!(world.reassembler.stream_usage().entries, 2);
    }
}

#[test]
fn streams_hold_no_more_bytes_than_their_caps() {
    for quota in [
        Quota {
            bytes_per_source: 20_000,
            ..WIDE
        },
        Quota {
            bytes: 20_000,
            ..WIDE
        },
    ] {
        let mut world = stream_quota(quota);
        let remotes: Vec<_> = (1..=8)
            .map(|port| format!("198.51.100.10:{port}"))
            .collect();
        for remote in &remotes {
            connect(&mut world, remote);
        }
        let head = sip("big", "").replace("Length: 0", "Length: 60000") + &"x".repeat(3_000);
        for remote in &remotes {
            // One incomplete message, and then data behind a hole, in both directions.
            says(&mut world, remote, &head);
            for offset in [10_000, 14_000, 18_000] {
                world.segment(Tcp {
                    remote,
                    sequence: 1_001 + offset,
                    acknowledgment: 5_001,
                    data: head.as_bytes(),
                    ..INBOUND
                });
                world.segment(Tcp {
                    remote,
                    sequence: 5_001 + offset,
                    acknowledgment: 1_001,
                    data: head.as_bytes(),
                    ..OUTBOUND
                });
            }
        }
        assert!(world.count(StreamShed) > 10);
        assert!(world.reassembler.stream_usage().bytes > 17_000);
        // What was not kept is lost for its stream; the next message is read.
        for remote in &remotes {
            world.segment(Tcp {
                remote,
                flags: RST,
                ..OUTBOUND
            });
        }
        assert_eq!(world.reassembler.stream_usage(), Usage::default());
    }
}
