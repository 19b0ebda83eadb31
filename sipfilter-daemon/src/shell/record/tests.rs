//! Caps, what is left out, what a text finds, and links.

use std::{
    ops::RangeInclusive,
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::{
    engine::{Form, MessageSummary, Refusal, Verb, pinhole::Pinhole, pinhole::Stream},
    shell::ledger::Stray,
};

fn at(seconds: u64) -> Instant {
    Instant(Duration::from_secs(seconds))
}

fn start(records: &mut Records, number: u64, call_id: &str) {
    let event = Event::CallStarted {
        call: CallNumber(number),
        call_id: call_id.to_owned(),
        provider: ProviderId(0),
        direction: Direction::Ingress,
    };
    records.handle_event(&event, at(number), UNIX_EPOCH);
}

fn happen(records: &mut Records, event: &Event, seconds: u64) {
    records.handle_event(event, at(seconds), UNIX_EPOCH);
}

fn end(records: &mut Records, number: u64, is_answered: bool) {
    let call = CallNumber(number);
    if is_answered {
        happen(records, &Event::CallConfirmed { call }, number);
    }
    let reason = EndReason::Bye(Direction::Ingress);
    happen(records, &Event::CallEnded { call, reason }, number + 1);
}

fn message(number: u64) -> Event {
    Event::Message {
        call: CallNumber(number),
        message: MessageSummary {
            sender: Direction::Ingress,
            form: Form::Response(302),
            verb: Verb::Invite,
            has_sdp: false,
            session_expires: None,
        },
    }
}

fn relate(records: &mut Records, number: u64, relation: Relation, value: &str) {
    let event = Event::Related {
        call: CallNumber(number),
        relation,
        value: value.to_owned(),
    };
    happen(records, &event, number);
}

/// Nothing is open, nobody came.
struct Nobody;

impl Witness for Nobody {
    fn traffic(&self, _: &SocketAddr) -> Option<Traffic> {
        None
    }

    fn strays(&self, _: SocketAddr, _: &RangeInclusive<Instant>) -> Vec<Stray> {
        Vec::new()
    }
}

fn view(records: &Records, text: &str) -> view::CallRecord {
    let record = records.find(text).expect("the call is known");
    record.view("p", "ended", &Nobody, at(1_000_000))
}

#[test]
fn a_long_timeline_keeps_its_beginning_and_its_end_and_counts_the_rest() {
    let mut records = Records::default();
    start(&mut records, 1, "a");
    for second in 1..=100 {
        happen(&mut records, &message(1), second);
    }
    let timeline = view(&records, "1").timeline;
    let times: Vec<f64> = timeline.iter().map(|moment| moment.at_seconds).collect();
    assert_eq!(timeline.len(), entry::LINES + 1);
    assert_eq!(
        times[..entry::FIRST],
        (0..16).map(f64::from).collect::<Vec<_>>()
    );
    assert_eq!(times.last(), Some(&99.0));
    assert_eq!(
        timeline[entry::FIRST].what,
        view::Happening::Elided { lines: 36 }
    );
    assert_eq!(records.lines, entry::LINES);
}

#[test]
fn where_lines_are_very_many_in_all_each_call_has_few() {
    let mut records = Records {
        lines: MANY_LINES,
        ..Records::default()
    };
    start(&mut records, 1, "a");
    for second in 1..=100 {
        happen(&mut records, &message(1), second);
    }
    assert_eq!(records.lines, MANY_LINES + entry::LINES_WHEN_TIGHT);
}

#[test]
fn ended_calls_are_forgotten_oldest_first_and_unanswered_ones_push_out_no_answered_one() {
    let mut records = Records::default();
    start(&mut records, 1, "answered");
    end(&mut records, 1, true);
    let unanswered = ENDED_UNANSWERED as u64;
    for number in 2..=unanswered + 2 {
        start(&mut records, number, &format!("forged-{number}"));
        end(&mut records, number, false);
    }
    assert!(records.find("answered").is_ok());
    assert!(records.find("forged-2").is_err());
    assert!(records.find("3").is_ok());
    assert_eq!(records.calls.len(), ENDED_UNANSWERED + 1);
    for number in 1_000..1_000 + ENDED_ANSWERED as u64 {
        start(&mut records, number, &format!("good-{number}"));
        end(&mut records, number, true);
    }
    assert!(records.find("answered").is_err());
    assert_eq!(records.calls.len(), ENDED_UNANSWERED + ENDED_ANSWERED);
    let lines: usize = records.calls.values().map(|call| call.timeline.len()).sum();
    assert_eq!(records.lines, lines);
}

#[test]
fn a_call_is_found_by_number_by_call_id_and_by_a_beginning_that_is_its_alone() {
    let mut records = Records::default();
    for (number, call_id) in [
        (1, "abc"),
        (2, "abcd@x"),
        (3, "2@x"),
        (4, "twice"),
        (5, "twice"),
    ] {
        start(&mut records, number, call_id);
    }
    let found = |text: &str| records.find(text).map(|record| record.number.0).ok();
    let table = [
        ("1", Some(1)),
        ("2", Some(2)),
        ("2@", Some(3)),
        ("abc", Some(1)),
        ("abcd", Some(2)),
        ("ab", None),
        ("twice", None),
        ("5", Some(5)),
        ("6", None),
        ("", None),
    ];
    for (text, number) in table {
        assert_eq!(found(text), number, "{text:?}");
    }
    assert!(matches!(
        records.find("twice"),
        Err(LookupError::Ambiguous { count: 2, .. })
    ));
    assert!(matches!(records.find("z"), Err(LookupError::Unknown(_))));
}

#[test]
fn a_pinhole_that_is_only_renewed_makes_no_line() {
    let mut records = Records::default();
    start(&mut records, 1, "a");
    let pinhole = Pinhole {
        local: "192.0.2.10:10000".parse().expect("an address"),
        sources: vec![Source::host([198, 51, 100, 5].into(), 1..=2)],
        stream: Stream::Rtp,
        extras: Default::default(),
        terms: crate::engine::pinhole::Terms::ANY,
        latch: None,
        idle: Duration::from_secs(300),
        provider: ProviderId(0),
        call: CallNumber(1),
        label: crate::engine::pinhole::Label::NONE,
    };
    let mut moved = pinhole.clone();
    moved
        .sources
        .push(Source::host([198, 51, 100, 6].into(), 1..=2));
    let mut slower = moved.clone();
    slower.terms.packets_per_second = crate::engine::pinhole::PacketRate::new(77);
    let (local, call) = (pinhole.local, pinhole.call);
    let done = PinholeResult::Done;
    for (action, result) in [
        (PinholeAction::Open(pinhole.clone()), PinholeResult::Full),
        (PinholeAction::Open(pinhole.clone()), done),
        (PinholeAction::Update(pinhole.clone()), done),
        (PinholeAction::Update(moved), done),
        (PinholeAction::Update(slower.clone()), done),
        (PinholeAction::Update(slower), done),
        (PinholeAction::Close { local, call }, done),
        (PinholeAction::Open(pinhole), done),
    ] {
        records.handle_pinhole(&action, result, None, at(2));
    }
    let lines: Vec<(String, Option<String>, usize)> = view(&records, "1")
        .timeline
        .into_iter()
        .map(|moment| match moment.what {
            view::Happening::Pinhole {
                change,
                error,
                sources,
                ..
            } => (change, error, sources.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    let line = |change: &str, error: Option<&str>, sources| {
        (change.to_owned(), error.map(str::to_owned), sources)
    };
    assert_eq!(
        lines,
        [
            line("opened", Some("full"), 1),
            line("opened", None, 1),
            line("updated", None, 2),
            line("updated", None, 2),
            line("closed", None, 0),
            line("opened", None, 1),
        ]
    );
}

#[test]
fn transfers_link_both_calls_once_however_often_they_are_said() {
    let mut records = Records::default();
    start(&mut records, 1, "first");
    start(&mut records, 2, "second");
    for _ in 0..2 {
        relate(&mut records, 1, Relation::ReferredBy, "<sip:agent@x>");
        relate(&mut records, 1, Relation::ReferTo, "<sip:desk@x>");
        relate(&mut records, 2, Relation::Replaces, "first");
        relate(&mut records, 2, Relation::Replaces, "elsewhere");
        relate(&mut records, 2, Relation::ReferredBy, "<sip:agent@x>");
    }
    let links = |text: &str| -> Vec<(String, String, Option<u64>)> {
        view(&records, text)
            .links
            .into_iter()
            .map(|link| (link.relation, link.value, link.call))
            .collect()
    };
    let link = |relation: &str, value: &str, call| (relation.to_owned(), value.to_owned(), call);
    assert_eq!(
        links("1"),
        [
            link("referred_by", "<sip:agent@x>", None),
            link("refer_to", "<sip:desk@x>", None),
            link("replaced_by", "second", Some(2)),
            link("referred", "second", Some(2)),
        ]
    );
    assert_eq!(
        links("2"),
        [
            link("replaces", "first", Some(1)),
            link("replaces", "elsewhere", None),
            link("referred_by", "<sip:agent@x>", Some(1)),
        ]
    );
    for number in 0..20 {
        relate(&mut records, 2, Relation::Replaces, &number.to_string());
    }
    assert_eq!(view(&records, "2").links.len(), LINKS);
}

#[test]
fn what_names_other_calls_is_asked_of_few_of_them() {
    let mut records = Records::default();
    start(&mut records, 1, "first");
    relate(&mut records, 1, Relation::ReferTo, "<sip:desk@x>");
    relate(&mut records, 1, Relation::ReferredBy, "<sip:agent@x>");
    // Calls that were referred nowhere are not in the way, however many there are.
    for number in 2..2_000 {
        start(&mut records, number, "other");
    }
    relate(&mut records, 2, Relation::ReferredBy, "<sip:agent@x>");
    assert_eq!(view(&records, "2").links[0].call, Some(1));
    for number in 2_000..2_000 + REFERRERS as u64 {
        start(&mut records, number, "another");
        relate(&mut records, number, Relation::ReferTo, "<sip:x@x>");
    }
    relate(&mut records, 3, Relation::ReferredBy, "<sip:agent@x>");
    assert_eq!(view(&records, "3").links[0].call, None);
    // By its Call-ID a call is found at once: the newest of them.
    relate(&mut records, 4, Relation::Replaces, "first");
    assert_eq!(view(&records, "4").links[0].call, Some(1));
}

#[test]
fn the_indices_forget_with_the_calls() {
    let mut records = Records::default();
    for number in 1..=2 * ENDED_UNANSWERED as u64 {
        start(&mut records, number, &format!("call {number}"));
        relate(&mut records, number, Relation::ReferTo, "<sip:x@x>");
        end(&mut records, number, false);
    }
    let sizes = [
        records.calls.len(),
        records.by_call_id.len(),
        records.referrers.len(),
    ];
    assert_eq!(sizes, [ENDED_UNANSWERED; 3]);
}

#[test]
fn a_number_is_no_beginning_of_a_call_id() {
    let mut records = Records::default();
    start(&mut records, 12, "7-what-a-peer-chose");
    assert_eq!(records.find("7").map(|record| record.number.0), Ok(12));
    assert!(records.call(CallNumber(7)).is_none());
}

#[test]
fn a_redirected_call_says_so() {
    let mut records = Records::default();
    start(&mut records, 1, "a");
    happen(&mut records, &message(1), 2);
    let refused = Event::Refused {
        call: Some(CallNumber(1)),
        refusal: Refusal::WrongDialog,
    };
    happen(&mut records, &refused, 3);
    let ended = Event::CallEnded {
        call: CallNumber(1),
        reason: EndReason::Rejected(302),
    };
    happen(&mut records, &ended, 4);
    let view = view(&records, "a");
    assert_eq!(view.started, "1970-01-01T00:00:00.000Z");
    assert_eq!(view.duration_seconds, 3.0);
    let end = view.end.expect("it is over");
    assert_eq!((end.reason.as_str(), end.status), ("rejected", Some(302)));
    let json = serde_json::to_value(&view.timeline).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!([
            {"at_seconds": 1.0, "kind": "message", "from": "provider", "method": "INVITE", "status": 302, "sdp": false},
            {"at_seconds": 2.0, "kind": "refused", "refusal": "wrong_dialog"},
            {"at_seconds": 3.0, "kind": "ended", "reason": "rejected", "status": 302},
        ])
    );
}

/// A quiet call makes some 15 lines; at 20 000 calls this is what their timelines take.
#[test]
fn a_line_is_small() {
    assert!(size_of::<entry::Entry>() <= 32);
}
