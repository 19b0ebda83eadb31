//! How calls end: BYE, CANCEL, errors, timers, silence, the operator.

use sipfilter_daemon::engine::{Direction, EndReason, Input};

use crate::world::*;

const RTP: &str = "10000 rtp 198.51.100.77";
const RTCP: &str = "10001 rtcp 198.51.100.77";

fn ringing() -> World {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[RTP, RTCP]);
    world
}

fn cancel() -> Msg {
    request("CANCEL", 1).branch("z9hG4bK-INVITE-1")
}

#[test]
fn cancel_is_decided_by_its_487() {
    let mut world = ringing();
    world.pbx_sends(cancel());
    world.provider_sends(response(200, "CANCEL", 1));
    world.expect(&[RTP, RTCP]);
    world.provider_sends(response(487, "INVITE", 1));
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Cancelled]);
    world.pbx_sends(request("ACK", 1).to("callee"));
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_200_that_crosses_the_cancel_wins() {
    let mut world = ringing();
    world.pbx_sends(cancel());
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.wait_secs(600);
    world.expect(&[RTP, RTCP]);
    world.pbx_sends(request("BYE", 2).to("callee"));
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Bye(Direction::Egress)]);
}

#[test]
fn a_cancel_whose_487_is_lost_ends_by_time() {
    let mut world = ringing();
    world.pbx_sends(cancel());
    world.wait_secs(33);
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Cancelled]);
}

#[test]
fn a_cancel_of_another_branch_cancels_nothing() {
    let mut world = ringing();
    world.pbx_sends(cancel().branch("z9hG4bK-guess"));
    world.wait_secs(100);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_final_error_ends_the_call() {
    for status in [302, 404, 486, 487, 503, 603] {
        let mut world = ringing();
        world.provider_sends(response(status, "INVITE", 1).to("other"));
        world.expect_closed();
        assert_eq!(world.ends(), [EndReason::Rejected(status)]);
        // The redirected or repeated attempt with the same Call-ID is another call.
        world.pbx_sends(request("INVITE", 2).sdp(sdp(PBX, 10_002)));
        world.provider_sends(response(200, "INVITE", 2).sdp(sdp(MEDIA, 20_000)));
        world.expect(&["10002 rtp 198.51.100.77", "10003 rtcp 198.51.100.77"]);
    }
}

#[test]
fn an_error_behind_a_200_is_late() {
    let mut world = ringing();
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(response(486, "INVITE", 1).to("other"));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn bye_in_an_early_dialog_ends_that_dialog() {
    let mut world = ringing();
    world.pbx_sends(request("BYE", 2).to("callee"));
    world.expect_closed();
    assert_eq!(world.ends(), []);
    world.provider_sends(response(487, "INVITE", 1));
    assert_eq!(world.ends(), [EndReason::Rejected(487)]);
}

#[test]
fn a_200_without_ack_ends_after_64_t1() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.wait_secs(31);
    world.expect(&[RTP, RTCP]);
    world.wait_secs(2);
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::NoAck]);
}

#[test]
fn a_lost_ack_does_not_cost_a_call_with_media() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.input(Input::CaptureLost { packets: 3 });
    assert_eq!(world.engine.counters().capture_lost, 3);
    world.wait_secs(3_600);
    world.expect(&[RTP, RTCP]);
    world.silence(10_001);
    world.silence(10_000);
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Idle]);
}

/// The provider calls, the PBX answers, and no ACK is ever seen.
fn unacknowledged() -> (World, impl Fn(&mut World)) {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    let answer = |world: &mut World| {
        world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    };
    answer(&mut world);
    (world, answer)
}

#[test]
fn a_flood_keeps_no_unacknowledged_call_alive() {
    // Copies are lost all the time; the PBX repeats its 200 every 4 seconds (RFC 3261 §13.3.1.4).
    let (mut world, answer) = unacknowledged();
    for second in 1..=31 {
        world.wait_secs(1);
        if second % 4 == 0 {
            answer(&mut world);
        }
        world.input(Input::CaptureLost { packets: 1_000 });
    }
    world.expect(&[RTP, RTCP]);
    world.wait_secs(2);
    world.input(Input::CaptureLost { packets: 1_000 });
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::NoAck]);
}

#[test]
fn a_200_repeated_after_a_loss_still_waits_for_its_ack() {
    let (mut world, answer) = unacknowledged();
    world.input(Input::CaptureLost { packets: 3 });
    world.wait_secs(1);
    answer(&mut world);
    world.wait_secs(30);
    world.expect(&[RTP, RTCP]);
    world.wait_secs(2);
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::NoAck]);
}

#[test]
fn a_loss_behind_a_repeated_200_does_not_cost_a_call_with_media() {
    // Each of these is the last repeat, because the ACK of it, whose copy is lost, arrives.
    for last in [1, 8, 16, 23] {
        let (mut world, answer) = unacknowledged();
        world.wait_secs(last);
        answer(&mut world);
        world.input(Input::CaptureLost { packets: 1 });
        world.wait_secs(3_600);
        world.expect(&[RTP, RTCP]);
        assert_eq!(world.state(), "confirmed", "{last}");
    }
}

#[test]
fn an_ack_behind_a_loss_is_an_ack() {
    let (mut world, answer) = unacknowledged();
    world.input(Input::CaptureLost { packets: 1 });
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    // Late copies of the 200 change nothing any more.
    answer(&mut world);
    world.wait_secs(3_600);
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_later_request_of_the_callers_proves_the_ack() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("UPDATE", 2).to("callee"));
    world.wait_secs(100);
    world.expect(&[RTP, RTCP]);
}

#[test]
fn an_invite_without_final_answer_ends_by_time_and_ringing_renews_it() {
    let mut world = ringing();
    world.wait_secs(200);
    world.provider_sends(response(180, "INVITE", 1));
    world.wait_secs(200);
    world.expect(&[RTP, RTCP]);
    world.wait_secs(101);
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::NoAnswer]);
}

#[test]
fn a_call_is_over_when_all_of_its_pinholes_are_silent() {
    let mut world = World::new();
    world.inbound_call();
    world.wait_secs(300);
    // Nobody sends RTCP: that alone ends nothing, and its pinhole stays ready.
    world.silence(10_001);
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.ends(), []);
    world.wait_secs(300);
    world.silence(10_001);
    world.wait_secs(100);
    world.silence(10_000);
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Idle]);
}

#[test]
fn a_silent_pinhole_is_watched_on_while_the_rest_of_its_call_is_heard() {
    let mut world = World::new();
    world.inbound_call();
    // The kernel tells of each state of a pinhole once: to hear of it again is to send it again.
    for _ in 0..3 {
        world.wait_secs(300);
        let actions = world.actions;
        world.silence(10_001);
        assert_eq!(world.actions, actions + 1);
    }
    world.expect(&[RTP, RTCP]);
}

#[test]
fn an_old_report_of_silence_does_not_count() {
    let mut world = World::new();
    world.inbound_call();
    world.silence(10_001);
    // It was heard again since, else it would have been reported again.
    world.wait_secs(1_000);
    world.silence(10_000);
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.ends(), []);
}

#[test]
fn no_call_ends_by_age() {
    let mut world = World::new();
    world.inbound_call();
    world.wait_secs(7 * 24 * 3_600);
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_confirmed_call_without_any_pinhole_ends_when_its_signalling_is_silent() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp("192.0.2.99", 10_000)));
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.wait_secs(3_000);
    assert_eq!(world.ends(), []);
    world.wait_secs(700);
    assert_eq!(world.ends(), [EndReason::Idle]);
}

#[test]
fn the_operator_ends_a_call() {
    let mut world = World::new();
    world.inbound_call();
    let number = world.call(0).number;
    world.input(Input::EndCall(number));
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Operator]);
    world.input(Input::EndCall(number));
    assert_eq!(world.ends().len(), 1);
}

#[test]
fn a_port_that_two_calls_share_closes_with_the_last() {
    let mut world = World::new();
    world.inbound_call();
    let second = |message: Msg| message.call("call-2@example.com");
    world.provider_sends(second(request("INVITE", 1)).sdp(sdp("198.51.100.78", 20_000)));
    world.pbx_sends(second(response(200, "INVITE", 1)).sdp(sdp(PBX, 10_000)));
    world.expect(&[
        "10000 rtp 198.51.100.77 198.51.100.78",
        "10001 rtcp 198.51.100.77 198.51.100.78",
    ]);
    world.provider_sends(request("BYE", 2).to("callee"));
    world.expect(&["10000 rtp 198.51.100.78", "10001 rtcp 198.51.100.78"]);
    world.provider_sends(second(request("BYE", 2)).to("callee"));
    world.expect_closed();
}

#[test]
fn time_that_goes_backwards_is_ignored() {
    let mut world = ringing();
    world.wait_secs(100);
    let mut engine = world.engine;
    let before = engine.poll_timeout();
    engine.handle_timeout(sipfilter_daemon::engine::Instant::default());
    assert_eq!(engine.poll_timeout(), before);
}

#[test]
fn a_lost_200_is_proved_by_what_follows_it() {
    let proofs = [
        (
            Direction::Egress,
            request("ACK", 1).to("callee").branch("z9hG4bK-ack"),
        ),
        (
            Direction::Egress,
            request("INVITE", 2).to("callee").sdp(sdp(PBX, 10_000)),
        ),
        (
            Direction::Ingress,
            request("INVITE", 50).by_callee().sdp(sdp(MEDIA, 20_000)),
        ),
    ];
    for (direction, proof) in proofs {
        let mut world = ringing();
        world.sends(direction, proof);
        assert_eq!(world.state(), "confirmed");
        world.sends(direction.opposite(), response(491, "INVITE", 2));
        world.wait_secs(31);
        world.expect(&[RTP, RTCP]);
    }
    // The callee may not send BYE before the 200, so there was one.
    let mut world = ringing();
    world.provider_sends(request("BYE", 50).by_callee());
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Bye(Direction::Ingress)]);
}

#[test]
fn an_error_shows_that_the_proof_was_none() {
    let mut world = ringing();
    world.pbx_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.provider_sends(response(486, "INVITE", 1));
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Rejected(486)]);
}

#[test]
fn the_ack_of_an_error_proves_nothing() {
    let mut world = ringing();
    world.pbx_sends(request("ACK", 1).to("callee").branch("z9hG4bK-INVITE-1"));
    assert_eq!(world.state(), "ringing");
}

#[test]
fn a_lost_200_and_ack_do_not_cost_a_call_with_media() {
    let mut world = ringing();
    world.input(Input::CaptureLost { packets: 2 });
    world.wait_secs(3_000);
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.state(), "confirmed");
    world.provider_sends(request("BYE", 50).by_callee());
    world.expect_closed();
    // Without media, nothing is lost by giving up.
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.input(Input::CaptureLost { packets: 2 });
    world.wait_secs(301);
    assert_eq!(world.ends(), [EndReason::NoAnswer]);
}

#[test]
fn silence_does_not_end_a_call_that_rings() {
    let mut world = ringing();
    for _ in 0..4 {
        world.wait_secs(200);
        world.silence(10_000);
        world.silence(10_001);
        world.provider_sends(response(180, "INVITE", 1));
    }
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_call_given_up_for_silence_comes_back_with_a_reinvite_of_either_side() {
    for (direction, reinvite, answer) in [
        (
            Direction::Ingress,
            request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)),
            response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)),
        ),
        (
            Direction::Egress,
            request("INVITE", 1).by_callee().sdp(sdp(PBX, 10_000)),
            response(200, "INVITE", 1)
                .by_callee()
                .sdp(sdp(MEDIA, 20_000)),
        ),
    ] {
        for pause in [1, 60] {
            let mut world = World::new();
            world.inbound_call();
            world.silence(10_000);
            world.silence(10_001);
            world.expect_closed();
            world.wait_secs(pause);
            world.sends(direction, reinvite.clone());
            world.sends(direction.opposite(), answer.clone());
            world.expect(&[RTP, RTCP]);
            world.provider_sends(request("BYE", 3).to("callee"));
            world.expect_closed();
        }
    }
}

#[test]
fn a_call_that_the_operator_ended_stays_closed() {
    let mut world = World::new();
    world.inbound_call();
    world.input(Input::EndCall(world.call(0).number));
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    world.expect_closed();
}

/// A confirmed call whose 200 carries this header line.
fn call_with_session(line: &str) -> World {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    let answer = response(200, "INVITE", 1)
        .sdp(sdp(PBX, 10_000))
        .header(line);
    world.pbx_sends(answer);
    world.provider_sends(request("ACK", 1).to("callee"));
    world
}

fn all_silent(world: &mut World) {
    world.silence(10_000);
    world.silence(10_001);
}

#[test]
fn silence_ends_nothing_before_the_session_timer_does() {
    let mut world = call_with_session("Session-Expires: 1800;refresher=uac");
    for _ in 0..5 {
        world.wait_secs(300);
        all_silent(&mut world);
        world.expect(&[RTP, RTCP]);
    }
    world.wait_secs(300);
    all_silent(&mut world);
    world.expect_closed();
    assert_eq!(world.ends(), [EndReason::Idle]);
}

#[test]
fn a_refresh_starts_the_session_timer_anew_and_one_without_an_interval_stops_it() {
    let mut world = call_with_session("x: 600");
    world.wait_secs(500);
    world.provider_sends(request("UPDATE", 2).to("callee"));
    world.pbx_sends(response(200, "UPDATE", 2).header("x: 600"));
    world.wait_secs(500);
    all_silent(&mut world);
    world.expect(&[RTP, RTCP]);
    world.provider_sends(request("UPDATE", 3).to("callee"));
    world.pbx_sends(response(200, "UPDATE", 3));
    world.wait_secs(10);
    all_silent(&mut world);
    world.expect_closed();
}

#[test]
fn a_session_timer_that_runs_out_ends_no_call_that_is_heard() {
    let mut world = call_with_session("Session-Expires: 90");
    world.wait_secs(3_600);
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.ends(), []);
}

#[test]
fn no_session_timer_outlasts_the_patience_with_calls_on_hold() {
    let mut world = call_with_session("Session-Expires: 4294967295");
    world.wait_secs(3_500);
    all_silent(&mut world);
    world.expect(&[RTP, RTCP]);
    world.wait_secs(200);
    all_silent(&mut world);
    world.expect_closed();
}
