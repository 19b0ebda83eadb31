//! Offers and answers inside a call: re-INVITE, glare, T.38, early media; `update`, `delayed` and `hold` have what they say.

mod delayed;
mod hold;
mod update;

use crate::world::*;

const RTP: &str = "10000 rtp 198.51.100.77";
const RTCP: &str = "10001 rtcp 198.51.100.77";

fn ack(cseq: u32) -> Msg {
    request("ACK", cseq)
        .to("callee")
        .branch(&format!("z9hG4bK-ack-{cseq}"))
}

fn update(cseq: u32, address: &str) -> Msg {
    request("UPDATE", cseq)
        .to("callee")
        .sdp(sdp(address, 20_000))
}

#[test]
fn a_reinvite_of_the_pbx_opens_its_new_ports_at_once_and_closes_the_old_with_the_ack() {
    let mut world = World::new();
    world.outbound_call();
    world.pbx_sends(request("INVITE", 2).to("callee").sdp(sdp(PBX, 10_010)));
    world.expect(&[
        RTP,
        RTCP,
        "10010 rtp 198.51.100.77",
        "10011 rtcp 198.51.100.77",
    ]);
    world.provider_sends(response(200, "INVITE", 2).sdp(sdp("198.51.100.78", 20_000)));
    world.expect(&[
        RTP,
        RTCP,
        "10010 rtp 198.51.100.78",
        "10011 rtcp 198.51.100.78",
    ]);
    world.pbx_sends(ack(2));
    world.expect(&["10010 rtp 198.51.100.78", "10011 rtcp 198.51.100.78"]);
}

#[test]
fn a_reinvite_of_the_provider_moves_its_sources_once_it_has_the_answer() {
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(
        request("INVITE", 2)
            .to("callee")
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    world.expect(&[RTP, RTCP]);
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    world.expect(&[
        "10000 rtp 198.51.100.77 198.51.100.78",
        "10001 rtcp 198.51.100.77 198.51.100.78",
    ]);
    world.provider_sends(ack(2));
    world.expect(&["10000 rtp 198.51.100.78", "10001 rtcp 198.51.100.78"]);
}

#[test]
fn a_callees_reinvite_works_the_same_with_the_tags_turned() {
    let mut world = World::new();
    world.outbound_call();
    world.provider_sends(
        request("INVITE", 50)
            .by_callee()
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    world.pbx_sends(
        response(200, "INVITE", 50)
            .by_callee()
            .sdp(sdp(PBX, 10_000)),
    );
    world.provider_sends(request("ACK", 50).by_callee().branch("z9hG4bK-ack-50"));
    world.expect(&["10000 rtp 198.51.100.78", "10001 rtcp 198.51.100.78"]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_rejected_reinvite_leaves_the_old_media() {
    for status in [488, 491, 500, 401] {
        let mut world = World::new();
        world.outbound_call();
        world.pbx_sends(request("INVITE", 2).to("callee").sdp(sdp(PBX, 10_010)));
        world.provider_sends(response(status, "INVITE", 2));
        world.expect(&[RTP, RTCP]);
        world.pbx_sends(request("ACK", 2).to("callee"));
        world.expect(&[RTP, RTCP]);
        assert_eq!(world.state(), "confirmed");
        assert_eq!(world.refusals(), []);
    }
}

#[test]
fn glare_rejects_both_and_the_second_attempt_counts() {
    let mut world = World::new();
    world.outbound_call();
    world.pbx_sends(request("INVITE", 2).to("callee").sdp(sdp(PBX, 10_010)));
    world.provider_sends(
        request("INVITE", 50)
            .by_callee()
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    world.provider_sends(response(491, "INVITE", 2));
    world.pbx_sends(response(491, "INVITE", 50).by_callee());
    world.expect(&[RTP, RTCP]);
    world.pbx_sends(request("INVITE", 3).to("callee").sdp(sdp(PBX, 10_010)));
    world.provider_sends(response(200, "INVITE", 3).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(ack(3));
    world.expect(&["10010 rtp 198.51.100.77", "10011 rtcp 198.51.100.77"]);
}

#[test]
fn an_ack_that_comes_again_does_not_cut_the_next_change_short() {
    let mut world = World::new();
    world.inbound_call();
    // The provider re-INVITEs, and its ACK is repeated because the 200 was.
    let reinvite_ack = ack(2);
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    world.provider_sends(reinvite_ack.clone());
    // In between, an UPDATE moves the PBX's port. The provider sends to the old one until it has the answer.
    world.provider_sends(request("UPDATE", 3).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "UPDATE", 3).sdp(sdp(PBX, 10_010)));
    let both = [
        RTP,
        RTCP,
        "10010 rtp 198.51.100.77",
        "10011 rtcp 198.51.100.77",
    ];
    world.expect(&both);
    world.provider_sends(reinvite_ack);
    world.expect(&both);
    // The same with a further INVITE in the UPDATE's place: its own ACK counts.
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_010)));
    world.provider_sends(ack(1));
    world.expect(&both);
    world.provider_sends(ack(2));
    world.expect(&both[2..]);
}

#[test]
fn a_late_copy_of_a_reinvite_opens_nothing_after_the_bye() {
    let mut world = World::new();
    world.inbound_call();
    let reinvite = request("INVITE", 2).to("callee");
    let offer = response(200, "INVITE", 2).sdp(sdp(PBX, 10_010));
    let answer = ack(2).sdp(sdp(MEDIA, 20_000));
    world.provider_sends(reinvite.clone());
    world.pbx_sends(offer.clone());
    world.provider_sends(answer.clone());
    world.pbx_sends(request("BYE", 9).by_callee());
    world.expect_closed();
    world.provider_sends(reinvite);
    world.pbx_sends(offer);
    world.provider_sends(answer);
    world.expect_closed();
}

#[test]
fn a_200_without_sdp_confirms_the_early_answer() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(183, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("PRACK", 2).to("callee"));
    world.pbx_sends(response(200, "INVITE", 1));
    world.provider_sends(ack(1));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_200_without_sdp_to_a_reinvite_settles_what_the_183_answered_and_nothing_else() {
    let answered = ["10010 rtp 198.51.100.78", "10011 rtcp 198.51.100.78"];
    for (early_answer, settled) in [
        (Some(sdp("198.51.100.78", 20_000)), answered),
        (None, [RTP, RTCP]),
    ] {
        let mut world = World::new();
        world.outbound_call();
        world.pbx_sends(request("INVITE", 2).to("callee").sdp(sdp(PBX, 10_010)));
        if let Some(body) = early_answer {
            world.provider_sends(response(183, "INVITE", 2).sdp(body));
        }
        world.provider_sends(response(200, "INVITE", 2));
        world.pbx_sends(ack(2));
        world.expect(&settled);
    }
}

#[test]
fn t38_on_the_same_port_and_back() {
    let mut world = World::new();
    world.inbound_call();
    let image = |address: &str, port: u16| sdp_of(address, &[&format!("m=image {port} udptl t38")]);
    world.pbx_sends(request("INVITE", 5).by_callee().sdp(image(PBX, 10_000)));
    // Both may come on this port for now; UDPTL cannot be told by its looks.
    world.expect(&["10000 udptl 198.51.100.77", RTCP]);
    world.provider_sends(
        response(200, "INVITE", 5)
            .by_callee()
            .sdp(image(MEDIA, 20_000)),
    );
    world.pbx_sends(request("ACK", 5).by_callee().branch("z9hG4bK-ack-5"));
    world.expect(&["10000 udptl 198.51.100.77"]);
    world.pbx_sends(request("INVITE", 6).by_callee().sdp(sdp(PBX, 10_000)));
    world.provider_sends(
        response(200, "INVITE", 6)
            .by_callee()
            .sdp(sdp(MEDIA, 20_000)),
    );
    world.pbx_sends(request("ACK", 6).by_callee().branch("z9hG4bK-ack-6"));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn t38_that_is_refused_leaves_the_voice() {
    let mut world = World::new();
    world.inbound_call();
    let image = sdp_of(PBX, &["m=image 10000 udptl t38"]);
    world.pbx_sends(request("INVITE", 5).by_callee().sdp(image));
    world.provider_sends(response(488, "INVITE", 5).by_callee());
    world.expect(&[RTP, RTCP]);
}

#[test]
fn on_offer_opens_the_pbxs_port_until_an_answer_narrows_it() {
    let mut world = World::with_on_offer();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&["10000 rtp 0.0.0.0/0", "10001 rtcp 0.0.0.0/0"]);
    world.provider_sends(response(180, "INVITE", 1));
    world.expect(&["10000 rtp 0.0.0.0/0", "10001 rtcp 0.0.0.0/0"]);
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn on_offer_stays_within_the_providers_prefixes() {
    let mut world = World::with_provider(|provider| {
        provider.early_media = sipfilter_daemon::engine::settings::EarlyMedia::OnOffer;
        provider.media.prefixes = vec!["198.51.100.64/26".parse().unwrap()];
    });
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&["10000 rtp 198.51.100.64/26", "10001 rtcp 198.51.100.64/26"]);
    world.provider_sends(response(486, "INVITE", 1));
    world.expect_closed();
}

#[test]
fn on_offer_opens_nothing_for_calls_that_the_provider_makes() {
    let mut world = World::with_on_offer();
    world.provider_sends(request("INVITE", 1));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect_closed();
}

#[test]
fn a_session_refresh_counts_the_silence_anew() {
    let mut world = World::new();
    world.inbound_call();
    let actions = world.actions;
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    world.provider_sends(ack(2));
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.actions, actions + 2, "one update for each pinhole");
    world.provider_sends(request("UPDATE", 3).to("callee"));
    world.pbx_sends(response(200, "UPDATE", 3));
    assert_eq!(world.actions, actions + 4);
}

#[test]
fn what_was_before_stays_until_a_lost_200_has_been_repeated() {
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(
        request("INVITE", 2)
            .to("callee")
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    let answer = response(200, "INVITE", 2).sdp(sdp(PBX, 10_000));
    world.pbx_sends(answer.clone());
    world.wait_secs(20);
    world.pbx_sends(answer);
    world.expect(&[
        "10000 rtp 198.51.100.77 198.51.100.78",
        "10001 rtcp 198.51.100.77 198.51.100.78",
    ]);
    world.wait_secs(13);
    world.expect(&["10000 rtp 198.51.100.78", "10001 rtcp 198.51.100.78"]);
}

#[test]
fn a_reinvite_that_adds_a_stream_opens_it_with_the_answer() {
    let two = |address: &str, audio: u16| {
        let (audio, video) = (
            format!("m=audio {audio} RTP/AVP 8"),
            format!("m=video {} RTP/AVP 99", audio + 2),
        );
        sdp_of(address, &[&audio, &video])
    };
    let mut world = World::new();
    world.outbound_call();
    world.pbx_sends(request("INVITE", 2).to("callee").sdp(two(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
    world.provider_sends(response(200, "INVITE", 2).sdp(two(MEDIA, 20_000)));
    world.expect(&[
        RTP,
        RTCP,
        "10002 rtp 198.51.100.77",
        "10003 rtcp 198.51.100.77",
    ]);
    // Where early media is let in, the new stream's is too, if the call is one that the PBX made.
    let mut world = World::with_on_offer();
    world.outbound_call();
    world.pbx_sends(request("INVITE", 2).to("callee").sdp(two(PBX, 10_000)));
    world.expect(&[RTP, RTCP, "10002 rtp 0.0.0.0/0", "10003 rtcp 0.0.0.0/0"]);
    let mut world = World::with_on_offer();
    world.inbound_call();
    world.pbx_sends(request("INVITE", 2).by_callee().sdp(two(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_reoffer_with_multiplexing_waits_for_rtcp_either_way() {
    let mux = |address: &str, port: u16| {
        sdp_of(
            address,
            &[&format!("m=audio {port} RTP/AVP 8"), "a=rtcp-mux"],
        )
    };
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(mux(PBX, 10_000)));
    world.provider_sends(response(200, "INVITE", 1).sdp(mux(MEDIA, 20_000)));
    world.pbx_sends(ack(1));
    world.expect(&[RTP]);
    world.pbx_sends(request("INVITE", 2).to("callee").sdp(mux(PBX, 10_010)));
    world.expect(&[RTP, "10010 rtp 198.51.100.77", "10011 rtcp 198.51.100.77"]);
    world.provider_sends(response(200, "INVITE", 2).sdp(mux(MEDIA, 20_000)));
    world.pbx_sends(ack(2));
    world.expect(&["10010 rtp 198.51.100.77"]);
}

#[test]
fn glare_is_told_apart_by_who_asks_even_with_equal_numbers() {
    let mut world = World::new();
    world.inbound_call();
    // Both sides UPDATE at once, with the same CSeq number and, by chance, the same branch.
    let both = |message: Msg| message.branch("z9hG4bK-both");
    world.provider_sends(both(update(7, "198.51.100.78")));
    world.pbx_sends(both(request("UPDATE", 7).by_callee().sdp(sdp(PBX, 10_010))));
    // The PBX's is refused, the provider's is not.
    world.provider_sends(both(response(491, "UPDATE", 7).by_callee()));
    world.pbx_sends(both(response(200, "UPDATE", 7)).sdp(sdp(PBX, 10_020)));
    world.wait_secs(8);
    world.expect(&["10020 rtp 198.51.100.78", "10021 rtcp 198.51.100.78"]);
}
