//! What a daemon makes of calls that are older than itself: the kernel still has their pinholes, and no message may cost them.

use sipfilter_daemon::engine::Direction;

use crate::world::*;

const MOVED: [&str; 2] = ["10000 rtp 198.51.100.78", "10001 rtcp 198.51.100.78"];

fn reinvite(cseq: u32) -> Msg {
    request("INVITE", cseq)
        .to("callee")
        .sdp(sdp("198.51.100.78", 20_000))
}

fn ours(cseq: u32) -> Msg {
    request("INVITE", cseq).by_callee().sdp(sdp(PBX, 10_000))
}

fn answer(cseq: u32) -> Msg {
    response(200, "INVITE", cseq).sdp(sdp(PBX, 10_000))
}

#[test]
fn a_challenged_reinvite_is_taken_up_with_its_second_attempt() {
    let mut world = World::new();
    world.pbx_sends(ours(7));
    world.provider_sends(response(407, "INVITE", 7).by_callee());
    world.pbx_sends(request("ACK", 7).by_callee().branch("z9hG4bK-INVITE-7"));
    world.pbx_sends(ours(8));
    world.provider_sends(
        response(200, "INVITE", 8)
            .by_callee()
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    world.pbx_sends(request("ACK", 8).by_callee().branch("z9hG4bK-ack-8"));
    world.expect(&MOVED);
    assert_eq!(world.refusals(), []);
    world.provider_sends(request("BYE", 3).to("callee"));
    world.expect_closed();
}

#[test]
fn after_a_rejected_reinvite_the_other_sides_is_taken_up() {
    for status in [488, 491] {
        let mut world = World::new();
        world.pbx_sends(ours(7));
        world.provider_sends(response(status, "INVITE", 7).by_callee());
        world.provider_sends(reinvite(3));
        world.pbx_sends(answer(3));
        world.expect(&MOVED);
    }
}

#[test]
fn a_rejected_reinvite_leaves_the_pinholes_of_the_call_alone() {
    for status in [407, 488, 491] {
        let mut world = World::with_on_offer();
        world.pbx_sends(ours(7));
        world.provider_sends(response(status, "INVITE", 7).by_callee());
        world.wait_secs(100);
        assert_eq!(world.actions, 0, "what the kernel has must not be touched");
    }
}

#[test]
fn both_legs_of_a_proxied_call_are_taken_up() {
    let mut world = World::new();
    world.sends(Direction::Ingress, reinvite(7).branch("z9hG4bK-in"));
    let on = request("INVITE", 7).to("callee").sdp(sdp(PBX, 10_002));
    world.pbx_sends(on.branch("z9hG4bK-out"));
    world.provider_sends(
        response(200, "INVITE", 7)
            .branch("z9hG4bK-out")
            .sdp(sdp("198.51.100.79", 20_000)),
    );
    world.pbx_sends(answer(7).branch("z9hG4bK-in"));
    world.expect(&[
        MOVED[0],
        MOVED[1],
        "10002 rtp 198.51.100.79",
        "10003 rtcp 198.51.100.79",
    ]);
}

/// A world whose kernel has the pinholes of an established call, and whose engine was told of them as a new daemon is.
fn after_a_restart() -> World {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.expect(&OPEN);
    world.restart();
    world
}

const OPEN: [&str; 2] = ["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"];

#[test]
fn the_bye_of_a_call_that_is_older_than_the_daemon_closes_its_pinholes() {
    for bye in [true, false] {
        let mut world = after_a_restart();
        if bye {
            world.provider_sends(request("BYE", 2).to("callee"));
        } else {
            world.pbx_sends(request("BYE", 7).by_callee());
        }
        world.expect_closed();
        assert_eq!(world.refusals(), []);
    }
}

#[test]
fn a_bye_of_another_call_or_of_another_provider_closes_nothing_of_an_older_call() {
    let mut world = after_a_restart();
    world.provider_sends(request("BYE", 2).to("callee").from("stranger"));
    world.provider_sends(request("BYE", 2).to("callee").call("call-2@example.com"));
    world.other_provider_sends(request("BYE", 2).to("callee"));
    world.expect(&OPEN);
}

#[test]
fn a_reinvite_moves_the_pinholes_of_a_call_that_is_older_than_the_daemon() {
    let mut world = after_a_restart();
    world.provider_sends(reinvite(3));
    world.expect(&OPEN);
    world.pbx_sends(response(200, "INVITE", 3).sdp(sdp(PBX, 10_002)));
    // Whoever asked may still be sending as before.
    world.expect(&[
        OPEN[0],
        OPEN[1],
        "10002 rtp 198.51.100.78",
        "10003 rtcp 198.51.100.78",
    ]);
    world.provider_sends(request("ACK", 3).to("callee").branch("z9hG4bK-ack-3"));
    world.expect(&["10002 rtp 198.51.100.78", "10003 rtcp 198.51.100.78"]);
    world.pbx_sends(request("BYE", 7).by_callee());
    world.expect_closed();
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_rejected_reinvite_leaves_an_older_call_as_it_was() {
    let mut world = after_a_restart();
    world.pbx_sends(ours(7));
    world.provider_sends(response(488, "INVITE", 7).by_callee());
    world.pbx_sends(request("ACK", 7).by_callee().branch("z9hG4bK-INVITE-7"));
    world.wait_secs(60);
    world.expect(&OPEN);
    world.provider_sends(request("BYE", 2).to("callee"));
    world.expect_closed();
}

#[test]
fn an_older_call_that_falls_silent_loses_its_pinholes_together() {
    let mut world = after_a_restart();
    world.silence(10_001);
    world.expect(&OPEN);
    world.silence(10_000);
    world.silence(10_001);
    world.expect_closed();
}

#[test]
fn a_call_survives_any_number_of_restarts() {
    let mut world = after_a_restart();
    world.restart();
    world.provider_sends(reinvite(3));
    world.pbx_sends(answer(3));
    world.provider_sends(request("ACK", 3).to("callee").branch("z9hG4bK-ack-3"));
    world.restart();
    world.expect(&MOVED);
    world.pbx_sends(request("BYE", 9).by_callee());
    world.expect_closed();
}

#[test]
fn calls_go_on_under_new_settings_while_their_provider_is_in_them() {
    for restart in [false, true] {
        let mut world = after_a_restart();
        if !restart {
            world = World::new();
            world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
            world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
        }
        let mut changed = settings();
        changed.providers.reverse();
        world.reconfigure(changed.clone());
        world.expect(&OPEN);
        changed.providers.truncate(1);
        world.reconfigure(changed);
        world.expect_closed();
    }
}
