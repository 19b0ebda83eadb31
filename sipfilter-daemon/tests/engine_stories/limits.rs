//! Every table's cap, reached: the new is shed, the confirmed never.

use sipfilter_daemon::engine::{
    Direction, Refusal, pinhole::PinholeResult, reassemble::counts::Count, settings::Limits,
};

use crate::world::*;

fn with_limits(change: impl FnOnce(&mut Limits)) -> World {
    let mut settings = settings();
    change(&mut settings.limits);
    World::with(settings)
}

fn invite(n: u16) -> Msg {
    request("INVITE", 1)
        .call(&format!("call-{n}"))
        .sdp(sdp(MEDIA, 20_000))
}

fn answer(n: u16) -> Msg {
    response(200, "INVITE", 1)
        .call(&format!("call-{n}"))
        .sdp(sdp(PBX, 10_000 + 2 * n))
}

fn bye(n: u16) -> Msg {
    request("BYE", 2).call(&format!("call-{n}")).to("callee")
}

#[test]
fn a_full_table_sheds_new_calls_and_forgets_ended_ones_first() {
    for (limits, refusal) in [
        (
            Limits {
                calls: 2,
                ..Limits::default()
            },
            Refusal::TooManyCalls,
        ),
        (
            Limits {
                calls_per_provider: 2,
                ..Limits::default()
            },
            Refusal::TooManyCallsOfProvider,
        ),
    ] {
        let mut world = with_limits(|known| *known = limits);
        for n in 1..=3 {
            world.provider_sends(invite(n));
            world.pbx_sends(answer(n));
        }
        assert_eq!(world.engine.calls().count(), 2);
        assert_eq!(world.refusals(), [refusal, Refusal::UnknownDialog]);
        assert_eq!(world.locals().len(), 4);
        world.provider_sends(bye(1));
        world.provider_sends(invite(4));
        world.pbx_sends(answer(4));
        assert_eq!(world.engine.calls().count(), 2);
        assert_eq!(world.locals().len(), 4);
        assert_eq!(world.engine.counters().refused(refusal), 1);
    }
}

#[test]
fn one_providers_flood_leaves_room_for_the_other() {
    let mut world = with_limits(|limits| {
        limits.calls_per_provider = 2;
        limits.calls = 4;
    });
    for n in 1..=10 {
        world.provider_sends(invite(n));
    }
    let call = invite(11).bytes();
    world.datagram(Direction::Ingress, OTHER_PROVIDER, PBX, &call);
    assert_eq!(world.engine.calls().count(), 3);
    assert_eq!(
        world
            .engine
            .counters()
            .refused(Refusal::TooManyCallsOfProvider),
        8
    );
}

#[test]
fn a_fork_has_no_more_dialogs_than_allowed() {
    let mut world = with_limits(|limits| limits.dialogs_per_call = 2);
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    for n in 1..=3 {
        let address = format!("198.51.100.7{n}");
        world.provider_sends(
            response(183, "INVITE", 1)
                .to(&format!("tag-{n}"))
                .sdp(sdp(&address, 20_000)),
        );
    }
    world.expect(&[
        "10000 rtp 198.51.100.71 198.51.100.72",
        "10001 rtcp 198.51.100.71 198.51.100.72",
    ]);
    assert_eq!(world.refusals(), [Refusal::TooManyDialogs]);
}

#[test]
fn a_body_with_too_many_streams_is_refused() {
    let mut world = with_limits(|limits| limits.media_per_session = 2);
    let lines = ["m=audio 20000 RTP/AVP 8"; 3];
    world.provider_sends(request("INVITE", 1).sdp(sdp_of(MEDIA, &lines)));
    assert_eq!(world.refusals(), [Refusal::TooManyMedia]);
}

#[test]
fn a_full_pinhole_table_keeps_what_is_open_and_tries_again() {
    let mut world = with_limits(|limits| limits.pinholes = 3);
    for n in 1..=2 {
        world.provider_sends(invite(n));
        world.pbx_sends(answer(n));
    }
    assert_eq!(world.locals().len(), 3);
    assert_eq!(world.refusals(), [Refusal::TooManyPinholes]);
    world.provider_sends(bye(1));
    assert_eq!(world.locals().len(), 1);
    // The next message of the second call finds room.
    world.provider_sends(
        request("ACK", 1)
            .call("call-2")
            .to("callee")
            .branch("z9hG4bK-ack"),
    );
    world.expect(&["10004 rtp 198.51.100.77", "10005 rtcp 198.51.100.77"]);
}

#[test]
fn what_the_kernel_refuses_is_not_open_and_is_tried_again() {
    for (result, refusal) in [
        (PinholeResult::Full, Refusal::TooManyPinholes),
        (PinholeResult::Failed, Refusal::ActionFailed),
    ] {
        let mut world = World::new();
        world.answer = result;
        world.provider_sends(invite(1));
        world.pbx_sends(answer(1));
        world.expect_closed();
        assert_eq!(world.refusals(), [refusal; 2]);
        let opened = world.actions;
        world.answer = PinholeResult::Done;
        world.provider_sends(
            request("ACK", 1)
                .call("call-1")
                .to("callee")
                .branch("z9hG4bK-ack"),
        );
        assert_eq!(world.actions, opened + 2);
        world.expect(&["10002 rtp 198.51.100.77", "10003 rtcp 198.51.100.77"]);
        world.provider_sends(bye(1));
        world.expect_closed();
    }
}

#[test]
fn a_pinhole_whose_update_the_kernel_refuses_is_still_open_and_is_closed_in_the_end() {
    let mut world = World::new();
    world.inbound_call();
    world.answer = PinholeResult::Failed;
    world.provider_sends(
        request("INVITE", 2)
            .to("callee")
            .sdp(sdp("198.51.100.78", 20_000)),
    );
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    world.expect(&["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"]);
    world.answer = PinholeResult::Done;
    world.provider_sends(request("BYE", 3).to("callee"));
    world.expect_closed();
}

#[test]
fn a_longer_list_of_prefixes_than_a_pinhole_can_name_is_widened_to_neighbours() {
    let mut world = World::with_provider(|provider| {
        provider.media.source = sipfilter_daemon::engine::settings::MediaSource::Prefix;
        provider.media.prefixes = [
            "198.51.100.64/28",
            "198.51.100.80/28",
            "203.0.113.0/28",
            "203.0.113.32/28",
            "192.0.2.64/28",
            "192.0.2.128/28",
            "2001:db8:77::/64",
        ]
        .iter()
        .map(|net| net.parse().unwrap())
        .collect();
    });
    world.provider_sends(invite(1));
    world.pbx_sends(answer(1));
    assert_eq!(
        world.pinhole(10_002).sources.len(),
        4,
        "{:?}",
        world.pinhole(10_002)
    );
    world.expect(&[
        "10002 rtp 192.0.2.64/28 192.0.2.128/28 198.51.100.64/27 203.0.113.0/26",
        "10003 rtcp 192.0.2.64/28 192.0.2.128/28 198.51.100.64/27 203.0.113.0/26",
    ]);
}

#[test]
fn every_counter_has_a_name_of_its_own() {
    let world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for reading in world.engine.counters().readings() {
        assert!(seen.insert((reading.name, reading.label)), "{reading:?}");
    }
    assert_eq!(
        seen.len(),
        9 + Refusal::ALL.len()
            + sipfilter_daemon::engine::EndReason::NAMES.len()
            + Count::ALL.len()
    );
}

#[test]
fn a_call_id_has_no_more_calls_than_a_fork_has_dialogs() {
    let mut world = with_limits(|limits| limits.dialogs_per_call = 2);
    for tag in ["a", "b", "c"] {
        world.provider_sends(invite(1).from(tag));
    }
    assert_eq!(world.engine.calls().count(), 2);
    assert_eq!(world.refusals(), [Refusal::TooManyDialogs]);
}

#[test]
fn an_update_that_the_kernel_refuses_leaves_a_pinhole_that_is_closed_in_the_end() {
    let mut world = World::with_on_offer();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.answer = PinholeResult::Full;
    world.silence(10_000);
    world.answer = PinholeResult::Done;
    world.provider_sends(response(180, "INVITE", 1));
    world.expect(&["10000 rtp 0.0.0.0/0", "10001 rtcp 0.0.0.0/0"]);
    world.provider_sends(response(486, "INVITE", 1));
    world.expect_closed();
}

#[test]
fn a_confirmed_call_whose_pinholes_the_kernel_refused_does_not_stay_forever() {
    let mut world = World::new();
    world.answer = PinholeResult::Full;
    world.inbound_call();
    world.wait_secs(3_000);
    assert_eq!(world.ends(), []);
    world.wait_secs(700);
    assert_eq!(world.ends().len(), 1);
}
