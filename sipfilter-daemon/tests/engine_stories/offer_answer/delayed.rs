//! Offers that come with the answer to an INVITE or with a PRACK, not with the INVITE.

use super::*;

#[test]
fn a_delayed_offer_is_answered_in_the_ack() {
    // The provider leaves the offer to the PBX.
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect_closed();
    world.provider_sends(ack(1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[RTP, RTCP]);
    // The PBX leaves the offer to the provider.
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1));
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect_closed();
    world.pbx_sends(ack(1).sdp(sdp(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_late_ack_answers_a_delayed_offer_even_behind_its_senders_next_invite() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    // The first ACKs were lost; the PBX refuses the next INVITE as long as it waits for one.
    world.provider_sends(
        request("INVITE", 2)
            .to("callee")
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    world.pbx_sends(response(491, "INVITE", 2));
    world.provider_sends(ack(1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_delayed_offer_in_a_reinvite_keeps_the_old_until_the_ack() {
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(request("INVITE", 2).to("callee"));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_010)));
    world.provider_sends(ack(2).sdp(sdp("198.51.100.78", 20_000)));
    world.wait_secs(9);
    world.expect(&["10010 rtp 198.51.100.78", "10011 rtcp 198.51.100.78"]);
}

#[test]
fn a_reliable_offer_is_answered_in_the_prack() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect_closed();
    world.pbx_sends(request("PRACK", 2).to("callee").sdp(sdp(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
    world.provider_sends(response(200, "PRACK", 2));
    // Some repeat the offer in the 200: nobody answers that one.
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(ack(1));
    world.wait_secs(60);
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.state(), "confirmed");
}

#[test]
fn a_prack_may_bring_an_offer_of_its_own() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(request("PRACK", 2).to("callee").sdp(sdp(PBX, 10_010)));
    world.provider_sends(response(200, "PRACK", 2).sdp(sdp("198.51.100.78", 20_000)));
    world.provider_sends(response(200, "INVITE", 1));
    world.pbx_sends(ack(1));
    world.wait_secs(2);
    world.expect(&["10010 rtp 198.51.100.78", "10011 rtcp 198.51.100.78"]);
}

#[test]
fn a_delayed_offer_that_the_ack_does_not_answer_is_void() {
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(request("INVITE", 2).to("callee"));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_010)));
    world.expect(&[
        RTP,
        RTCP,
        "10010 rtp 198.51.100.77",
        "10011 rtcp 198.51.100.77",
    ]);
    world.provider_sends(ack(2));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_late_copy_of_a_delayed_reinvite_brings_no_old_port_back() {
    let mut world = World::new();
    world.inbound_call();
    let reinvite = request("INVITE", 2).to("callee");
    let offer = response(200, "INVITE", 2).sdp(sdp(PBX, 10_010));
    world.provider_sends(reinvite.clone());
    world.pbx_sends(offer.clone());
    world.provider_sends(ack(2).sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(update(3, MEDIA));
    world.pbx_sends(response(200, "UPDATE", 3).sdp(sdp(PBX, 10_020)));
    world.wait_secs(8);
    let now = ["10020 rtp 198.51.100.77", "10021 rtcp 198.51.100.77"];
    world.expect(&now);
    world.provider_sends(reinvite);
    world.pbx_sends(offer);
    world.expect(&now);
}
