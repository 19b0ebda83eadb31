//! Floods of forged signalling: they cost neither calls in progress nor, for long, new ones.

use sipfilter_daemon::engine::{EndReason, Event, Refusal};

use crate::world::*;

const SMALL: usize = 4;

/// Room for four calls of the provider.
fn small() -> World {
    let mut settings = settings();
    settings.limits.calls_per_provider = SMALL;
    World::with(settings)
}

fn forged(n: usize) -> Msg {
    request("INVITE", 1)
        .call(&format!("forged-{n}"))
        .sdp(sdp("198.51.100.66", 20_000))
}

fn genuine(world: &mut World) {
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(100, "INVITE", 1));
}

fn answered(world: &mut World) {
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.expect(&["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"]);
}

#[test]
fn invites_that_the_pbx_never_answers_make_room_for_the_next() {
    let mut world = small();
    for n in 0..3 * SMALL {
        world.provider_sends(forged(n));
    }
    genuine(&mut world);
    for n in 0..3 * SMALL {
        world.provider_sends(forged(100 + n));
    }
    answered(&mut world);
    assert_eq!(world.engine.calls().count(), SMALL);
    let shed = 5 * SMALL + 1;
    assert_eq!(
        world.refusals(),
        vec![Refusal::TooManyCallsOfProvider; shed]
    );
    assert_eq!(world.ends(), vec![EndReason::Shed; shed]);
    // What is shed is the oldest, and says which call it was.
    assert!(matches!(
        world.events.iter().find(|event| matches!(event, Event::Refused { .. })),
        Some(Event::Refused { call: Some(number), .. }) if number.0 == 1
    ));
}

#[test]
fn invites_that_the_pbx_challenges_make_room_for_the_next() {
    let mut world = small();
    for n in 0..3 * SMALL {
        world.provider_sends(forged(n));
        world.pbx_sends(response(401, "INVITE", 1).call(&format!("forged-{n}")));
    }
    genuine(&mut world);
    answered(&mut world);
}

#[test]
fn invites_of_the_pbx_and_answered_ones_are_not_shed() {
    let mut world = small();
    for n in 0..SMALL / 2 {
        let call = format!("out-{n}");
        world.pbx_sends(request("INVITE", 1).call(&call).sdp(sdp(PBX, 10_000)));
        let call = format!("in-{n}");
        world.provider_sends(request("INVITE", 1).call(&call).sdp(sdp(MEDIA, 20_000)));
        world.pbx_sends(response(180, "INVITE", 1).call(&call));
    }
    for n in 0..SMALL {
        world.provider_sends(forged(n));
    }
    assert_eq!(world.ends(), []);
    assert_eq!(
        world.refusals(),
        vec![Refusal::TooManyCallsOfProvider; SMALL]
    );
}

#[test]
fn an_invite_without_any_response_is_given_up_after_64_t1() {
    let mut world = World::new();
    world.provider_sends(forged(1));
    world.wait_secs(33);
    assert_eq!(world.ends(), [EndReason::NoAnswer]);
    // A 100 is a response, and the caller waits on.
    let mut world = World::new();
    genuine(&mut world);
    world.wait_secs(290);
    answered(&mut world);
}

#[test]
fn a_call_id_with_many_failed_attempts_has_room_for_the_next() {
    let mut world = World::new();
    for cseq in 1..=20 {
        world.pbx_sends(request("INVITE", cseq).sdp(sdp(PBX, 10_000)));
        world.provider_sends(response(503, "INVITE", cseq));
    }
    world.pbx_sends(request("INVITE", 21).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(200, "INVITE", 21).sdp(sdp(MEDIA, 20_000)));
    world.expect(&["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn the_leg_that_answers_has_room_beside_many_that_only_rang() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    for n in 0..20 {
        world.provider_sends(response(180, "INVITE", 1).to(&format!("leg-{n}")));
    }
    world.provider_sends(
        response(200, "INVITE", 1)
            .to("winner")
            .sdp(sdp(MEDIA, 20_000)),
    );
    world.pbx_sends(request("ACK", 1).to("winner").branch("z9hG4bK-ack"));
    world.expect(&["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"]);
    assert_eq!(world.state(), "confirmed");
}

#[test]
fn a_call_that_moved_on_to_the_providers_next_server_ends_with_its_refusal() {
    let mut world = World::with_on_offer();
    let invite = request("INVITE", 1).sdp(sdp(PBX, 10_000));
    world.pbx_sends(invite.clone().branch("z9hG4bK-silent"));
    world.wait_secs(4);
    world.pbx_sends(invite.branch("z9hG4bK-next"));
    world.provider_sends(response(100, "INVITE", 1).branch("z9hG4bK-next"));
    world.provider_sends(response(486, "INVITE", 1).branch("z9hG4bK-next"));
    world.wait_secs(33);
    world.expect_closed();
    assert_eq!(world.ends().len(), 1);
}

#[test]
fn the_newest_call_on_a_port_has_its_source_whatever_older_ones_left_behind() {
    // The ends of four calls were lost on the way to us; the PBX has long given their port to a fifth.
    let mut world = World::new();
    for n in 1..=5 {
        let this = |message: Msg| message.call(&format!("call-{n}"));
        let media = format!("198.51.100.7{n}");
        world.provider_sends(this(request("INVITE", 1)).sdp(sdp(&media, 20_000)));
        world.pbx_sends(this(response(200, "INVITE", 1)).sdp(sdp(PBX, 10_000)));
        let ack = request("ACK", 1).to("callee").branch("z9hG4bK-ack");
        world.provider_sends(this(ack));
        let newest = world.pinhole(10_000).sources.iter();
        assert!(
            newest
                .into_iter()
                .any(|source| source.net.to_string().starts_with(&media))
        );
    }
    assert_eq!(world.refusals(), [Refusal::TooManySources; 2]);
}

#[test]
fn the_leg_that_answered_and_the_newest_have_their_sources_beside_many_that_rang() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    let leg = |n: u8, status| {
        response(status, "INVITE", 1)
            .to(&format!("leg-{n}"))
            .sdp(sdp(&format!("198.51.100.7{n}"), 20_000))
    };
    for n in 0..6 {
        world.provider_sends(leg(n, 183));
    }
    world.expect(&[
        "10000 rtp 198.51.100.72 198.51.100.73 198.51.100.74 198.51.100.75",
        "10001 rtcp 198.51.100.72 198.51.100.73 198.51.100.74 198.51.100.75",
    ]);
    world.provider_sends(leg(0, 200));
    world.expect(&[
        "10000 rtp 198.51.100.70 198.51.100.73 198.51.100.74 198.51.100.75",
        "10001 rtcp 198.51.100.70 198.51.100.73 198.51.100.74 198.51.100.75",
    ]);
}
