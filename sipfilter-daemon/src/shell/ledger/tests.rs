//! The ledger by its views.

use std::time::Duration;

use super::*;
use crate::{
    engine::{
        CallNumber,
        pinhole::{Extras, Label, Pinhole, Source, Stream, Terms},
        settings::ProviderId,
    },
    shell::sample::{Sample, tests::record},
};

const LOCAL: &str = "203.0.113.10:10000";

fn ledger() -> DropLedger {
    let protected = ["203.0.113.10", "203.0.113.11"].map(|text| text.parse().expect("an address"));
    DropLedger::new(
        protected.into(),
        vec!["vapi-us".to_owned(), "lab".to_owned()],
        SystemTime::UNIX_EPOCH,
    )
}

fn sample(reason: Reason, source: &str, destination: &str, payload: &str) -> Sample {
    let record = record(reason, (source, destination), payload.as_bytes(), 1_024);
    Sample::read(&record).expect("a sample")
}

fn pinhole(local: &str, source: &str, call: u64) -> Pinhole {
    Pinhole {
        local: local.parse().expect("a socket address"),
        sources: vec![Source::host(
            source.parse().expect("an address"),
            40_000..=60_000,
        )],
        stream: Stream::Rtp,
        extras: Extras::default(),
        terms: Terms::ANY,
        provider: ProviderId(0),
        call: CallNumber(call),
        idle: Duration::from_secs(300),
        label: Label(0),
        latch: None,
    }
}

fn open(ledger: &mut DropLedger, pinhole: Pinhole) {
    ledger.handle_pinhole(
        &PinholeAction::Open(pinhole),
        PinholeResult::Done,
        Instant(Duration::from_secs(1)),
    );
}

fn close(ledger: &mut DropLedger, local: &str, at: u64) {
    let action = PinholeAction::Close {
        local: local.parse().expect("a socket address"),
        call: CallNumber(1),
    };
    ledger.handle_pinhole(
        &action,
        PinholeResult::Done,
        Instant(Duration::from_secs(at)),
    );
}

fn add(ledger: &mut DropLedger, sample: &Sample, packets: f64) -> Option<view::Near> {
    ledger.handle_sample(sample, packets, SystemTime::UNIX_EPOCH)
}

#[test]
fn samples_stand_for_what_was_not_sampled_and_most_come_first() {
    let mut ledger = ledger();
    let few = sample(Reason::NoPinhole, "192.0.2.66:4000", LOCAL, "x");
    let many = sample(Reason::UnknownSource, "192.0.2.67:4000", LOCAL, "x");
    add(&mut ledger, &few, 1.0);
    for _ in 0..4 {
        add(&mut ledger, &many, 250.25);
    }
    ledger.handle_count(Reason::NoPinhole, 1, false);
    ledger.handle_count(Reason::UnknownSource, 1_001, true);
    let drops = ledger.excerpt(1).view();
    let reasons: Vec<_> = drops
        .reasons
        .iter()
        .map(|row| (&*row.reason, &*row.verdict, row.packets, row.samples))
        .collect();
    assert_eq!(
        reasons,
        [
            ("unknown_source", "would drop", 1_001, 4),
            ("no_pinhole", "drop", 1, 1)
        ]
    );
    let [row] = drops.sources.as_slice() else {
        panic!("{drops:?}");
    };
    assert_eq!(
        (row.source.to_string(), row.packets, row.samples),
        ("192.0.2.67/32".to_owned(), 1_001, 4)
    );
    assert_eq!(drops.more_sources, 1);
}

#[test]
fn a_packet_is_told_which_pinhole_it_missed() {
    let check = |reason, source: &str, destination: &str, expect: Option<(u64, &str, &str)>| {
        let mut ledger = ledger();
        open(&mut ledger, pinhole(LOCAL, "198.51.100.20", 1));
        open(
            &mut ledger,
            pinhole("203.0.113.10:12000", "198.51.100.21", 2),
        );
        close(&mut ledger, "203.0.113.10:12000", 2);
        let sample = sample(reason, source, destination, "x");
        let near = add(&mut ledger, &sample, 1.0);
        let near = near.map(|near| (near.call, near.how, near.pinhole.to_string()));
        let expect = expect.map(|(call, how, at)| (call, how.to_owned(), at.to_owned()));
        assert_eq!(near, expect, "{source} {destination}");
    };
    let stranger = "192.0.2.66:4000";
    let same = Some((1, "same_port", LOCAL));
    check(Reason::WrongSource, stranger, LOCAL, same);
    check(Reason::PayloadType, stranger, LOCAL, same);
    let miss = Reason::NoPinhole;
    let closed = Some((2, "closed", "203.0.113.10:12000"));
    check(miss, stranger, "203.0.113.10:12000", closed);
    let next = Some((1, "next_port", LOCAL));
    check(miss, stranger, "203.0.113.10:10001", next);
    check(miss, stranger, "203.0.113.10:9999", next);
    let other = Some((1, "other_address", LOCAL));
    check(miss, stranger, "203.0.113.11:10000", other);
    let moved = Some((1, "other_port", LOCAL));
    check(miss, "198.51.100.20:40000", "203.0.113.10:15000", moved);
    check(miss, stranger, "203.0.113.10:15000", None);
    check(Reason::UnknownSource, stranger, "203.0.113.10:5060", None);
}

#[test]
fn what_closed_long_ago_is_no_near_miss_and_takes_no_memory() {
    let mut ledger = ledger();
    for round in 0..3_u16 {
        for port in 0..4_000_u16 {
            let local = format!("203.0.113.10:{}", 20_000 + port);
            open(&mut ledger, pinhole(&local, "198.51.100.20", 1));
            close(&mut ledger, &local, 10 + u64::from(round));
        }
    }
    let [open_now, sources, closed, order] = ledger.pinholes.sizes();
    assert_eq!((open_now, sources, closed), (0, 0, 4_000));
    assert!(order <= 8_192, "{order}");
    // The sample's time is its seventh second; the last end lies a minute before the next one.
    let mut late = sample(Reason::NoPinhole, "192.0.2.66:1", "203.0.113.10:20000", "x");
    late.at = Instant(Duration::from_secs(72));
    assert!(add(&mut ledger, &late, 1.0).is_some());
    late.at = Instant(Duration::from_secs(73));
    assert!(add(&mut ledger, &late, 1.0).is_none());
}

#[test]
fn a_flood_of_sources_pushes_out_those_with_least_and_is_counted() {
    let mut ledger = ledger();
    let loud = sample(Reason::NoPinhole, "192.0.2.66:4000", LOCAL, "x");
    add(&mut ledger, &loud, 500.0);
    for number in 0..20_000_u32 {
        let [_, _, c, d] = number.to_be_bytes();
        let source = format!("198.18.{c}.{d}:1");
        let sample = sample(Reason::NoPinhole, &source, LOCAL, "x");
        add(&mut ledger, &sample, 1.0 + f64::from(number % 5));
    }
    assert!(ledger.sources.len() <= MAX_SOURCES);
    let drops = ledger.excerpt(10).view();
    assert_eq!(drops.sources[0].source.to_string(), "192.0.2.66/32");
    assert_eq!(drops.more_sources + 10, 20_001, "none is lost uncounted");
}

#[test]
fn whoever_claims_a_providers_domain_comes_first_and_is_not_pushed_out() {
    let mut ledger = ledger();
    let invite = |domain: &str| {
        format!(
            "INVITE sip:1@203.0.113.10 SIP/2.0\r\nFrom: <sip:1@{domain}>;tag=1\r\nUser-Agent: a\u{1b}[31m\r\n\r\n"
        )
    };
    let mut knock = |source: &str, payload: &str, packets| {
        let to = match source.starts_with('[') {
            true => "[2001:db8:113::a]:5060",
            false => "203.0.113.10:5060",
        };
        let sample = sample(Reason::UnknownSource, source, to, payload);
        add(&mut ledger, &sample, packets);
    };
    knock("192.0.2.66:5060", "\0\0\0", 1.0);
    knock("192.0.2.67:5060", &invite("sip.vapi.ai"), 1.0);
    knock("198.51.100.66:5060", &invite("us.pstn.twilio.com"), 5.0);
    knock("[2001:db8:66::1]:5060", &invite("gw.lab.example"), 3.0);
    for number in 0..3_000_u32 {
        let [_, _, c, d] = number.to_be_bytes();
        knock(
            &format!("10.{c}.{d}.1:5060"),
            &invite("nottwilio.com"),
            100.0,
        );
    }
    let (claiming, others) = ledger.knocking.sizes();
    assert!(claiming == 3 && others <= 1_536, "{claiming} {others}");
    let found = ledger.strangers(4);
    let rows: Vec<_> = found
        .strangers
        .iter()
        .map(|row| (row.network.to_string(), row.claims.as_deref(), row.is_trunk))
        .collect();
    assert_eq!(
        rows[..3],
        [
            ("2001:db8:66::/48".to_owned(), Some("lab"), true),
            ("192.0.2.0/24".to_owned(), Some("vapi-us"), true),
            ("198.51.100.0/24".to_owned(), Some("twilio"), false),
        ]
    );
    assert_eq!(rows[3].1, None);
    let both = &found.strangers[1];
    assert_eq!(both.samples, 2, "what came before the claim stays");
    let methods: Vec<_> = both
        .methods
        .iter()
        .map(|(name, count)| (&**name, *count))
        .collect();
    assert_eq!(methods, [("-", 1), ("INVITE", 1)]);
    assert_eq!(found.more_strangers, 3_003 - 4);
}

#[test]
fn what_nearly_belonged_to_a_call_is_its_own_packets_only_also_late_ones() {
    let mut ledger = ledger();
    open(&mut ledger, pinhole(LOCAL, "198.51.100.20", 1));
    open(
        &mut ledger,
        pinhole("203.0.113.10:12000", "198.51.100.21", 2),
    );
    let stranger = "192.0.2.66:4000";
    let to = |local: &str| sample(Reason::NoPinhole, stranger, local, "x");
    add(&mut ledger, &to("203.0.113.10:10001"), 3.0);
    add(&mut ledger, &to("203.0.113.10:15000"), 100.0);
    add(&mut ledger, &to("203.0.113.10:12001"), 5.0);
    close(&mut ledger, LOCAL, 5);
    add(&mut ledger, &to(LOCAL), 7.0);
    #[track_caller]
    fn check(ledger: &DropLedger, calls: &[u64], expect: &[(u64, &str, u64)]) {
        let drops = ledger.drops_near(&calls.iter().copied().collect(), 9);
        let rows: Vec<_> = drops
            .sources
            .iter()
            .filter_map(|row| row.near.as_ref().map(|near| (near, row.packets)))
            .map(|(near, packets)| (near.call, near.how.as_str(), packets))
            .collect();
        assert_eq!(rows, expect);
        assert_eq!(drops.left_out_samples, 0);
    }
    check(&ledger, &[1], &[(1, "closed", 7), (1, "next_port", 3)]);
    check(&ledger, &[2], &[(2, "next_port", 5)]);
    let both = [(1, "closed", 7), (2, "next_port", 5), (1, "next_port", 3)];
    check(&ledger, &[1, 2], &both);
    check(&ledger, &[3], &[]);
    let one = ledger.drops_near(&[1, 2].into(), 1);
    assert_eq!((one.sources.len(), one.more_sources), (1, 2));
    // All of it is one source of one reason.
    assert_eq!(ledger.excerpt(9).view().sources[0].packets, 115);
    let late: Vec<_> = ledger.hit_calls().collect();
    assert_eq!(late, [1, 2], "what came late is nobody's loss");
    assert_eq!(ledger.hits(1, |_| false)[0].packets, 3);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let mut ledger = ledger();
    let calls = hits::MAX_CALLS as u64 + 10;
    for call in 0..calls {
        open(&mut ledger, pinhole(LOCAL, "198.51.100.20", call));
        let hit = sample(Reason::WrongSource, "192.0.2.66:4000", LOCAL, "x");
        add(&mut ledger, &hit, 1.0);
        close(&mut ledger, LOCAL, 5);
        let late = sample(Reason::NoPinhole, "192.0.2.66:4000", LOCAL, "x");
        add(&mut ledger, &late, 1.0);
    }
    let left_out = |ledger: &DropLedger, call| {
        let drops = ledger.drops_near(&[call].into(), 99);
        (drops.sources.len(), drops.left_out_samples)
    };
    // During calls, those that were first are remembered; of what came late, the last.
    assert_eq!(left_out(&ledger, 0), (1, 10));
    assert_eq!(left_out(&ledger, calls - 1), (1, 10));
    assert_eq!(left_out(&ledger, calls / 2), (2, 0));
    open(&mut ledger, pinhole(LOCAL, "198.51.100.20", 50));
    for number in 0..20 {
        let source = format!("192.0.2.{number}:4000");
        let hit = sample(Reason::WrongSource, &source, LOCAL, "x");
        add(&mut ledger, &hit, 1.0);
    }
    // One of the eight is the first one, and one came late.
    assert_eq!(left_out(&ledger, 50), (9, 13));
}
