//! Offers and answers inside a call: re-INVITE, UPDATE, PRACK, delayed offers, hold, glare, T.38.

use sipfilter_daemon::engine::Direction;

use crate::world::*;

const RTP: &str = "10000 rtp 198.51.100.77";
const RTCP: &str = "10001 rtcp 198.51.100.77";
const HELD: [&str; 2] = [
    "10000 rtp 198.51.100.77 held",
    "10001 rtcp 198.51.100.77 held",
];

fn ack(cseq: u32) -> Msg {
    request("ACK", cseq)
        .to("callee")
        .branch(&format!("z9hG4bK-ack-{cseq}"))
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
fn hold_in_every_form_keeps_the_pinhole_and_lengthens_its_patience() {
    let hold = |address: &str, port: u16, direction: &str| {
        let media = format!("m=audio {port} RTP/AVP 8");
        sdp_of(address, &[&media, direction])
    };
    let forms = [
        ("a=sendonly", "a=recvonly", MEDIA, PBX),
        ("a=inactive", "a=inactive", MEDIA, PBX),
        ("a=sendrecv", "a=sendrecv", "0.0.0.0", PBX),
        ("a=inactive", "a=inactive", "0.0.0.0", "0.0.0.0"),
    ];
    for (offered, answered, remote, local) in forms {
        let mut world = World::new();
        world.inbound_call();
        // The provider holds.
        world.provider_sends(
            request("INVITE", 2)
                .to("callee")
                .sdp(hold(remote, 20_000, offered)),
        );
        world.pbx_sends(response(200, "INVITE", 2).sdp(hold(local, 10_000, answered)));
        world.provider_sends(ack(2));
        world.expect(&HELD);
        assert!(world.call(0).hold);
        // And resumes.
        world.provider_sends(request("INVITE", 3).to("callee").sdp(sdp(MEDIA, 20_000)));
        world.pbx_sends(response(200, "INVITE", 3).sdp(sdp(PBX, 10_000)));
        world.provider_sends(ack(3));
        world.expect(&[RTP, RTCP]);
        assert!(!world.call(0).hold);
        // The PBX holds.
        world.pbx_sends(
            request("INVITE", 9)
                .by_callee()
                .sdp(hold(local, 10_000, offered)),
        );
        world.provider_sends(
            response(200, "INVITE", 9)
                .by_callee()
                .sdp(hold(remote, 20_000, answered)),
        );
        world.pbx_sends(request("ACK", 9).by_callee().branch("z9hG4bK-ack-9"));
        if offered != "a=sendrecv" {
            world.expect(&HELD);
        }
        assert_eq!(world.refusals(), []);
    }
}

#[test]
fn hold_with_the_ipv6_unspecified_address_keeps_the_ipv6_pinhole() {
    let mut world = World::new();
    let remote = "2001:db8:77::1";
    let held = "[2001:db8::10]:10000 rtp 2001:db8:77::1 held";
    for (cseq, address) in [(1, remote), (2, "::")] {
        let mut invite = request("INVITE", cseq).sdp(sdp(address, 20_000));
        if cseq > 1 {
            invite = invite.to("callee");
        }
        world.datagram(Direction::Ingress, PROVIDER6, PBX6, &invite.bytes());
        let answer = response(200, "INVITE", cseq).sdp(sdp(PBX6, 10_000));
        world.datagram(Direction::Egress, PBX6, PROVIDER6, &answer.bytes());
        world.datagram(Direction::Ingress, PROVIDER6, PBX6, &ack(cseq).bytes());
    }
    world.expect(&[held, "[2001:db8::10]:10001 rtcp 2001:db8:77::1 held"]);
}

#[test]
fn a_held_party_may_send_from_its_music_server_and_from_before() {
    let mut world = World::new();
    world.inbound_call();
    let music = sdp_of("198.51.100.90", &["m=audio 20000 RTP/AVP 8", "a=sendonly"]);
    world.provider_sends(request("INVITE", 2).to("callee").sdp(music));
    world.pbx_sends(
        response(200, "INVITE", 2).sdp(sdp_of(PBX, &["m=audio 10000 RTP/AVP 8", "a=recvonly"])),
    );
    world.provider_sends(ack(2));
    world.expect(&[
        "10000 rtp 198.51.100.77 198.51.100.90 held",
        "10001 rtcp 198.51.100.77 198.51.100.90 held",
    ]);
}

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

fn update(cseq: u32, address: &str) -> Msg {
    request("UPDATE", cseq)
        .to("callee")
        .sdp(sdp(address, 20_000))
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
fn an_update_in_a_dialog_older_than_this_run_opens_its_media_before_the_invite_is_answered() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(request("UPDATE", 3).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "UPDATE", 3).sdp(sdp(PBX, 10_000)));
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
fn hold_by_one_side_is_hold_even_if_the_other_does_not_say_so() {
    let sendonly = |address: &str, port: u16| {
        sdp_of(
            address,
            &[&format!("m=audio {port} RTP/AVP 8"), "a=sendonly"],
        )
    };
    for (ours, theirs) in [
        (sendonly(PBX, 10_000), sdp(MEDIA, 20_000)),
        (sdp(PBX, 10_000), sendonly(MEDIA, 20_000)),
    ] {
        let mut world = World::new();
        world.pbx_sends(request("INVITE", 1).sdp(ours));
        world.provider_sends(response(200, "INVITE", 1).sdp(theirs));
        world.expect(&HELD);
    }
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
