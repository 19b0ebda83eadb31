//! What a pinhole lets through besides its sources: payload types, RTCP, packet budgets, and when a latch is armed anew.

use sipfilter_daemon::{
    engine::{
        pinhole::{Arming, Terms},
        settings::{EarlyMedia, MediaSource},
    },
    view::payload_types,
};

use crate::world::*;

/// An inbound call with these two bodies.
fn call(mut world: World, offer: &[&str], answer: &[&str]) -> World {
    world.provider_sends(request("INVITE", 1).sdp(sdp_of(MEDIA, offer)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp_of(PBX, answer)));
    world
}

fn terms(world: &World, port: u16) -> (Vec<u8>, bool, Option<u32>) {
    let Terms {
        payload_types: types,
        rtcp,
        packets_per_second,
    } = world.pinhole(port).terms;
    (payload_types(types), rtcp, packets_per_second.number())
}

#[test]
fn either_sides_payload_types_may_come_and_no_others() {
    let world = call(
        World::new(),
        &["m=audio 20000 RTP/AVP 0 8 97 101"],
        &["m=audio 10000 RTP/AVP 8 96 13"],
    );
    assert_eq!(terms(&world, 10_000).0, [0, 8, 13, 96, 97, 101]);
}

#[test]
fn each_section_has_its_own() {
    let world = call(
        World::new(),
        &["m=audio 20000 RTP/AVP 8", "m=video 20002 RTP/AVP 99"],
        &["m=audio 10000 RTP/AVP 8", "m=video 10002 RTP/AVP 99"],
    );
    assert_eq!(terms(&world, 10_000), (vec![8], false, Some(400)));
    assert_eq!(terms(&world, 10_001), (vec![], true, Some(200)));
    assert_eq!(terms(&world, 10_002), (vec![99], false, Some(5_000)));
    assert_eq!(terms(&world, 10_003), (vec![], true, Some(1_000)));
}

#[test]
fn rtcp_comes_on_rtps_port_where_either_side_speaks_of_it() {
    #[track_caller]
    fn check(offer: &str, answer: &str, expect: bool) {
        let offer = ["m=audio 20000 RTP/AVP 8", offer];
        let answer = ["m=audio 10000 RTP/AVP 8", answer];
        let world = call(World::new(), &offer, &answer);
        assert_eq!(terms(&world, 10_000).1, expect);
    }
    check("a=sendrecv", "a=sendrecv", false);
    check("a=rtcp-mux", "a=rtcp-mux", true);
    check("a=rtcp-mux", "a=sendrecv", true);
    check("a=sendrecv", "a=rtcp-mux", true);
    check("a=sendrecv", "a=rtcp:10000", true);
}

#[test]
fn the_budget_follows_the_shorter_packet_time_and_the_configuration() {
    #[track_caller]
    fn check(world: World, offer: &str, answer: &str, expect: u32) {
        let offer = ["m=audio 20000 RTP/AVP 8", offer];
        let answer = ["m=audio 10000 RTP/AVP 8", answer];
        let world = call(world, &offer, &answer);
        assert_eq!(terms(&world, 10_000).2, Some(expect));
    }
    check(World::new(), "a=ptime:20", "a=ptime:60", 400);
    check(World::new(), "a=ptime:5", "a=ptime:20", 800);
    check(World::new(), "a=ptime:20", "a=ptime:2.5", 2_000);
    check(World::new(), "a=ptime:0", "a=ptime:", 4_000);
    let own = World::with_provider(|provider| provider.media.packets_per_second = Some(77));
    check(own, "a=ptime:5", "a=ptime:5", 77);
}

#[test]
fn a_videos_budget_follows_the_bandwidth_that_the_pbx_names() {
    #[track_caller]
    fn check(theirs: &str, ours: &str, expect: u32) {
        let audio = "m=audio 20000 RTP/AVP 8";
        let offer = [audio, "m=video 20002 RTP/AVP 99", theirs];
        let answer = ["m=audio 10000 RTP/AVP 8", "m=video 10002 RTP/AVP 99", ours];
        let world = call(World::new(), &offer, &answer);
        assert_eq!(terms(&world, 10_002).2, Some(expect), "{theirs} {ours}");
        assert_eq!(terms(&world, 10_003).2, Some(1_000), "rtcp is as it was");
        assert_eq!(terms(&world, 10_000).2, Some(400), "and so is audio");
    }
    let silent = "a=sendrecv";
    check(silent, "b=AS:4800", 2_000);
    check("b=AS:2400", "b=TIAS:4800000", 2_000);
    check("b=AS:9600", "b=AS:4800", 4_000);
    check("b=AS:64", silent, 5_000);
    check(silent, "b=AS:64", 400);
    check(silent, "b=AS:48000", 20_000);
    check(silent, "b=TIAS:18446744073709551615", 416_000);
}

#[test]
fn a_re_offers_payload_types_join_the_old_ones_until_it_has_settled() {
    let audio = |port: u16, types: &str| format!("m=audio {port} RTP/AVP {types}");
    let mut world = call(World::new(), &[&audio(20_000, "8")], &[&audio(10_000, "8")]);
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    let offer = sdp_of(PBX, &[&audio(10_000, "0")]);
    world.pbx_sends(
        request("INVITE", 7)
            .by_callee()
            .branch("z9hG4bK-re")
            .sdp(offer),
    );
    assert_eq!(terms(&world, 10_000).0, [0, 8], "offered: either may come");
    let answer = sdp_of(MEDIA, &[&audio(20_000, "0")]);
    world.provider_sends(
        response(200, "INVITE", 7)
            .by_callee()
            .branch("z9hG4bK-re")
            .sdp(answer),
    );
    assert_eq!(
        terms(&world, 10_000).0,
        [0, 8],
        "answered: what was sent before is on its way"
    );
    world.pbx_sends(request("ACK", 7).by_callee().branch("z9hG4bK-re-ack"));
    assert_eq!(terms(&world, 10_000).0, [0], "settled");
}

#[test]
fn early_media_is_what_the_pbx_has_offered() {
    let mut world = World::with_on_offer();
    world.pbx_sends(request("INVITE", 1).sdp(sdp_of(PBX, &["m=audio 10000 RTP/AVP 8 101"])));
    assert_eq!(terms(&world, 10_000), (vec![8, 101], false, Some(400)));
}

fn latching() -> World {
    World::with_provider(|provider| provider.media.source = MediaSource::Latch)
}

const OFFER: [&str; 1] = ["m=audio 20000 RTP/AVP 8"];
const ANSWER: [&str; 1] = ["m=audio 10000 RTP/AVP 8"];

fn arming(world: &World) -> Arming {
    world.pinhole(10_000).latch.expect("a latch")
}

#[test]
fn a_latch_stands_in_the_providers_limits() {
    let world = call(latching(), &OFFER, &ANSWER);
    world.expect(&["10000 rtp 0.0.0.0/0", "10001 rtcp 0.0.0.0/0"]);
    arming(&world);
    let narrow = World::with_provider(|provider| {
        provider.media.source = MediaSource::Latch;
        provider.media.prefixes = vec!["198.51.100.64/26".parse().unwrap()];
        provider.early_media = EarlyMedia::OnAnswer;
    });
    let world = call(narrow, &OFFER, &ANSWER);
    world.expect(&["10000 rtp 198.51.100.64/26", "10001 rtcp 198.51.100.64/26"]);
    arming(&world);
    let signalled = call(World::new(), &OFFER, &ANSWER);
    assert_eq!(signalled.pinhole(10_000).latch, None);
}

#[test]
fn a_latch_is_armed_anew_when_an_answer_comes_and_not_when_it_is_repeated() {
    let mut world = call(latching(), &OFFER, &ANSWER);
    let first = arming(&world);
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp_of(PBX, &ANSWER)));
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    assert_eq!(
        arming(&world),
        first,
        "a retransmission and the ACK say nothing new"
    );

    let moved = ["m=audio 20400 RTP/AVP 8"];
    let re_invite = request("INVITE", 2).to("callee").branch("z9hG4bK-re");
    world.provider_sends(re_invite.sdp(sdp_of(MEDIA, &moved)));
    assert_eq!(arming(&world), first, "an offer settles nothing");
    world.pbx_sends(
        response(200, "INVITE", 2)
            .branch("z9hG4bK-re")
            .sdp(sdp_of(PBX, &ANSWER)),
    );
    let answered = arming(&world);
    assert_ne!(answered, first, "its answer does");
    world.provider_sends(request("ACK", 2).to("callee").branch("z9hG4bK-re-ack"));
    let settled = arming(&world);
    assert_ne!(settled, answered, "and the end of what was before");
    world.provider_sends(request("ACK", 2).to("callee").branch("z9hG4bK-re-ack"));
    assert_eq!(arming(&world), settled);
}

#[test]
fn with_ice_nothing_is_latched_to() {
    let ice = |line: &'static str| [line, "a=ice-ufrag:abcd"];
    let world = call(latching(), &ice(OFFER[0]), &ice(ANSWER[0]));
    assert_eq!(world.pinhole(10_000).latch, None);
}

#[test]
fn signalled_and_prefix_sources_lie_in_the_providers_prefixes() {
    let with = |source, prefix: &str| {
        let prefix = prefix.parse().unwrap();
        World::with_provider(|provider| {
            provider.media.source = source;
            provider.media.prefixes = vec![prefix];
        })
    };
    let inside = call(
        with(MediaSource::Signalled, "198.51.100.64/26"),
        &OFFER,
        &ANSWER,
    );
    inside.expect(&["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"]);
    call(
        with(MediaSource::Signalled, "192.0.2.0/24"),
        &OFFER,
        &ANSWER,
    )
    .expect_closed();
    let prefix = call(with(MediaSource::Prefix, "192.0.2.0/24"), &OFFER, &ANSWER);
    prefix.expect(&["10000 rtp 192.0.2.0/24", "10001 rtcp 192.0.2.0/24"]);
}
