//! How calls begin: both directions, early media, forks, challenges, retransmissions.

use sipfilter_daemon::engine::{Direction, EndReason, Refusal};

use crate::world::*;

const RTP: &str = "10000 rtp 198.51.100.77";
const RTCP: &str = "10001 rtcp 198.51.100.77";

#[test]
fn an_inbound_call_opens_once_both_sides_have_spoken_and_closes_with_bye() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect_closed();
    world.pbx_sends(response(100, "INVITE", 1));
    world.pbx_sends(response(180, "INVITE", 1));
    world.expect_closed();
    assert_eq!(world.state(), "ringing");
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    assert_eq!(world.state(), "confirmed");
    let view = world.call(0);
    assert_eq!(view.direction, Direction::Ingress);
    assert_eq!(view.provider, FIRST);
    assert_eq!(view.local_media, ["192.0.2.10:10000".parse().unwrap()]);
    assert_eq!(view.remote_media, ["198.51.100.77:20000".parse().unwrap()]);
    assert!(!view.hold);
    world.provider_sends(request("BYE", 2).to("callee"));
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Bye(Direction::Ingress)]);
    assert_eq!(world.refusals(), []);
    world.wait_secs(33);
    assert_eq!(world.engine.calls().count(), 0);
    assert_eq!(world.engine.poll_timeout(), None);
}

#[test]
fn an_outbound_call_opens_with_the_answer_and_closes_with_the_callees_bye() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect_closed();
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[RTP, RTCP]);
    world.pbx_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.provider_sends(request("BYE", 7).by_callee());
    world.expect_closed();
    assert_eq!(world.refusals(), []);
}

#[test]
fn ipv6_calls_open_ipv6_pinholes() {
    let mut world = World::new();
    let remote = "2001:db8:77::1";
    let invite = request("INVITE", 1).sdp(sdp(remote, 20_000));
    world.datagram(Direction::Ingress, PROVIDER6, PBX6, &invite.bytes());
    let answer = response(200, "INVITE", 1).sdp(sdp(PBX6, 10_000));
    world.datagram(Direction::Egress, PBX6, PROVIDER6, &answer.bytes());
    world.expect(&[
        "[2001:db8::10]:10000 rtp 2001:db8:77::1",
        "[2001:db8::10]:10001 rtcp 2001:db8:77::1",
    ]);
}

#[test]
fn address_families_are_never_mixed_in_one_pinhole() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp("2001:db8:77::1", 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect_closed();
}

#[test]
fn early_media_opens_with_a_183() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[RTP, RTCP]);
    let actions = world.actions;
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.actions, actions, "nothing had to change");
}

#[test]
fn the_final_answer_replaces_the_provisional_one_once_it_is_acknowledged() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp("198.51.100.70", 20_000)));
    world.expect(&["10000 rtp 198.51.100.70", "10001 rtcp 198.51.100.70"]);
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[
        "10000 rtp 198.51.100.70 198.51.100.77",
        "10001 rtcp 198.51.100.70 198.51.100.77",
    ]);
    world.pbx_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_200_that_overtakes_the_183_wins() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp("198.51.100.70", 20_000)));
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn retransmissions_change_nothing() {
    let mut world = World::new();
    let script = [
        (
            Direction::Egress,
            request("INVITE", 1).sdp(sdp(PBX, 10_000)),
        ),
        (Direction::Ingress, response(100, "INVITE", 1)),
        (
            Direction::Ingress,
            response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000)),
        ),
        (
            Direction::Ingress,
            response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)),
        ),
        (
            Direction::Egress,
            request("ACK", 1).to("callee").branch("z9hG4bK-ack"),
        ),
    ];
    for (direction, message) in &script {
        for _ in 0..3 {
            world.sends(*direction, message.clone());
        }
    }
    assert_eq!(world.actions, 2);
    for (direction, message) in &script {
        world.sends(*direction, message.clone());
    }
    assert_eq!(world.actions, 2);
    world.expect(&[RTP, RTCP]);
    let bye = request("BYE", 2).to("callee");
    world.pbx_sends(bye.clone());
    world.expect_closed();
    world.pbx_sends(bye);
    for (direction, message) in &script {
        world.sends(*direction, message.clone());
    }
    world.expect_closed();
    assert_eq!(world.actions, 4);
    assert_eq!(world.refusals(), []);
    assert_eq!(world.engine.counters().calls, 1);
}

#[test]
fn a_fork_opens_for_every_answer_and_keeps_the_one_that_wins() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(
        response(183, "INVITE", 1)
            .to("a")
            .sdp(sdp("198.51.100.71", 20_000)),
    );
    world.provider_sends(
        response(183, "INVITE", 1)
            .to("b")
            .sdp(sdp("198.51.100.72", 20_000)),
    );
    world.expect(&[
        "10000 rtp 198.51.100.71 198.51.100.72",
        "10001 rtcp 198.51.100.71 198.51.100.72",
    ]);
    world.provider_sends(
        response(200, "INVITE", 1)
            .to("b")
            .sdp(sdp("198.51.100.72", 20_000)),
    );
    world.pbx_sends(request("ACK", 1).to("b").branch("z9hG4bK-ack"));
    world.expect(&["10000 rtp 198.51.100.72", "10001 rtcp 198.51.100.72"]);
}

#[test]
fn two_200s_of_a_fork_are_two_dialogs_and_each_bye_ends_its_own() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    for (tag, address) in [("a", "198.51.100.71"), ("b", "198.51.100.72")] {
        world.provider_sends(response(200, "INVITE", 1).to(tag).sdp(sdp(address, 20_000)));
        world.pbx_sends(request("ACK", 1).to(tag).branch("z9hG4bK-ack"));
    }
    world.pbx_sends(request("BYE", 2).to("a"));
    world.expect(&["10000 rtp 198.51.100.72", "10001 rtcp 198.51.100.72"]);
    world.provider_sends(
        response(200, "INVITE", 1)
            .to("a")
            .sdp(sdp("198.51.100.71", 20_000)),
    );
    world.expect(&["10000 rtp 198.51.100.72", "10001 rtcp 198.51.100.72"]);
    world.pbx_sends(request("BYE", 2).to("b"));
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Bye(Direction::Egress)]);
}

#[test]
fn a_dialog_that_a_bye_ended_hears_nothing_while_another_of_the_fork_goes_on() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    for (tag, address) in [("a", "198.51.100.71"), ("b", "198.51.100.72")] {
        world.provider_sends(response(200, "INVITE", 1).to(tag).sdp(sdp(address, 20_000)));
        world.pbx_sends(request("ACK", 1).to(tag).branch("z9hG4bK-ack"));
    }
    let script = [
        (Direction::Egress, request("INVITE", 2).to("a")),
        (
            Direction::Ingress,
            response(200, "INVITE", 2)
                .to("a")
                .sdp(sdp("198.51.100.71", 20_000)),
        ),
        (
            Direction::Egress,
            request("ACK", 2)
                .to("a")
                .branch("z9hG4bK-ack-2")
                .sdp(sdp(PBX, 10_010)),
        ),
    ];
    for (direction, message) in &script {
        world.sends(*direction, message.clone());
    }
    world.pbx_sends(request("BYE", 3).to("a"));
    let other = ["10000 rtp 198.51.100.72", "10001 rtcp 198.51.100.72"];
    world.expect(&other);
    // Late copies, and what nobody who has sent a BYE would send.
    let update = request("UPDATE", 4).to("a").sdp(sdp(PBX, 10_020));
    let answer = response(200, "UPDATE", 4)
        .to("a")
        .sdp(sdp("198.51.100.71", 20_000));
    let further = [(Direction::Egress, update), (Direction::Ingress, answer)];
    for (direction, message) in script.into_iter().chain(further) {
        world.sends(direction, message);
        world.expect(&other);
    }
}

#[test]
fn early_dialogs_without_an_ack_to_be_seen_go_after_a_while() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    for (tag, address) in [("a", "198.51.100.71"), ("b", "198.51.100.72")] {
        world.provider_sends(response(183, "INVITE", 1).to(tag).sdp(sdp(address, 20_000)));
    }
    world.provider_sends(
        response(200, "INVITE", 1)
            .to("b")
            .sdp(sdp("198.51.100.72", 20_000)),
    );
    // The ACK is lost on the way to us, and we know that something was.
    world.input(sipfilter_daemon::engine::Input::CaptureLost { packets: 1 });
    world.wait_secs(33);
    world.expect(&["10000 rtp 198.51.100.72", "10001 rtcp 198.51.100.72"]);
}

#[test]
fn a_199_ends_its_early_dialog() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(response(199, "INVITE", 1));
    world.expect_closed();
    assert_eq!(world.ends(), []);
}

#[test]
fn a_challenge_waits_for_the_invite_with_credentials() {
    let mut world = World::with_on_offer();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&["10000 rtp 0.0.0.0/0", "10001 rtcp 0.0.0.0/0"]);
    world.provider_sends(response(407, "INVITE", 1));
    world.expect_closed();
    assert_eq!(world.state(), "challenged");
    world.pbx_sends(request("ACK", 1).to("callee"));
    world.pbx_sends(request("INVITE", 2).sdp(sdp(PBX, 10_002)));
    world.provider_sends(response(407, "INVITE", 1));
    world.provider_sends(response(200, "INVITE", 2).sdp(sdp(MEDIA, 20_000)));
    world.expect(&["10002 rtp 198.51.100.77", "10003 rtcp 198.51.100.77"]);
    assert_eq!(world.engine.calls().count(), 1);
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_challenge_that_nobody_meets_ends_the_call() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(401, "INVITE", 1));
    world.wait_secs(33);
    assert_eq!(world.ends(), [EndReason::Rejected(401)]);
}

#[test]
fn copies_of_an_invite_over_several_branches_are_one_call() {
    let mut world = World::new();
    let invite = request("INVITE", 1).sdp(sdp(MEDIA, 20_000));
    world.provider_sends(invite.clone().branch("z9hG4bK-one"));
    world.provider_sends(invite.branch("z9hG4bK-two"));
    world.pbx_sends(response(482, "INVITE", 1).to("loop").branch("z9hG4bK-two"));
    world.pbx_sends(
        response(200, "INVITE", 1)
            .branch("z9hG4bK-one")
            .sdp(sdp(PBX, 10_000)),
    );
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.engine.calls().count(), 1);
}

#[test]
fn a_call_that_a_proxy_sends_back_out_is_two_calls() {
    let mut world = World::new();
    let invite = request("INVITE", 1);
    world.provider_sends(invite.clone().sdp(sdp(MEDIA, 20_000)).branch("z9hG4bK-in"));
    world.pbx_sends(invite.sdp(sdp(PBX, 10_000)).branch("z9hG4bK-out"));
    let answer = response(200, "INVITE", 1);
    world.provider_sends(
        answer
            .clone()
            .sdp(sdp("198.51.100.71", 20_000))
            .branch("z9hG4bK-out"),
    );
    world.pbx_sends(answer.sdp(sdp(PBX, 10_002)).branch("z9hG4bK-in"));
    world.expect(&[
        "10000 rtp 198.51.100.71",
        "10001 rtcp 198.51.100.71",
        "10002 rtp 198.51.100.77",
        "10003 rtcp 198.51.100.77",
    ]);
    assert_eq!(owners(&world).len(), 2);
    world.provider_sends(request("BYE", 2).to("callee"));
    world.pbx_sends(request("BYE", 2).to("callee"));
    world.expect_closed();
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_call_of_a_caller_without_a_tag_that_a_proxy_sends_back_out_is_two_calls() {
    // Nothing but the direction tells the two (RFC 2543 knew callers without tags).
    let mut world = World::new();
    let invite = request("INVITE", 1).from("");
    world.provider_sends(invite.clone().sdp(sdp(MEDIA, 20_000)).branch("z9hG4bK-in"));
    world.pbx_sends(invite.sdp(sdp(PBX, 10_000)).branch("z9hG4bK-out"));
    assert_eq!(world.engine.calls().count(), 2);
    let answer = response(200, "INVITE", 1).from("");
    let out = answer.clone().branch("z9hG4bK-out");
    world.provider_sends(out.sdp(sdp("198.51.100.71", 20_000)));
    world.pbx_sends(answer.sdp(sdp(PBX, 10_002)).branch("z9hG4bK-in"));
    world.expect(&[
        "10000 rtp 198.51.100.71",
        "10001 rtcp 198.51.100.71",
        "10002 rtp 198.51.100.77",
        "10003 rtcp 198.51.100.77",
    ]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_reinvite_of_a_call_from_before_our_time_takes_it_up() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 7).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.expect_closed();
    world.pbx_sends(response(200, "INVITE", 7).sdp(sdp(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
    world.provider_sends(request("ACK", 7).to("callee").branch("z9hG4bK-ack"));
    world.pbx_sends(request("BYE", 3).by_callee());
    world.expect_closed();
    assert_eq!(world.refusals(), []);
}

#[test]
fn messages_of_dialogs_that_nobody_saw_begin_are_counted_and_open_nothing() {
    let mut world = World::new();
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(request("UPDATE", 2).to("callee").sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("BYE", 2).to("callee"));
    world.expect_closed();
    assert_eq!(world.refusals(), [Refusal::UnknownDialog; 3]);
}

#[test]
fn other_methods_are_no_news() {
    let mut world = World::new();
    for method in ["OPTIONS", "REGISTER", "SUBSCRIBE", "FROBNICATE"] {
        world.provider_sends(request(method, 1));
        world.pbx_sends(response(200, method, 1));
    }
    world.datagram(Direction::Ingress, PROVIDER, PBX, b"\r\n\r\n");
    assert_eq!(world.events, []);
    assert_eq!(world.engine.counters().keep_alives, 1);
}

#[test]
fn the_providers_own_call_identifier_is_kept() {
    let mut world = World::new();
    world.provider_sends(
        request("INVITE", 1)
            .sdp(sdp(MEDIA, 20_000))
            .header("X-Twilio-CallSid: CA0123"),
    );
    assert_eq!(
        world.call(0).provider_call_id,
        Some(("X-Twilio-CallSid", "CA0123"))
    );
}

#[test]
fn a_provisional_response_of_a_fork_behind_the_200_opens_nothing() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(
        response(183, "INVITE", 1)
            .to("fork")
            .sdp(sdp("198.51.100.72", 20_000)),
    );
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_copy_of_the_invite_may_bring_the_answer_of_a_dialog_that_rings() {
    let mut world = World::new();
    let invite = request("INVITE", 1).sdp(sdp(MEDIA, 20_000));
    world.provider_sends(invite.clone().branch("z9hG4bK-one"));
    world.pbx_sends(response(180, "INVITE", 1).branch("z9hG4bK-one"));
    world.provider_sends(invite.branch("z9hG4bK-two"));
    world.pbx_sends(
        response(200, "INVITE", 1)
            .branch("z9hG4bK-two")
            .sdp(sdp(PBX, 10_000)),
    );
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn the_most_specific_prefix_names_the_provider_then_the_order() {
    let provider_of = |first: &[&str], second: &[&str]| {
        let mut settings = settings();
        for (provider, nets) in settings.providers.iter_mut().zip([first, second]) {
            provider.signalling = nets.iter().map(|net| net.parse().unwrap()).collect();
        }
        let mut world = World::with(settings);
        world.provider_sends(request("INVITE", 1));
        world.call(0).provider.0
    };
    let (wide, narrow) = ("198.51.100.0/24", "198.51.100.0/28");
    assert_eq!(provider_of(&[wide], &[narrow]), 1);
    assert_eq!(provider_of(&[narrow], &[wide]), 0);
    assert_eq!(provider_of(&[wide], &[wide, narrow]), 1);
    assert_eq!(provider_of(&[wide], &[wide]), 0);
}
