//! How media descriptions become pinholes: RTCP, addresses by level, several streams, candidates, port counts.

use sipfilter_daemon::engine::Refusal;

use crate::world::*;

/// An inbound call with these two bodies, and the pinholes that it must make.
#[track_caller]
fn check(offer: &[&str], answer: &[&str], pinholes: &[&str]) -> World {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp_of(MEDIA, offer)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp_of(PBX, answer)));
    world.expect(pinholes);
    world
}

const AUDIO: [&str; 2] = ["m=audio 20000 RTP/AVP 8", "m=audio 10000 RTP/AVP 8"];
const RTP: &str = "10000 rtp 198.51.100.77";
const RTCP: &str = "10001 rtcp 198.51.100.77";

#[test]
fn rtcp_is_on_the_next_port_by_default() {
    check(&AUDIO[..1], &AUDIO[1..], &[RTP, RTCP]);
}

#[test]
fn rtcp_follows_the_attribute() {
    check(
        &[AUDIO[0], "a=rtcp:20555 IN IP4 198.51.100.79"],
        &[AUDIO[1], "a=rtcp:10555"],
        &[RTP, "10555 rtcp 198.51.100.77 198.51.100.79"],
    );
}

#[test]
fn rtcp_is_multiplexed_only_if_both_say_so() {
    let mux = "a=rtcp-mux";
    check(&[AUDIO[0], mux], &[AUDIO[1], mux], &[RTP]);
    check(&[AUDIO[0], mux], &AUDIO[1..], &[RTP, RTCP]);
    check(&AUDIO[..1], &[AUDIO[1], mux], &[RTP, RTCP]);
}

#[test]
fn rtcp_of_an_unanswered_multiplexing_offer_may_come_either_way() {
    let mut world = World::with_on_offer();
    world.pbx_sends(request("INVITE", 1).sdp(sdp_of(PBX, &[AUDIO[1], "a=rtcp-mux"])));
    world.expect(&["10000 rtp 0.0.0.0/0", "10001 rtcp 0.0.0.0/0"]);
    let answer = sdp_of(MEDIA, &[AUDIO[0], "a=rtcp-mux"]);
    world.provider_sends(response(200, "INVITE", 1).sdp(answer));
    world.expect(&[RTP]);
}

#[test]
fn the_sections_own_address_beats_the_sessions() {
    check(
        &[
            AUDIO[0],
            "c=IN IP4 198.51.100.80",
            "m=video 20002 RTP/AVP 99",
        ],
        &[AUDIO[1], "m=video 10002 RTP/AVP 99"],
        &[
            "10000 rtp 198.51.100.80",
            "10001 rtcp 198.51.100.80",
            "10002 rtp 198.51.100.77",
            "10003 rtcp 198.51.100.77",
        ],
    );
}

#[test]
fn several_addresses_in_one_section_all_count() {
    check(
        &[AUDIO[0], "c=IN IP4 198.51.100.80", "c=IN IP4 198.51.100.81"],
        &AUDIO[1..],
        &[
            "10000 rtp 198.51.100.80 198.51.100.81",
            "10001 rtcp 198.51.100.80 198.51.100.81",
        ],
    );
}

#[test]
fn streams_are_paired_by_index_and_port_0_is_none() {
    let video = "m=video 20002 RTP/AVP 99";
    check(
        &[AUDIO[0], video],
        &[AUDIO[1], "m=video 0 RTP/AVP 99"],
        &[RTP, RTCP],
    );
    check(
        &["m=audio 0 RTP/AVP 8", video],
        &["m=audio 0 RTP/AVP 8", "m=video 10002 RTP/AVP 99"],
        &["10002 rtp 198.51.100.77", "10003 rtcp 198.51.100.77"],
    );
    // A missing section in the answer is a rejected one; a surplus one was never offered.
    check(&[AUDIO[0], video], &AUDIO[1..], &[RTP, RTCP]);
    check(
        &AUDIO[..1],
        &[AUDIO[1], "m=video 10002 RTP/AVP 99"],
        &[RTP, RTCP],
    );
}

#[test]
fn streams_of_other_protocols_open_nothing() {
    check(
        &[AUDIO[0], "m=message 20002 TCP/MSRP *"],
        &[AUDIO[1], "m=message 10002 TCP/MSRP *"],
        &[RTP, RTCP],
    );
}

#[test]
fn a_removed_stream_closes() {
    let video = ["m=video 20002 RTP/AVP 99", "m=video 10002 RTP/AVP 99"];
    let mut world = check(
        &[AUDIO[0], video[0]],
        &[AUDIO[1], video[1]],
        &[
            RTP,
            RTCP,
            "10002 rtp 198.51.100.77",
            "10003 rtcp 198.51.100.77",
        ],
    );
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    let offer = sdp_of(MEDIA, &[AUDIO[0], "m=video 0 RTP/AVP 99"]);
    world.provider_sends(request("INVITE", 2).to("callee").sdp(offer));
    let answer = sdp_of(PBX, &[AUDIO[1], "m=video 0 RTP/AVP 99"]);
    world.pbx_sends(response(200, "INVITE", 2).sdp(answer));
    world.provider_sends(request("ACK", 2).to("callee").branch("z9hG4bK-ack-2"));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn port_counts_open_that_many_pairs() {
    check(
        &["m=audio 20000/2 RTP/AVP 8"],
        &["m=audio 10000/2 RTP/AVP 8"],
        &[
            RTP,
            RTCP,
            "10002 rtp 198.51.100.77",
            "10003 rtcp 198.51.100.77",
        ],
    );
}

#[test]
fn candidates_are_further_sources() {
    check(
        &[
            AUDIO[0],
            "a=candidate:1 1 UDP 2130706431 198.51.100.91 20100 typ host",
            "a=candidate:2 1 UDP 1694498815 203.0.113.91 20101 typ srflx raddr 10.0.0.1 rport 9",
            "a=candidate:3 2 UDP 1694498814 198.51.100.92 20102 typ host",
        ],
        &[
            AUDIO[1],
            "a=candidate:1 1 UDP 2130706431 192.0.2.10 10400 typ host",
            "a=candidate:2 1 UDP 2130706430 172.17.0.1 10400 typ host",
        ],
        &[
            "10000 rtp 198.51.100.77 198.51.100.91 203.0.113.91",
            "10001 rtcp 198.51.100.77 198.51.100.92",
            "10400 rtp 198.51.100.77 198.51.100.91 203.0.113.91",
        ],
    );
}

#[test]
fn more_sources_than_a_pinhole_can_name_keep_the_first() {
    let lines: Vec<String> = (0..6)
        .map(|n| format!("a=candidate:{n} 1 UDP 1 198.51.100.1{n} 20100 typ host"))
        .collect();
    let mut offer = vec![AUDIO[0], "a=rtcp-mux"];
    offer.extend(lines.iter().map(String::as_str));
    let world = check(
        &offer,
        &[AUDIO[1], "a=rtcp-mux"],
        &["10000 rtp 198.51.100.10 198.51.100.11 198.51.100.12 198.51.100.77"],
    );
    assert_eq!(world.refusals(), [Refusal::TooManySources]);
}

#[test]
fn udptl_has_a_range_of_its_own_where_the_pbx_has_one() {
    for (port, pinholes) in [
        (4_000, &["4000 udptl 198.51.100.77"][..]),
        (10_000, &[][..]),
    ] {
        let mut settings = settings();
        settings.pbx.udptl_ports = Some(4_000..=4_999);
        let mut world = World::with(settings);
        let offer = sdp_of(MEDIA, &["m=image 20000 udptl t38"]);
        world.provider_sends(request("INVITE", 1).sdp(offer));
        let answer = sdp_of(PBX, &[&format!("m=image {port} udptl t38")]);
        world.pbx_sends(response(200, "INVITE", 1).sdp(answer));
        world.expect(pinholes);
    }
}

#[test]
fn bundled_streams_share_one_pinhole() {
    check(
        &[
            "a=group:BUNDLE 0 1",
            AUDIO[0],
            "a=rtcp-mux",
            "m=video 20000 RTP/AVP 99",
            "a=rtcp-mux",
        ],
        &[
            "a=group:BUNDLE 0 1",
            AUDIO[1],
            "a=rtcp-mux",
            "m=video 10000 RTP/AVP 99",
            "a=rtcp-mux",
        ],
        &[RTP],
    );
}

#[test]
fn an_invite_on_hold_from_the_start_opens_once_it_resumes() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp("0.0.0.0", 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.expect_closed();
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn stun_and_dtls_may_pass_only_where_both_sides_negotiated_them() {
    const ICE: &str = "a=ice-ufrag:abcd";
    const FINGERPRINT: &str = "a=fingerprint:sha-256 AA:BB";
    #[track_caller]
    fn extras(offer: &[&str], answer: &[&str], expect: (bool, bool)) {
        let (offer, answer) = (
            [&AUDIO[..1], offer].concat(),
            [&AUDIO[1..], answer].concat(),
        );
        let world = check(&offer, &answer, &[RTP, RTCP]);
        for port in [10000, 10001] {
            let found = world.pinhole(port).extras;
            assert_eq!((found.stun, found.dtls), expect, "port {port}");
        }
    }
    extras(&[], &[], (false, false));
    extras(&[ICE], &[], (false, false));
    extras(&[], &[ICE, FINGERPRINT], (false, false));
    extras(&[ICE], &[ICE], (true, false));
    extras(&[FINGERPRINT, ICE], &[FINGERPRINT], (false, true));
    extras(&[FINGERPRINT, ICE], &[FINGERPRINT, ICE], (true, true));
}

#[test]
fn a_stream_that_the_answer_refuses_opens_nothing_and_is_no_news() {
    for removed in ["m=video 0 RTP/AVP 96", "m=video 0 RTP/AVP"] {
        let world = check(
            &["m=audio 20000 RTP/AVP 8", removed],
            &["m=audio 10000 RTP/AVP 8", "m=video 10010 RTP/AVP 96"],
            &["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"],
        );
        assert_eq!(world.refusals(), []);
    }
}

#[test]
fn a_section_of_the_pbx_with_two_addresses_is_open_on_both() {
    check(
        &[
            "m=audio 20000 RTP/AVP 8",
            "c=IN IP4 198.51.100.77",
            "c=IN IP6 2001:db8:5::77",
        ],
        &[
            "m=audio 10000 RTP/AVP 8",
            "c=IN IP4 192.0.2.10",
            "c=IN IP6 2001:db8::10",
        ],
        &[
            RTP,
            RTCP,
            "[2001:db8::10]:10000 rtp 2001:db8:5::77",
            "[2001:db8::10]:10001 rtcp 2001:db8:5::77",
        ],
    );
}
