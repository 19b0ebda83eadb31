//! UPDATE (RFC 3311), and what is under way meanwhile.

use super::*;

#[test]
fn an_update_moves_media_and_the_old_stays_for_what_is_under_way() {
    let mut world = World::new();
    world.inbound_call();
    world.pbx_sends(request("UPDATE", 5).by_callee().sdp(sdp(PBX, 10_010)));
    world.provider_sends(
        response(200, "UPDATE", 5)
            .by_callee()
            .sdp(sdp(MEDIA, 20_000)),
    );
    world.expect(&[
        RTP,
        RTCP,
        "10010 rtp 198.51.100.77",
        "10011 rtcp 198.51.100.77",
    ]);
    world.wait_secs(9);
    world.expect(&["10010 rtp 198.51.100.77", "10011 rtcp 198.51.100.77"]);
    // Rejected: as if it had never been.
    world.pbx_sends(request("UPDATE", 6).by_callee().sdp(sdp(PBX, 10_020)));
    world.provider_sends(response(504, "UPDATE", 6).by_callee());
    world.expect(&["10010 rtp 198.51.100.77", "10011 rtcp 198.51.100.77"]);
    // A replay of the first one is old news.
    world.pbx_sends(request("UPDATE", 5).by_callee().sdp(sdp(PBX, 10_000)));
    world.expect(&["10010 rtp 198.51.100.77", "10011 rtcp 198.51.100.77"]);
}

/// A call of the provider's that rings with early media, and its UPDATE to another media server, which the PBX answers on another port.
fn updated_while_ringing() -> World {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(183, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("PRACK", 2).to("callee"));
    world.pbx_sends(response(200, "PRACK", 2));
    world.provider_sends(update(3, "198.51.100.78"));
    world.pbx_sends(response(200, "UPDATE", 3).sdp(sdp(PBX, 10_010)));
    world
}

const BEFORE_AND_AFTER_UPDATE: [&str; 4] = [
    RTP,
    RTCP,
    "10010 rtp 198.51.100.78",
    "10011 rtcp 198.51.100.78",
];

#[test]
fn the_ack_of_the_invite_does_not_say_that_the_answer_to_an_update_has_arrived() {
    let mut world = updated_while_ringing();
    world.expect(&BEFORE_AND_AFTER_UPDATE);
    // The answer to the UPDATE was lost; that to the INVITE was not. The provider sends as before until the first is repeated.
    world.pbx_sends(response(200, "INVITE", 1));
    world.provider_sends(ack(1));
    world.expect(&BEFORE_AND_AFTER_UPDATE);
    world.wait_secs(7);
    world.provider_sends(update(3, "198.51.100.78"));
    world.pbx_sends(response(200, "UPDATE", 3).sdp(sdp(PBX, 10_010)));
    world.expect(&BEFORE_AND_AFTER_UPDATE);
    world.wait_secs(1);
    world.expect(&BEFORE_AND_AFTER_UPDATE[2..]);
}

#[test]
fn who_makes_the_next_offer_has_the_last_answer() {
    let mut world = updated_while_ringing();
    world.provider_sends(update(4, "198.51.100.79"));
    world.expect(&BEFORE_AND_AFTER_UPDATE[2..]);
    // The PBX's own offer says nothing of the kind.
    let mut world = updated_while_ringing();
    world.pbx_sends(request("UPDATE", 9).by_callee().sdp(sdp(PBX, 10_010)));
    world.expect(&[
        RTP,
        RTCP,
        "10010 rtp 198.51.100.77 198.51.100.78",
        "10011 rtcp 198.51.100.77 198.51.100.78",
    ]);
}

#[test]
fn what_the_provider_has_left_by_its_own_answer_goes_sooner() {
    let mut world = World::new();
    world.inbound_call();
    world.pbx_sends(request("UPDATE", 5).by_callee().sdp(sdp(PBX, 10_010)));
    world.provider_sends(
        response(200, "UPDATE", 5)
            .by_callee()
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    world.expect(&BEFORE_AND_AFTER_UPDATE);
    // Packets that were under way.
    world.wait(std::time::Duration::from_millis(1_900));
    world.expect(&BEFORE_AND_AFTER_UPDATE);
    world.wait(std::time::Duration::from_millis(100));
    world.expect(&BEFORE_AND_AFTER_UPDATE[2..]);
}

#[test]
fn an_update_before_the_200_replaces_the_early_answer() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp("198.51.100.70", 20_000)));
    world.pbx_sends(request("PRACK", 2).to("callee"));
    world.provider_sends(response(200, "PRACK", 2));
    world.provider_sends(request("UPDATE", 90).by_callee().sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(
        response(200, "UPDATE", 90)
            .by_callee()
            .sdp(sdp(PBX, 10_000)),
    );
    world.expect(&[
        "10000 rtp 198.51.100.70 198.51.100.77",
        "10001 rtcp 198.51.100.70 198.51.100.77",
    ]);
    world.wait_secs(9);
    world.expect(&[RTP, RTCP]);
    world.provider_sends(response(200, "INVITE", 1));
    world.pbx_sends(ack(1));
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn an_update_in_a_dialog_older_than_this_run_opens_its_media_before_the_invite_is_answered() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(request("UPDATE", 3).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "UPDATE", 3).sdp(sdp(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn sdp_in_a_200_behind_an_update_adds_and_takes_nothing_away() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp("198.51.100.70", 20_000)));
    world.provider_sends(request("UPDATE", 90).by_callee().sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(
        response(200, "UPDATE", 90)
            .by_callee()
            .sdp(sdp(PBX, 10_000)),
    );
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp("198.51.100.78", 20_000)));
    world.pbx_sends(ack(1));
    world.wait_secs(8);
    world.expect(&[
        "10000 rtp 198.51.100.77 198.51.100.78",
        "10001 rtcp 198.51.100.77 198.51.100.78",
    ]);
}
