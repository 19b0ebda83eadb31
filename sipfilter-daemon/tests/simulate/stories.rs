//! Calls as captures show them: what was negotiated passes to the last packet, and nothing else does.

use std::collections::BTreeMap;

use crate::film::{
    Film, MEDIA, MILLISECOND, PARTIES, PBX, Parties, SIGNALLING, STRANGER, assert_whole_call, at,
    call, flow, run, settings, udp, whole_call,
};

const RTCP: [u8; 28] = {
    let mut packet = [0; 28];
    packet[0] = 0x80;
    packet[1] = 200;
    packet
};

#[test]
fn all_media_of_a_call_passes() {
    let report = run(&whole_call().pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    assert_whole_call(&report);
    let call = call(&report, PARTIES.call_id);
    assert_eq!(call.direction, "inbound");
    assert_eq!(call.provider, "provider");
    assert_eq!(call.local_media, [PARTIES.ours().parse().unwrap()]);
    assert_eq!(call.remote_media, [PARTIES.theirs().parse().unwrap()]);
    assert_eq!(call.pinholes.len(), 2, "RTP and RTCP");
    assert!(
        call.pinholes
            .iter()
            .all(|hole| hole.closed_seconds == call.ended_seconds)
    );
    let inward = flow(&report, &PARTIES.theirs(), &PARTIES.ours());
    assert_eq!((inward.kind, inward.direction), ("rtp", "ingress"));
    assert_eq!((inward.packets, inward.passed), (50, 50));
    assert_eq!(inward.calls, [call.number]);
    let outward = flow(&report, &PARTIES.ours(), &PARTIES.theirs());
    assert_eq!((outward.kind, outward.direction), ("rtp", "egress"));
    assert_eq!(report.reasons["media"], 50);
    assert_eq!(report.reasons["egress_media"], 50);
    assert_eq!(report.engine["calls_ended.bye_remote"], 1);
}

#[test]
fn everybody_may_be_taken_for_a_provider() {
    let report = run(&whole_call().pcap(), &settings(&[PBX], &[])).unwrap();
    assert_whole_call(&report);
    assert_eq!(report.settings.providers, ["any"]);
}

#[test]
fn ipv6_is_the_same() {
    let parties = Parties {
        provider: "2001:db8:51::10",
        provider_media: ("2001:db8:51::20", 40_000),
        pbx: "2001:db8:113::10",
        pbx_media: ("2001:db8:113::10", 10_000),
        ..PARTIES
    };
    let mut film = Film::default();
    parties.set_up(&mut film);
    film.talk(&parties.theirs(), &parties.ours(), 50);
    parties.hang_up(&mut film);
    film.rtp(&parties.theirs(), &parties.ours(), 2);
    for providers in [&["2001:db8:51::/64"][..], &[]] {
        let report = run(&film.pcap(), &settings(&[parties.pbx], providers)).unwrap();
        assert_eq!((report.passed, report.dropped), (106, 2));
        assert_eq!(call(&report, parties.call_id).media.passed, 50);
    }
}

#[test]
fn strangers_are_dropped_with_their_reasons() {
    let mut film = Film::default();
    PARTIES.set_up(&mut film);
    film.talk(&PARTIES.theirs(), &PARTIES.ours(), 5);
    film.rtp(&at(STRANGER, 41_000), &PARTIES.ours(), 3);
    film.rtp(&at(STRANGER, 41_000), &at(PBX, 15_000), 4);
    film.udp(
        &at(STRANGER, 5060),
        &at(PBX, 5060),
        b"OPTIONS sip:x SIP/2.0\r\n\r\n",
    );
    film.udp(&PARTIES.theirs(), &PARTIES.ours(), b"no RTP");
    // Payload type 99, of which nobody spoke.
    let unknown = [&[0x80, 99][..], &[0; 30]].concat();
    film.udp(&PARTIES.theirs(), &PARTIES.ours(), &unknown);
    film.udp(&at(STRANGER, 53), &at(PBX, 9_999), b"an answer");
    film.udp(&at(STRANGER, 5060), &at(MEDIA, 5060), b"not ours");
    // The header says more than there is.
    let mut malformed = udp(&at(STRANGER, 1), &at(PBX, 2), b"");
    malformed[3] = 200;
    film.raw(malformed);
    let report = run(&film.pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    let expect = BTreeMap::from([
        ("egress_media", 5),
        ("egress_signalling", 2),
        ("malformed", 1),
        ("media", 5),
        ("no_pinhole", 4),
        ("not_media", 1),
        ("other_traffic", 1),
        ("payload_type", 1),
        ("signalling", 2),
        ("unknown_source", 1),
        ("wrong_source", 3),
    ]);
    assert_eq!(report.reasons, expect);
    assert_eq!((report.packets, report.unrelated), (27, 1));
    assert_eq!((report.passed, report.dropped), (15, 11));
    let stranger = flow(&report, &at(STRANGER, 41_000), &PARTIES.ours());
    assert_eq!((stranger.packets, stranger.passed), (3, 0));
    assert_eq!(stranger.dropped, BTreeMap::from([("wrong_source", 3)]));
    assert_eq!(
        call(&report, PARTIES.call_id).media.dropped,
        BTreeMap::from([("not_media", 1), ("payload_type", 1), ("wrong_source", 3)])
    );
    assert_eq!(
        flow(&report, &at(STRANGER, 5060), &at(PBX, 5060)).kind,
        "sip"
    );
    assert_eq!(
        flow(&report, &at(STRANGER, 0), &at(PBX, 0)).dropped,
        BTreeMap::from([("malformed", 1)])
    );
}

#[test]
fn rtp_and_rtcp_on_one_port_are_two_flows() {
    let mut film = Film::default();
    PARTIES.set_up(&mut film);
    film.rtp(&PARTIES.theirs(), &PARTIES.ours(), 2);
    film.udp(&PARTIES.theirs(), &PARTIES.ours(), &RTCP);
    film.udp(&at(MEDIA, 40_001), &at(PBX, 10_001), &RTCP);
    let report = run(&film.pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    let kinds: Vec<_> = report
        .flows
        .iter()
        .filter(|flow| flow.kind != "sip")
        .map(|flow| (flow.dst.port(), flow.kind, flow.passed))
        .collect();
    assert_eq!(
        kinds,
        [(10_000, "rtp", 2), (10_000, "rtcp", 0), (10_001, "rtcp", 1)]
    );
}

#[test]
fn silence_is_kept_by_the_captures_clock() {
    let settings = settings(&[PBX], &[SIGNALLING]);
    let idle = settings.timers.media_idle;
    let film = |silence| {
        let mut film = Film::default();
        PARTIES.set_up(&mut film);
        film.talk(&PARTIES.theirs(), &PARTIES.ours(), 3);
        film.wait(silence);
        film.rtp(&PARTIES.theirs(), &PARTIES.ours(), 2);
        run(&film.pcap(), &settings).unwrap()
    };
    let report = film(idle - 100 * MILLISECOND);
    assert_eq!(call(&report, PARTIES.call_id).media.passed, 5);
    let report = film(idle * 3);
    let ended = call(&report, PARTIES.call_id);
    assert_eq!((ended.media.passed, ended.end_reason), (3, Some("idle")));
    assert_eq!(report.reasons["no_pinhole"], 2);
    let lasted = ended.ended_seconds.unwrap() - ended.confirmed_seconds.unwrap();
    assert!(
        (idle.as_secs_f64()..idle.as_secs_f64() * 2.0 + 1.0).contains(&lasted),
        "closed after {lasted} s, not at the next packet"
    );
}

#[test]
fn an_unanswered_call_ends_by_the_captures_clock() {
    let mut film = Film::default();
    PARTIES.invite(&mut film);
    film.wait(std::time::Duration::from_secs(3_600));
    film.udp(&at(STRANGER, 1), &at(PBX, 2), b"much later");
    let report = run(&film.pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    let call = call(&report, PARTIES.call_id);
    assert_eq!((call.state, call.end_reason), ("ended", Some("no_answer")));
    assert!(call.ended_seconds.unwrap() < 600.0);
}

#[test]
fn times_that_go_backwards_are_counted_and_change_nothing() {
    let mut film = whole_call();
    let (earlier, later) = film.packets.split_at_mut(40);
    std::mem::swap(&mut earlier[39].0, &mut later[10].0);
    let report = run(&film.pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    assert_whole_call(&report);
    assert!(report.capture.out_of_order > 0);
}

/// The same signalling over TCP, each message in two segments.
#[test]
fn signalling_over_tcp_opens_the_same_pinholes() {
    let mut film = Film::default();
    let mut sent = BTreeMap::from([(SIGNALLING, 1_000_u32), (PBX, 5_000)]);
    for (time, packet) in whole_call().packets {
        let payload = &packet[28..];
        if packet[20..22] != 5060_u16.to_be_bytes() {
            film.packets.push((time, packet));
            continue;
        }
        let from = if packet[12..16] == [198, 51, 100, 10] {
            SIGNALLING
        } else {
            PBX
        };
        let sequence = sent.get_mut(from).unwrap();
        for part in payload.chunks(payload.len() / 2 + 1) {
            let mut segment = [&packet[20..24], &sequence.to_be_bytes()].concat();
            segment.extend([0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
            segment.extend(part);
            let mut whole = packet[..20].to_vec();
            whole[2..4].copy_from_slice(&(20 + segment.len() as u16).to_be_bytes());
            whole[9] = 6;
            whole.extend(segment);
            film.packets.push((time, whole));
            *sequence += part.len() as u32;
        }
    }
    let report = run(&film.pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    let call = call(&report, PARTIES.call_id);
    assert_eq!((call.media.passed, call.media.sent), (50, 50));
    assert_eq!(call.end_reason, Some("bye_remote"));
    assert_eq!(report.dropped, 0);
    let signalling = flow(&report, &at(SIGNALLING, 5060), &at(PBX, 5060));
    assert_eq!((signalling.kind, &*signalling.protocol), ("sip", "tcp"));
}

#[test]
fn an_invite_in_fragments_opens_the_same_pinholes() {
    let mut film = whole_call();
    let (time, invite) = film.packets.remove(0);
    let middle = 20 + 160;
    for (index, (part, flags)) in [
        (&invite[20..middle], 0x2000_u16),
        (&invite[middle..], 160 / 8),
    ]
    .into_iter()
    .enumerate()
    {
        let mut fragment = invite[..20].to_vec();
        fragment[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        fragment[6..8].copy_from_slice(&flags.to_be_bytes());
        fragment.extend(part);
        film.packets.insert(index, (time, fragment));
    }
    let report = run(&film.pcap(), &settings(&[PBX], &[SIGNALLING])).unwrap();
    assert_eq!(call(&report, PARTIES.call_id).media.passed, 50);
    assert_eq!((report.dropped, report.reasons["fragment"]), (0, 1));
    assert_eq!(
        flow(&report, &at(SIGNALLING, 0), &at(PBX, 0)).kind,
        "fragment"
    );
}
