//! Calls as their records tell them, and what is said of each.

use std::net::SocketAddr;

use super::*;
use crate::view::{CallEnd, Happening, MediaRecord, Moment, Source, Stray};

/// A record of an inbound call, told in one line: `provider INVITE; 0.2 pbx 200 INVITE; 0.2 confirmed; 0.3 provider ACK`. A time
/// holds for what follows it.
fn record(direction: &str, story: &str) -> CallRecord {
    let mut now = 0.0;
    let mut timeline = Vec::new();
    let mut end = None;
    for line in story.split(';') {
        let mut words = line.split_whitespace().peekable();
        if let Some(time) = words.peek().and_then(|word| word.parse().ok()) {
            now = time;
            words.next();
        }
        let words: Vec<&str> = words.collect();
        let what = match words.as_slice() {
            ["confirmed"] => Happening::Confirmed,
            ["refused", refusal] => Happening::Refused {
                refusal: (*refusal).to_owned(),
            },
            ["full"] => Happening::Pinhole {
                change: "opened".to_owned(),
                local: local(),
                sources: vec![],
                stream: Some("rtp".to_owned()),
                terms: None,
                error: Some("full".to_owned()),
            },
            ["end", reason, status @ ..] => {
                let ended = CallEnd {
                    reason: (*reason).to_owned(),
                    status: status
                        .first()
                        .map(|status| status.parse().expect("a status")),
                };
                end = Some(ended.clone());
                Happening::Ended { end: ended }
            }
            ["now"] => continue,
            [from, rest @ ..] => {
                let status = rest.first().and_then(|word| word.parse().ok());
                let rest = &rest[usize::from(status.is_some())..];
                Happening::Message {
                    from: (*from).to_owned(),
                    method: rest[0].to_owned(),
                    status,
                    sdp: false,
                    session_expires: rest.get(1).map(|word| word.parse().expect("seconds")),
                }
            }
            [] => continue,
        };
        timeline.push(Moment {
            at_seconds: now,
            what,
        });
    }
    CallRecord {
        number: 1,
        call_id: "a@b".to_owned(),
        provider_call_ids: vec![],
        provider: "lab".to_owned(),
        direction: direction.to_owned(),
        state: "confirmed".to_owned(),
        observing: false,
        started: "2026-11-21T07:18:51.704Z".to_owned(),
        duration_seconds: now,
        end,
        local_media: vec![local()],
        remote_media: vec!["198.51.100.20:40000".parse().expect("an address")],
        links: vec![],
        hold: false,
        media: vec![],
        findings: vec![],
        timeline,
    }
}

fn local() -> SocketAddr {
    "203.0.113.10:10000".parse().expect("an address")
}

/// A stream that carried so many packets in, out and dropped, the last ones at these times.
fn stream(counts: [u64; 3], last_in: Option<f64>, last_out: Option<f64>) -> MediaRecord {
    let [ingress_packets, egress_packets, dropped_packets] = counts;
    MediaRecord {
        local: local(),
        stream: "rtp".to_owned(),
        sources: vec![Source {
            net: "198.51.100.20/32".parse().expect("a prefix"),
            ports: "40000-60000".to_owned(),
        }],
        opened_seconds: 0.1,
        closed_seconds: None,
        ingress_packets,
        egress_packets,
        dropped_packets,
        last_ingress_seconds: last_in,
        last_egress_seconds: last_out,
        strays: vec![],
    }
}

fn codes(record: &CallRecord) -> Vec<String> {
    diagnose(record)
        .into_iter()
        .map(|finding| finding.code)
        .collect()
}

const ANSWERED: &str =
    "provider INVITE; 0.1 pbx 180 INVITE; 0.2 pbx 200 INVITE; confirmed; 0.3 provider ACK; ";

fn check(direction: &str, story: &str, expect: &[&str]) {
    let mut record = record(direction, story);
    // Its media is not what these are about.
    let end = record.duration_seconds;
    record.media = vec![stream([500, 500, 0], Some(end), Some(end))];
    assert_eq!(codes(&record), expect, "{story}");
}

#[test]
fn refusals_are_told_by_whose_they_are_and_what_they_mean() {
    for (direction, story, expect) in [
        (
            "outbound",
            "pbx INVITE; 0.1 provider 403 INVITE; end rejected 403",
            "forbidden",
        ),
        (
            "inbound",
            "provider INVITE; 0.1 pbx 403 INVITE; end rejected 403",
            "forbidden",
        ),
        (
            "outbound",
            "pbx INVITE; 0.1 provider 404 INVITE; end rejected 404",
            "not_found",
        ),
        (
            "outbound",
            "pbx INVITE; 0.1 provider 488 INVITE; end rejected 488",
            "no_common_media",
        ),
        (
            "outbound",
            "pbx INVITE; 0.1 provider 503 INVITE; end rejected 503",
            "server_failed",
        ),
        (
            "outbound",
            "pbx INVITE; 0.1 provider 302 INVITE; end rejected 302",
            "redirected",
        ),
        (
            "outbound",
            "pbx INVITE; 0.1 provider 499 INVITE; end rejected 499",
            "rejected",
        ),
        (
            "outbound",
            "pbx INVITE; 0.1 provider 407 INVITE; pbx ACK; 0.2 pbx INVITE; 0.3 provider 407 INVITE; end rejected 407",
            "authentication_loop",
        ),
        (
            "inbound",
            "provider INVITE; 0.1 pbx 401 INVITE; provider ACK; 32 end rejected 401",
            "credentials_missing",
        ),
        (
            "inbound",
            "provider INVITE; 1 provider INVITE; 64 end no_answer",
            "no_reply",
        ),
        (
            "outbound",
            "pbx INVITE; 1 pbx INVITE; 64 end no_answer",
            "no_reply",
        ),
        (
            "outbound",
            "pbx INVITE; 1 provider 180 INVITE; 300 end no_answer",
            "no_final_answer",
        ),
    ] {
        check(direction, story, &[expect]);
    }
}

#[test]
fn what_a_refusal_comes_from_depends_on_the_side_and_the_provider() {
    let cause = |direction: &str, provider: &str, status: u16| {
        let mut record = record(
            direction,
            &format!("pbx INVITE; 0.1 provider {status} INVITE; end rejected {status}"),
        );
        record.provider = provider.to_owned();
        diagnose(&record).remove(0)
    };
    let vapi = cause("outbound", "vapi-us", 403);
    assert_eq!(vapi.text, "the provider refused the call: 403 forbidden.");
    assert!(vapi.causes[0].starts_with("Vapi: "), "{vapi:?}");
    let unknown = cause("outbound", "example", 403);
    assert!(unknown.causes[0].contains("allow-list"), "{unknown:?}");
    let pbx = cause("inbound", "vapi-us", 403);
    assert_eq!(pbx.text, "the PBX refused the call: 403 forbidden.");
    assert!(pbx.causes[0].contains("identify"), "{pbx:?}");
    assert!(cause("outbound", "flynumber", 404).causes[0].starts_with("FlyNumber: "));
}

#[test]
fn calls_that_connect_and_drop_say_who_ended_them_and_why() {
    let acknowledged_never =
        "provider INVITE; 0.2 pbx 200 INVITE; confirmed; 0.7 pbx 200 INVITE; 1.7 pbx 200 INVITE; ";
    for (story, expect) in [
        (format!("{ANSWERED} 1.4 provider BYE; end bye_remote"), &["short_call"][..]),
        (format!("{ANSWERED} 1.4 pbx BYE; end bye_local"), &["short_call"]),
        (format!("{ANSWERED} 60 pbx BYE; end bye_local"), &[]),
        (format!("{acknowledged_never} 32.3 end no_ack"), &["no_ack"]),
        (format!("{acknowledged_never} 32.3 pbx BYE; end bye_local"), &["no_ack"]),
        (format!("{ANSWERED} 32.3 pbx BYE; end bye_local"), &[]),
        (format!("{ANSWERED} 400 end idle"), &["went_silent"]),
        (
            "provider INVITE 90; 0.2 pbx 200 INVITE 90; confirmed; 0.3 provider ACK; 61 pbx BYE; end bye_local".to_owned(),
            &["session_timer"],
        ),
        (
            "provider INVITE 90; 0.2 pbx 200 INVITE 90; confirmed; 0.3 provider ACK; 45 pbx UPDATE 90; provider 200 UPDATE 90; 61 pbx BYE; end bye_local".to_owned(),
            &[],
        ),
        (
            "provider INVITE 1800; 0.2 pbx 200 INVITE 1800; confirmed; 0.3 provider ACK; 61 pbx BYE; end bye_local".to_owned(),
            &[],
        ),
    ] {
        check("inbound", &story, expect);
    }
}

#[test]
fn what_the_filter_refused_or_could_not_do_is_told() {
    check(
        "inbound",
        &format!(
            "{ANSWERED} refused foreign_local_address; refused foreign_local_address; full; refused unknown_dialog; 60 now"
        ),
        &["foreign_local_address", "pinhole_table_full"],
    );
}

#[test]
fn silence_is_told_by_direction() {
    let none = None;
    for (counts, last_in, last_out, expect) in [
        ([500, 500, 0], Some(10.0), Some(10.0), &[][..]),
        ([0, 500, 0], none, Some(10.0), &["silent_provider"]),
        ([0, 500, 44], none, Some(10.0), &["silent_provider"]),
        ([500, 0, 0], Some(10.0), none, &["silent_pbx"]),
        ([0, 0, 0], none, none, &["no_media"]),
        ([100, 500, 0], Some(2.0), Some(10.0), &["provider_stopped"]),
        ([500, 100, 0], Some(10.0), Some(2.0), &["pbx_stopped"]),
        // Both went still together: a pause, or the end.
        ([100, 100, 0], Some(2.0), Some(2.1), &[]),
        (
            [500, 500, 7],
            Some(10.0),
            Some(10.0),
            &["dropped_at_pinhole"],
        ),
    ] {
        let mut record = record("inbound", &format!("{ANSWERED} 10 now"));
        record.media = vec![stream(counts, last_in, last_out)];
        assert_eq!(
            codes(&record),
            expect,
            "{counts:?} {last_in:?} {last_out:?}"
        );
        record.hold = true;
        let is_drop = |code: &String| code == "dropped_at_pinhole";
        assert!(codes(&record).iter().all(is_drop), "on hold: {counts:?}");
    }
}

#[test]
fn a_call_that_was_just_answered_or_never_was_is_not_judged() {
    let mut young = record("inbound", &format!("{ANSWERED} 1.5 now"));
    young.media = vec![stream([0, 0, 0], None, None)];
    assert_eq!(codes(&young), [""; 0]);
    let mut ringing = record("inbound", "provider INVITE; 0.1 pbx 183 INVITE; 20 now");
    ringing.media = vec![stream([0, 0, 0], None, None)];
    assert_eq!(codes(&ringing), [""; 0]);
}

#[test]
fn silent_rtcp_is_nobodys_concern() {
    let mut record = record("inbound", &format!("{ANSWERED} 10 now"));
    let rtcp = MediaRecord {
        stream: "rtcp".to_owned(),
        ..stream([0, 0, 3], None, None)
    };
    record.media = vec![stream([500, 500, 0], Some(10.0), Some(10.0)), rtcp];
    assert_eq!(codes(&record), [""; 0]);
}

#[test]
fn unexpected_media_names_who_sent_it_and_who_should_have() {
    let mut record = record("inbound", &format!("{ANSWERED} 10 now"));
    let stray = |source: &str, first_seconds| Stray {
        source: source.parse().expect("an address"),
        reason: "wrong_source".to_owned(),
        packets: 44,
        first_seconds,
    };
    record.media = vec![MediaRecord {
        strays: vec![
            stray("198.51.100.77:40000", 0.4),
            stray("198.51.100.78:1", 0.05),
        ],
        ..stream([0, 500, 44], None, Some(10.0))
    }];
    let causes = diagnose(&record).remove(0).causes.join("\n");
    for part in [
        "44 packets came to 203.0.113.10:10000 and were dropped",
        "media came from 198.51.100.77:40000 instead of 198.51.100.20 ports 40000-60000 (wrong_source, at least 44 packets)",
        "198.51.100.78:1 instead of 198.51.100.20 ports 40000-60000 (wrong_source, at least 44 packets, before the pinhole was open)",
    ] {
        assert!(causes.contains(part), "{part}: {causes}");
    }
}

#[test]
fn silence_says_whether_media_came_too_early_from_elsewhere_or_never() {
    let stray = |source: &str, reason: &str, first_seconds| Stray {
        source: source.parse().expect("an address"),
        reason: reason.to_owned(),
        packets: 9,
        first_seconds,
    };
    let early = stray("198.51.100.20:40000", "no_pinhole", 0.05);
    let odd = stray("198.51.100.20:40000", "payload_type", 0.5);
    let elsewhere = stray("198.51.100.77:40000", "wrong_source", 0.5);
    for (dropped, strays, has, has_not) in [
        (
            0,
            vec![],
            "no packet came to 203.0.113.10:10000 at all",
            "before the pinhole",
        ),
        (
            0,
            vec![early.clone()],
            "9 packets, before the pinhole was open",
            "at all",
        ),
        (0, vec![early], "while its pinhole was open", "at all"),
        (
            9,
            vec![elsewhere],
            "set the trunk's `media.prefixes`",
            "codec",
        ),
        (
            9,
            vec![odd],
            "a codec that neither side's SDP lists",
            "media.prefixes",
        ),
        (9, vec![], "set the trunk's `media.prefixes`", "codec"),
    ] {
        for sent in [500, 0] {
            let mut record = record("inbound", &format!("{ANSWERED} 10 now"));
            record.media = vec![MediaRecord {
                strays: strays.clone(),
                ..stream([0, sent, dropped], None, Some(10.0))
            }];
            let causes = diagnose(&record).remove(0).causes.join("\n");
            assert!(causes.contains(has), "{has}: {causes}");
            assert!(!causes.contains(has_not), "{has_not}: {causes}");
        }
    }
}

#[test]
fn an_answered_call_without_a_pinhole_says_whose_sdp_is_missing() {
    for (has_local, has_remote, part) in [
        (false, true, "the PBX's SDP was not seen"),
        (true, false, "the provider's SDP was not seen"),
        (false, false, "no SDP of either side"),
        (true, true, "did not become an agreement"),
    ] {
        let mut record = record("inbound", &format!("{ANSWERED} 10 now"));
        if !has_local {
            record.local_media.clear();
        }
        if !has_remote {
            record.remote_media.clear();
        }
        let found = diagnose(&record).remove(0);
        assert_eq!(found.code, "never_opened");
        assert!(found.causes[0].contains(part), "{found:?}");
    }
}
