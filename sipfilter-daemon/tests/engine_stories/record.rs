//! What a call's record is made from: every message of a call as an event, in front of what follows from it, and the calls that it names.

use sipfilter_daemon::engine::{
    Aside, CallNumber, Direction, EndReason, Event, Form, Refusal, Relation, Verb,
};

use crate::world::*;

/// The events as short lines, in order.
fn told(world: &World) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::CallStarted { call, .. } => format!("{} started", call.0),
        Event::Message { call, message } => {
            let from = match message.sender {
                Direction::Ingress => "provider",
                Direction::Egress => "pbx",
            };
            let status = match message.form {
                Form::Request => String::new(),
                Form::Response(status) => format!("{status} "),
            };
            let sdp = if message.has_sdp { " sdp" } else { "" };
            format!("{} {from} {status}{}{sdp}", call.0, message.verb.name())
        }
        Event::Related {
            call,
            relation,
            value,
        } => format!("{} {relation:?} {value}", call.0),
        Event::CallConfirmed { call } => format!("{} confirmed", call.0),
        Event::CallEnded { call, reason } => format!("{} ended {}", call.0, reason.name()),
        Event::Refused { call, refusal } => {
            format!(
                "{} refused {}",
                call.map_or(0, |call| call.0),
                refusal.name()
            )
        }
    };
    world.events.iter().map(line).collect()
}

#[test]
fn every_message_of_a_call_is_told_before_what_follows_from_it() {
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(request("OPTIONS", 2).to("callee"));
    world.provider_sends(request("BYE", 3).to("callee"));
    world.pbx_sends(response(200, "BYE", 3));
    assert_eq!(
        told(&world),
        [
            "1 started",
            "1 provider INVITE sdp",
            "1 pbx 200 INVITE sdp",
            "1 confirmed",
            "1 provider ACK",
            "1 provider INVITE sdp",
            "1 provider BYE",
            "1 ended bye_remote",
            "1 pbx 200 BYE",
        ]
    );
}

#[test]
fn both_sides_endpoints_are_known_as_soon_as_they_are_named() {
    let mut world = World::new();
    let endpoints = |world: &World| {
        let endpoints = world.engine.endpoints(CallNumber(1)).unwrap();
        let text = |list: &[std::net::SocketAddr]| -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        };
        (text(&endpoints.local), text(&endpoints.remote))
    };
    let local = || vec!["192.0.2.10:10000".to_owned()];
    let remote = |port: u16| vec![format!("198.51.100.77:{port}")];
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    assert_eq!(endpoints(&world), (vec![], remote(20_000)));
    world.pbx_sends(response(183, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    assert_eq!(endpoints(&world), (local(), remote(20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_002)));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    assert_eq!(endpoints(&world), (local(), remote(20_002)));
    world.provider_sends(request("BYE", 3).to("callee"));
    assert_eq!(endpoints(&world), (vec![], vec![]));
}

#[test]
fn a_fork_that_lost_has_no_endpoints() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(183, "INVITE", 1).to("one").sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(response(200, "INVITE", 1).to("two").sdp(sdp(MEDIA, 20_002)));
    world.pbx_sends(request("ACK", 1).to("two").branch("z9hG4bK-ack"));
    let endpoints = world.engine.endpoints(CallNumber(1)).unwrap();
    assert_eq!(endpoints.remote, ["198.51.100.77:20002".parse().unwrap()]);
}

/// RFC 3515, RFC 3892: the REFER opens and ends nothing; the INVITE that it brings about is a call of its own.
#[test]
fn a_refer_and_the_invite_that_it_asks_for_name_each_other() {
    let mut world = World::new();
    world.inbound_call();
    let before = world.locals();
    world.events.clear();
    world.provider_sends(
        request("REFER", 2)
            .to("callee")
            .header("r: <sip:desk@example.com>")
            .header("Referred-By: <sip:agent@example.com>"),
    );
    world.pbx_sends(response(202, "REFER", 2));
    world.pbx_sends(request("NOTIFY", 1).by_callee());
    world.pbx_sends(
        request("INVITE", 1)
            .call("transfer")
            .from("pbx")
            .header("b: <sip:agent@example.com>")
            .sdp(sdp(PBX, 10_010)),
    );
    assert_eq!(
        told(&world),
        [
            "1 provider REFER",
            "1 ReferredBy <sip:agent@example.com>",
            "1 ReferTo <sip:desk@example.com>",
            "1 pbx 202 REFER",
            "1 pbx NOTIFY",
            "2 started",
            "2 pbx INVITE sdp",
            "2 ReferredBy <sip:agent@example.com>",
        ]
    );
    assert_eq!(world.locals(), before);
    assert_eq!(world.refusals(), []);
    assert_eq!(world.call(0).state.name(), "confirmed");
}

/// RFC 3891: what is replaced closes on its own BYE, not before.
#[test]
fn an_invite_with_replaces_names_a_call_that_lives_until_its_own_bye() {
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(
        request("INVITE", 1)
            .call("second")
            .from("desk")
            .header("Replaces: call-1@example.com ;to-tag=callee;from-tag=caller")
            .sdp(sdp(MEDIA, 20_010)),
    );
    world.pbx_sends(
        response(200, "INVITE", 1)
            .call("second")
            .from("desk")
            .sdp(sdp(PBX, 10_010)),
    );
    assert!(world.events.contains(&Event::Related {
        call: CallNumber(2),
        relation: Relation::Replaces,
        value: "call-1@example.com".to_owned(),
    }));
    assert_eq!(world.locals().len(), 4);
    assert_eq!(world.ends(), []);
    world.pbx_sends(request("BYE", 1).by_callee());
    assert_eq!(world.ends(), [EndReason::Bye(Direction::Egress)]);
    assert_eq!(owners(&world), [CallNumber(2)].into());
}

#[test]
fn a_redirect_is_told_with_its_status() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(response(302, "INVITE", 1).header("Contact: <sip:else@example.com>"));
    assert_eq!(
        told(&world)[1..],
        [
            "1 pbx INVITE sdp",
            "1 provider 302 INVITE",
            "1 ended rejected"
        ]
    );
    assert_eq!(world.ends(), [EndReason::Rejected(302)]);
}

#[test]
fn what_is_told_of_strangers_calls_is_nothing_and_long_names_are_left_out() {
    let mut world = World::new();
    for method in ["REFER", "NOTIFY", "INFO"] {
        world.provider_sends(request(method, 1).to("callee"));
    }
    assert_eq!(told(&world), [""; 0]);
    let long = "x".repeat(300);
    world.provider_sends(
        request("INVITE", 1)
            .header(&format!("Replaces: {long};to-tag=1;from-tag=2"))
            .header("Referred-By: "),
    );
    world.provider_sends(request("INFO", 2).branch(&long));
    // Another caller's REFER under the same Call-ID.
    world.provider_sends(request("REFER", 2).from("stranger").to("callee"));
    let related =
        |event: &&Event| matches!(event, Event::Related { value, .. } if !value.is_empty());
    assert_eq!(world.events.iter().filter(related).count(), 0);
    let asides = |event: &&Event| matches!(event, Event::Message { message, .. } if message.verb == Verb::Aside(Aside::Refer));
    assert_eq!(world.events.iter().filter(asides).count(), 0);
    assert!(!world.refusals().contains(&Refusal::MalformedSip));
}
