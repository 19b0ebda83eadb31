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
