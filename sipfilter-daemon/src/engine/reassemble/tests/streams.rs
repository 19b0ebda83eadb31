//! Every rule of TCP connections.

use super::{
    super::{counts::Count::*, stream_table::StreamLimits, tcp_stream::*},
    *,
};

/// A connection that the provider dialled; both sides' next sequence numbers are 1,001 and 5,001.
fn dialled_in() -> World {
    let mut world = World::new();
    world.segment(Tcp {
        flags: SYN,
        sequence: 1_000,
        ..INBOUND
    });
    world.segment(Tcp {
        flags: SYN | ACK,
        sequence: 5_000,
        acknowledgment: 1_001,
        ..OUTBOUND
    });
    world.segment(Tcp {
        sequence: 1_001,
        acknowledgment: 5_001,
        ..INBOUND
    });
    world
}

/// Data from the provider at an offset of its stream.
fn provider(offset: u32, data: &[u8]) -> Tcp<'_> {
    Tcp {
        sequence: 1_001 + offset,
        acknowledgment: 5_001,
        data,
        ..INBOUND
    }
}

/// The PBX's word for how much of the provider's stream it has.
fn pbx_has(offset: u32) -> Tcp<'static> {
    Tcp {
        sequence: 5_001,
        acknowledgment: 1_001 + offset,
        ..OUTBOUND
    }
}

#[test]
fn both_roles_and_both_directions_carry_messages() {
    let (question, answer) = (sip("question", "body"), sip("answer", ""));
    let pbx_dials = [
        Tcp {
            flags: SYN,
            sequence: 5_000,
            ..OUTBOUND
        },
        Tcp {
            flags: SYN | ACK,
            sequence: 1_000,
            acknowledgment: 5_001,
            ..INBOUND
        },
        Tcp {
            sequence: 5_001,
            acknowledgment: 1_001,
            ..OUTBOUND
        },
    ];
    let mut dialled_out = World::new();
    for segment in pbx_dials {
        dialled_out.segment(segment);
    }
    for mut world in [dialled_in(), dialled_out] {
        world.segment(provider(0, question.as_bytes()));
        world.segment(Tcp {
            sequence: 5_001,
            acknowledgment: 1_001 + question.len() as u32,
            data: answer.as_bytes(),
            ..OUTBOUND
        });
        let flows: Vec<_> = world.messages.iter().map(|(flow, _)| *flow).collect();
        let (remote, local) = (PROVIDER.parse().unwrap(), PBX.parse().unwrap());
        assert_eq!(
            flows,
            [
                Flow {
                    direction: Direction::Ingress,
                    source: remote,
                    destination: local
                },
                Flow {
                    direction: Direction::Egress,
                    source: local,
                    destination: remote
                },
            ]
        );
        world.expect(&[&question, &answer]);
        world.expect_counts(&[
            (ConnectionOpened, 1),
            (ConnectionMidStream, 0),
            (StreamMessage, 2),
        ]);
    }
}

#[test]
fn a_segment_holds_many_messages_and_keep_alives() {
    let (one, two) = (sip("one", "x"), sip("two", ""));
    let mut world = dialled_in();
    let text = format!("\r\n\r\n{one}{two}\r\n{one}\r\n");
    world.segment(provider(0, text.as_bytes()));
    world.expect(&[&one, &two, &one]);
    world.segment(provider(text.len() as u32, b"\r\n\r\n"));
    world.expect_counts(&[
        (StreamKeepAlive, 2),
        (StreamBytesDiscarded, 0),
        (FramingLost, 0),
    ]);
}

#[test]
fn a_message_of_single_bytes_takes_up_no_more_than_itself() {
    let text = sip("bytes", "0123456789");
    let mut world = dialled_in();
    for (offset, byte) in text.as_bytes().iter().enumerate() {
        world.segment(provider(offset as u32, &[*byte]));
    }
    world.expect(&[&text]);
    assert_eq!(
        world.reassembler.stream_usage().bytes,
        super::super::stream_table::CONNECTION_CHARGE
    );
}

#[test]
fn a_segment_as_large_as_offloads_make_it_is_read() {
    let one = sip("large", &"x".repeat(1_000));
    let text = one.repeat(50);
    assert!(text.len() > 60_000);
    let mut world = dialled_in();
    world.segment(provider(0, text.as_bytes()));
    assert_eq!(world.messages.len(), 50);
}

#[test]
fn reordered_and_repeated_segments_change_nothing() {
    let text = sip("shuffled", "0123456789");
    let bytes = text.as_bytes();
    let third = bytes.len() / 3;
    let parts = [(0, third), (third, 2 * third), (2 * third, bytes.len())];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut world = dialled_in();
        for index in order.into_iter().chain(order) {
            let (from, to) = parts[index];
            world.segment(provider(from as u32, &bytes[from..to]));
        }
        world.expect(&[&text]);
        world.expect_counts(&[(SegmentDuplicate, 3), (SegmentConflict, 0)]);
    }
}

#[test]
fn sequence_numbers_wrap() {
    let text = sip("wrap", "0123456789").repeat(3);
    for early in [0, 1, 100, 400] {
        let first = 0_u32.wrapping_sub(early);
        let mut world = World::new();
        world.segment(Tcp {
            flags: SYN,
            sequence: first.wrapping_sub(1),
            ..INBOUND
        });
        for (index, chunk) in text.as_bytes().chunks(97).enumerate() {
            let sequence = first.wrapping_add(97 * index as u32);
            world.segment(Tcp {
                sequence,
                data: chunk,
                ..INBOUND
            });
        }
        assert_eq!(world.messages.len(), 3, "{early}");
    }
}

#[test]
fn what_was_written_first_stands() {
    let text = sip("first", "right");
    let forged = text.replace("right", "WRONG");
    let tail = text.len() - 20;
    let mut world = dialled_in();
    world.segment(provider(tail as u32, &text.as_bytes()[tail..]));
    world.segment(provider(tail as u32 - 1, &forged.as_bytes()[tail - 1..]));
    world.segment(provider(0, forged.as_bytes()));
    world.expect(&[&text]);
    world.expect_counts(&[(SegmentConflict, 2)]);
}

#[test]
fn a_hole_is_skipped_when_its_time_is_over() {
    let (one, two, three) = (sip("one", ""), sip("two", ""), sip("three", ""));
    let lost = (one.len() + two.len()) as u32;
    let mut world = dialled_in();
    world.segment(provider(0, one.as_bytes()));
    world.segment(provider(lost, three.as_bytes()));
    world.wait(GAP_LIMIT - Duration::from_millis(1));
    world.expect(&[&one]);
    world.wait(Duration::from_millis(1));
    world.expect(&[&three]);
    world.expect_counts(&[(StreamGap, 1), (FramingFound, 1)]);
    // Too late now.
    world.segment(provider(one.len() as u32, two.as_bytes()));
    world.expect(&[]);
}

#[test]
fn a_hole_that_the_receiver_does_not_see_is_skipped_at_once() {
    let (one, two, three) = (sip("one", ""), sip("two", ""), sip("three", ""));
    let lost = (one.len() + two.len()) as u32;
    for acknowledged in [lost, lost + three.len() as u32] {
        let mut world = dialled_in();
        world.segment(provider(0, one.as_bytes()));
        world.segment(provider(lost, three.as_bytes()));
        world.segment(pbx_has(acknowledged));
        world.wait(ACK_GRACE - Duration::from_millis(1));
        world.expect(&[&one]);
        world.wait(Duration::from_millis(1));
        world.expect(&[&three]);
    }
    // With nothing behind it, so that only the acknowledgment tells of it.
    let mut world = dialled_in();
    world.segment(pbx_has(lost));
    world.wait(ACK_GRACE);
    world.segment(provider(lost, three.as_bytes()));
    world.expect(&[&three]);
}

#[test]
fn a_hole_within_a_message_costs_that_message() {
    let (one, two, three) = (
        sip("one", "x"),
        sip("two", &"line\r\n".repeat(300)),
        sip("three", ""),
    );
    let text = format!("{one}{two}{three}");
    let (from, to) = (one.len() + 50, one.len() + 1_000);
    let mut world = dialled_in();
    world.segment(provider(0, &text.as_bytes()[..from]));
    world.segment(provider(to as u32, &text.as_bytes()[to..]));
    world.wait(GAP_LIMIT);
    world.expect(&[&one, &three]);
    let discarded = two.len() - (to - from);
    world.expect_counts(&[
        (FramingLost, 1),
        (FramingFound, 1),
        (StreamBytesDiscarded, discarded as u64),
    ]);
}

#[test]
fn more_than_a_quarter_of_a_mebibyte_waits_for_no_hole() {
    let one = sip("full", &"x".repeat(60_000));
    let mut world = dialled_in();
    for index in 0..6 {
        let offset = 1_000 + index * one.len();
        world.segment(provider(offset as u32, one.as_bytes()));
    }
    // The window ends there, whoever sends.
    world.expect_counts(&[(SegmentBeyondWindow, 2), (StreamGap, 0)]);
    let mut world = dialled_in();
    for index in 0..5_000 {
        world.segment(provider(1_000 + 2 * index, b"x"));
    }
    world.expect_counts(&[(
        StreamGapFull,
        5_000 - (MAX_HELD / (PIECE_CHARGE + 1)) as u64,
    )]);
}

#[test]
fn the_word_of_the_pbx_moves_the_stream_and_a_strangers_does_not() {
    let text = sip("far", "");
    let far = 3 * WINDOW as u32;
    // From outside: refused, until the PBX acknowledges it.
    let mut world = dialled_in();
    world.segment(provider(far, text.as_bytes()));
    world.wait(GAP_LIMIT + GAP_LIMIT);
    world.segment(provider(far, text.as_bytes()));
    world.expect(&[]);
    world.expect_counts(&[(SegmentBeyondWindow, 2)]);
    world.segment(pbx_has(far));
    world.segment(provider(far, text.as_bytes()));
    world.expect(&[&text]);
    // The PBX's own bytes: taken at once.
    world.segment(Tcp {
        sequence: 5_001 + far,
        acknowledgment: 1_001,
        data: text.as_bytes(),
        ..OUTBOUND
    });
    world.expect(&[&text]);
    // A provider acknowledges what was never sent: passed over.
    let mut world = dialled_in();
    world.segment(Tcp {
        sequence: 1_001,
        acknowledgment: 5_001 + 500,
        ..INBOUND
    });
    world.wait(ACK_GRACE);
    world.segment(Tcp {
        sequence: 5_001,
        acknowledgment: 1_001,
        data: text.as_bytes(),
        ..OUTBOUND
    });
    world.expect(&[&text]);
}

#[test]
fn without_the_pbx_in_sight_only_time_moves_the_stream() {
    let text = sip("alone", "");
    let mut world = World::new();
    world.segment(Tcp {
        sequence: 1,
        data: text.as_bytes(),
        ..INBOUND
    });
    let far = Tcp {
        sequence: 1 << 20,
        data: text.as_bytes(),
        ..INBOUND
    };
    world.segment(far);
    world.wait(GAP_LIMIT - Duration::from_millis(1));
    world.segment(far);
    world.expect(&[&text]);
    world.wait(Duration::from_millis(1));
    world.segment(far);
    world.expect(&[&text]);
}

#[test]
fn a_stream_led_astray_by_a_forged_start_comes_back() {
    let (one, two) = (sip("one", ""), sip("two", ""));
    let mut world = World::new();
    let real = Tcp {
        sequence: 1_001,
        acknowledgment: 5_001,
        ..INBOUND
    };
    // The daemon starts in the middle of a connection, and the first thing it sees is forged, from far ahead.
    world.segment(Tcp {
        sequence: 1_001 + (1 << 24),
        data: b"forged",
        ..real
    });
    world.segment(Tcp {
        data: one.as_bytes(),
        ..real
    });
    world.expect(&[]);
    world.segment(pbx_has(one.len() as u32));
    world.segment(Tcp {
        sequence: 1_001 + one.len() as u32,
        data: two.as_bytes(),
        ..real
    });
    world.expect(&[&two]);
}

#[test]
fn resets_end_connections_where_they_can_be_believed() {
    let text = sip("reset", "0123456789");
    let half = &text.as_bytes()[..100];
    for (reset, is_over) in [
        (
            Tcp {
                flags: RST,
                sequence: 1_101,
                ..INBOUND
            },
            true,
        ),
        (
            Tcp {
                flags: RST,
                sequence: 1_001,
                ..INBOUND
            },
            false,
        ),
        (
            Tcp {
                flags: RST,
                sequence: 1_102,
                ..INBOUND
            },
            false,
        ),
        (
            Tcp {
                flags: RST,
                sequence: 0,
                ..OUTBOUND
            },
            true,
        ),
    ] {
        let mut world = dialled_in();
        world.segment(provider(0, half));
        world.segment(reset);
        assert_eq!(
            world.reassembler.stream_usage().entries,
            usize::from(!is_over),
            "{reset:?}"
        );
        world.expect_counts(&[
            (Reset, u64::from(is_over)),
            (ResetIgnored, u64::from(!is_over)),
        ]);
        world.segment(provider(100, &text.as_bytes()[100..]));
        world.expect(
            if is_over {
                &[]
            } else {
                std::slice::from_ref(&text)
            }
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .as_slice(),
        );
    }
    // The answer to a SYN that nobody wants.
    let mut world = World::new();
    world.segment(Tcp {
        flags: SYN,
        sequence: 5_000,
        ..OUTBOUND
    });
    world.segment(Tcp {
        flags: RST | ACK,
        sequence: 0,
        acknowledgment: 5_001,
        ..INBOUND
    });
    assert_eq!(world.reassembler.stream_usage(), Usage::default());
}

#[test]
fn nothing_is_remembered_of_packets_that_carry_nothing() {
    let mut world = World::new();
    for flags in [ACK, FIN | ACK, RST, RST | ACK] {
        world.segment(Tcp { flags, ..INBOUND });
        world.segment(Tcp { flags, ..OUTBOUND });
    }
    assert_eq!(world.reassembler.stream_usage(), Usage::default());
}

#[test]
fn fin_ends_a_stream_behind_its_last_byte() {
    let text = sip("fin", "");
    let length = text.len() as u32;
    let mut world = dialled_in();
    // FIN overtakes the data.
    world.segment(Tcp {
        flags: FIN | ACK,
        sequence: 1_001 + length,
        acknowledgment: 5_001,
        ..INBOUND
    });
    world.segment(provider(0, text.as_bytes()));
    world.expect(&[&text]);
    world.segment(provider(length, b"x"));
    world.expect_counts(&[(SegmentBehindEnd, 1), (ConnectionClosed, 0)]);
    world.segment(Tcp {
        flags: FIN | ACK,
        sequence: 5_001,
        acknowledgment: 1_002 + length,
        ..OUTBOUND
    });
    world.expect_counts(&[(ConnectionClosed, 1), (StreamGap, 0)]);
    // Retransmissions after the end are nothing new; the same ports may be used again.
    world.segment(provider(0, text.as_bytes()));
    world.expect(&[]);
    world.segment(Tcp {
        flags: SYN,
        sequence: 70_000,
        ..INBOUND
    });
    world.segment(Tcp {
        sequence: 70_001,
        data: text.as_bytes(),
        ..INBOUND
    });
    world.expect(&[&text]);
    world.wait(Duration::from_secs(900));
    assert_eq!(world.reassembler.stream_usage(), Usage::default());
}

#[test]
fn a_closed_connection_is_forgotten_soon() {
    let mut world = dialled_in();
    world.segment(Tcp {
        flags: FIN | ACK,
        sequence: 1_001,
        acknowledgment: 5_001,
        ..INBOUND
    });
    world.segment(Tcp {
        flags: FIN | ACK,
        sequence: 5_001,
        acknowledgment: 1_002,
        ..OUTBOUND
    });
    world.wait(StreamLimits::default().bare);
    assert_eq!(world.reassembler.stream_usage(), Usage::default());
}

#[test]
fn a_new_connection_on_the_same_ports_needs_the_pbx_to_agree() {
    let text = sip("again", "");
    let split = text.len() / 2;
    let (head, tail) = text.as_bytes().split_at(split);
    let renewed = Tcp {
        flags: SYN,
        sequence: 90_000,
        ..INBOUND
    };
    // A forged SYN changes nothing.
    let mut world = dialled_in();
    world.segment(provider(0, head));
    world.segment(renewed);
    world.segment(provider(split as u32, tail));
    world.expect(&[&text]);
    // The PBX's answer does.
    world.segment(Tcp {
        flags: SYN | ACK,
        sequence: 8_000,
        acknowledgment: 90_001,
        ..OUTBOUND
    });
    world.segment(Tcp {
        sequence: 90_001,
        acknowledgment: 8_001,
        data: text.as_bytes(),
        ..INBOUND
    });
    world.expect(&[&text]);
    // So does its own SYN; a forged answer to it starts nothing.
    world.segment(Tcp {
        flags: SYN,
        sequence: 20_000,
        ..OUTBOUND
    });
    world.segment(Tcp {
        flags: SYN | ACK,
        sequence: 40_000,
        acknowledgment: 1,
        ..INBOUND
    });
    world.segment(Tcp {
        flags: SYN | ACK,
        sequence: 30_000,
        acknowledgment: 20_001,
        ..INBOUND
    });
    world.segment(Tcp {
        sequence: 30_001,
        acknowledgment: 20_001,
        data: text.as_bytes(),
        ..INBOUND
    });
    world.segment(Tcp {
        sequence: 20_001,
        acknowledgment: 30_001,
        data: text.as_bytes(),
        ..OUTBOUND
    });
    world.expect(&[&text, &text]);
    // A repeated SYN and SYN+ACK restart nothing.
    world.segment(Tcp {
        sequence: 20_001 + text.len() as u32,
        data: head,
        ..OUTBOUND
    });
    world.segment(Tcp {
        flags: SYN,
        sequence: 20_000,
        ..OUTBOUND
    });
    world.segment(Tcp {
        sequence: 20_001 + (text.len() + split) as u32,
        data: tail,
        ..OUTBOUND
    });
    world.expect(&[&text]);
}

#[test]
fn data_on_a_syn_is_read() {
    let text = sip("fast open", "");
    let mut world = World::new();
    world.segment(Tcp {
        flags: SYN,
        sequence: 9,
        data: text.as_bytes(),
        ..INBOUND
    });
    world.expect(&[&text]);
}

#[test]
fn idle_connections_are_forgotten_and_followed_again_from_the_middle() {
    let text = sip("idle", "");
    let mut world = dialled_in();
    world.segment(provider(0, text.as_bytes()));
    world.wait(Duration::from_secs(899));
    world.segment(pbx_has(text.len() as u32));
    world.wait(Duration::from_secs(899));
    assert_eq!(world.reassembler.stream_usage().entries, 1);
    world.wait(Duration::from_secs(1));
    world.expect_counts(&[(ConnectionIdle, 1)]);
    assert_eq!(world.reassembler.stream_usage(), Usage::default());
    assert_eq!(world.reassembler.poll_timeout(), None);
    world.segment(provider(text.len() as u32, text.as_bytes()));
    world.expect(&[&text, &text]);
    world.expect_counts(&[(ConnectionMidStream, 1)]);
}

#[test]
fn a_keep_alive_probe_of_the_system_is_no_data() {
    let text = sip("probe", "");
    let mut world = dialled_in();
    world.segment(provider(0, text.as_bytes()));
    world.segment(provider(text.len() as u32 - 1, b"\0"));
    world.segment(provider(text.len() as u32, text.as_bytes()));
    world.expect(&[&text, &text]);
}

#[test]
fn what_is_not_to_be_followed_leaves_no_trace() {
    let mut reassembler = Reassembler::new(Limits::default());
    let text = sip("tls", "");
    let packet = Tcp {
        data: text.as_bytes(),
        ..INBOUND
    }
    .bytes();
    let taken =
        reassembler.handle_packet(Instant::default(), Direction::Ingress, &packet, &mut |_| {
            false
        });
    assert_eq!(taken, Ok(None));
    assert_eq!(reassembler.poll_delivery(), None);
    assert_eq!(reassembler.stream_usage(), Usage::default());
    assert_eq!(reassembler.counts().of(SegmentNotFollowed), 1);
}
