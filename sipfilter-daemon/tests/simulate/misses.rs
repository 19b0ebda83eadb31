//! The nearest miss: what each dropped packet is told to have missed.

use crate::film::{
    Film, MEDIA, MILLISECOND, PARTIES, PBX, Parties, SIGNALLING, STRANGER, at, call, flow, run,
    settings,
};

/// `setup` makes a capture; the packets from `source` to `destination` missed for this reason, and the text holds these words.
#[track_caller]
fn check(make: impl FnOnce(&mut Film), source: &str, destination: &str, why: &str, words: &[&str]) {
    let mut film = Film::default();
    make(&mut film);
    let report = run(
        &film.pcap(),
        &settings(&[PBX, "203.0.113.11"], &[SIGNALLING]),
    )
    .unwrap();
    let flow = flow(&report, source, destination);
    let [nearest] = &flow.nearest[..] else {
        panic!("one explanation, not {:?}", flow.nearest);
    };
    assert_eq!(nearest.why, why, "{}", nearest.text);
    for word in words {
        assert!(
            nearest.text.contains(word),
            "{word:?} in {:?}",
            nearest.text
        );
    }
    assert_eq!(nearest.packets, flow.dropped.values().sum::<u64>());
}

#[test]
fn a_pinhole_for_somebody_else() {
    let source = at(STRANGER, 41_000);
    check(
        |film| {
            PARTIES.set_up(film);
            film.rtp(&source, &PARTIES.ours(), 3);
        },
        &source,
        &PARTIES.ours(),
        "wrong_source",
        &[
            "call 1",
            "expects 198.51.100.20 ports 1024-65535",
            "arrived from 192.0.2.66:41000",
        ],
    );
}

#[test]
fn a_pinhole_that_was_closed_names_the_call_and_the_time() {
    let mut film = Film::default();
    PARTIES.set_up(&mut film);
    film.talk(&PARTIES.theirs(), &PARTIES.ours(), 5);
    PARTIES.hang_up(&mut film);
    film.rtp(&PARTIES.theirs(), &PARTIES.ours(), 4);
    film.rtp(&at(STRANGER, 41_000), &PARTIES.ours(), 1);
    let report = run(&film.pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    let call = call(&report, PARTIES.call_id);
    let late = flow(&report, &PARTIES.theirs(), &PARTIES.ours());
    assert_eq!((late.passed, late.dropped["no_pinhole"]), (5, 4));
    let nearest = &late.nearest[0];
    assert_eq!(
        (nearest.why, nearest.packets, nearest.call),
        ("closed", 4, Some(call.number))
    );
    let until = format!(
        "a pinhole of call 1 existed until {:.3} s",
        call.ended_seconds.unwrap()
    );
    assert_eq!(nearest.text, until);
    assert_eq!(call.media.near_misses, 5);
    let stranger = flow(&report, &at(STRANGER, 41_000), &PARTIES.ours());
    assert!(
        stranger.nearest[0]
            .text
            .ends_with(", for 198.51.100.20 ports 1024-65535")
    );
}

#[test]
fn media_ahead_of_its_signalling() {
    check(
        |film| {
            PARTIES.invite(film);
            film.rtp(&PARTIES.theirs(), &PARTIES.ours(), 3);
            film.wait(200 * MILLISECOND);
            PARTIES.answer(film);
        },
        &PARTIES.theirs(),
        &PARTIES.ours(),
        "not_yet",
        &[
            "call 1 opened this port for it at",
            "0.220 s after the last",
        ],
    );
}

#[test]
fn a_port_beside_a_calls_own() {
    for (port, side) in [(9_999 + 3, "below"), (10_000 - 1, "above")] {
        // Outside the range nothing is dropped.
        let (ours, port) = if port < 10_000 {
            (10_002, 10_001)
        } else {
            (10_000, port)
        };
        let parties = Parties {
            pbx_media: (PBX, ours),
            ..PARTIES
        };
        let destination = at(PBX, port);
        check(
            |film| {
                parties.set_up(film);
                film.rtp(&parties.theirs(), &destination, 1);
            },
            &parties.theirs(),
            &destination,
            "next_port",
            &["call 1 named port", side],
        );
    }
}

#[test]
fn the_same_port_of_another_address() {
    let destination = at("203.0.113.11", 10_000);
    check(
        |film| {
            PARTIES.set_up(film);
            film.rtp(&at(STRANGER, 41_000), &destination, 1);
        },
        &at(STRANGER, 41_000),
        &destination,
        "other_address",
        &["call 1 named this port on 203.0.113.10"],
    );
}

#[test]
fn a_source_that_may_reach_another_port() {
    let (source, destination) = (at(MEDIA, 40_008), at(PBX, 15_000));
    check(
        |film| {
            PARTIES.set_up(film);
            film.rtp(&source, &destination, 2);
        },
        &source,
        &destination,
        "other_port",
        &["call 1 expects media from 198.51.100.20 on 203.0.113.10:10000"],
    );
}

#[test]
fn nothing_near() {
    let (source, destination) = (at(STRANGER, 41_000), at(PBX, 15_000));
    check(
        |film| film.rtp(&source, &destination, 2),
        &source,
        &destination,
        "unnamed",
        &["no call named this port"],
    );
}

#[test]
fn a_call_that_came_later_for_others_is_no_miss() {
    let source = at(STRANGER, 41_000);
    check(
        |film| {
            film.rtp(&source, &PARTIES.ours(), 1);
            PARTIES.set_up(film);
        },
        &source,
        &PARTIES.ours(),
        "unnamed",
        &["no call named this port"],
    );
}

#[test]
fn what_is_no_rtp() {
    check(
        |film| {
            PARTIES.set_up(film);
            film.udp(&PARTIES.theirs(), &PARTIES.ours(), b"no RTP");
        },
        &PARTIES.theirs(),
        &PARTIES.ours(),
        "not_media",
        &["call 1 expects RTP of version 2", "0x6e"],
    );
}

#[test]
fn sip_from_nowhere() {
    let (source, destination) = (at(STRANGER, 5060), at(PBX, 5060));
    check(
        |film| film.udp(&source, &destination, b"OPTIONS sip:x SIP/2.0\r\n\r\n"),
        &source,
        &destination,
        "not_a_provider",
        &["192.0.2.66 is in no provider's signalling prefixes"],
    );
}

#[test]
fn sip_over_a_transport_that_is_not_used() {
    use sipfilter_daemon::engine::settings::Transport;
    let mut film = Film::default();
    PARTIES.invite(&mut film);
    let mut settings = settings(&[PBX], &[SIGNALLING]);
    settings.providers[0].transports = vec![Transport::Tcp];
    let report = run(&film.pcap(), &settings).unwrap();
    let nearest = &flow(&report, &at(SIGNALLING, 5060), &at(PBX, 5060)).nearest[0];
    assert_eq!(nearest.why, "wrong_transport");
    assert!(
        nearest.text.contains("does not use UDP"),
        "{}",
        nearest.text
    );
}
