//! Messages of real calls, shuffled, repeated, dropped and mixed with time, silence and losses: the engine's own invariants hold after
//! every step, nothing panics, and once everything has timed out nothing is left.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sipfilter_daemon::engine::{
    CallNumber, Direction, Input, pinhole::PinholeResult, settings::EarlyMedia,
};

use crate::world::*;

#[derive(Debug, Clone)]
enum Step {
    Message(Direction, Box<Msg>),
    Wait(u64),
    Silence(u16),
    Lost,
    Operator(u64),
    KernelSays(PinholeResult),
}

fn side() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)]
}

fn body(direction: Direction) -> impl Strategy<Value = Option<String>> {
    let (address, base) = match direction {
        Direction::Ingress => (vec![MEDIA, "198.51.100.78", "0.0.0.0"], 20_000),
        Direction::Egress => (vec![PBX, "0.0.0.0", "192.0.2.99"], 10_000),
    };
    let media = prop_oneof![
        Just("m=audio PORT RTP/AVP 8"),
        Just("m=image PORT udptl t38"),
        Just("m=audio 0 RTP/AVP 8"),
    ];
    let attribute = prop_oneof![
        Just("a=sendrecv"),
        Just("a=sendonly"),
        Just("a=inactive"),
        Just("a=rtcp-mux"),
        Just("a=rtcp:10999"),
    ];
    prop_oneof![
        1 => Just(None),
        4 => (
            proptest::sample::select(address),
            0_u16..4,
            proptest::collection::vec((media, attribute), 1..3),
        )
            .prop_map(move |(address, port, media)| {
                let port = (base + 2 * port).to_string();
                let lines: Vec<String> = media
                    .iter()
                    .flat_map(|(media, attribute)| {
                        [media.replace("PORT", &port), (*attribute).to_owned()]
                    })
                    .collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                Some(sdp_of(address, &lines))
            }),
    ]
}

fn message() -> impl Strategy<Value = Step> {
    let method = prop_oneof![
        5 => Just("INVITE"),
        2 => Just("ACK"),
        1 => Just("BYE"),
        1 => Just("CANCEL"),
        2 => Just("PRACK"),
        2 => Just("UPDATE"),
    ];
    let status = proptest::sample::select(vec![
        None,
        None,
        Some(100),
        Some(180),
        Some(183),
        Some(199),
        Some(200),
        Some(200),
        Some(401),
        Some(487),
        Some(488),
        Some(491),
    ]);
    (
        side(),
        method,
        status,
        1_u32..5,
        0_u8..2,
        0_u8..4,
        any::<bool>(),
    )
        .prop_flat_map(|(direction, method, status, cseq, call, tags, plain)| {
            body(direction).prop_map(move |body| {
                let mut message = match status {
                    None => request(method, cseq),
                    Some(status) => response(status, method, cseq),
                };
                message = match tags {
                    0 => message,
                    1 => message.to("callee"),
                    2 => message.by_callee(),
                    _ => message.to("fork"),
                };
                if method == "CANCEL" {
                    message = message.branch(&format!("z9hG4bK-INVITE-{cseq}"));
                }
                message = message.call(if call == 0 { "one" } else { "two" });
                if let (Some(body), true) = (body, plain || method != "BYE") {
                    message = message.sdp(body);
                }
                Step::Message(direction, Box::new(message))
            })
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => message(),
        2 => (0_u64..40).prop_map(Step::Wait),
        1 => (0_u64..4_000).prop_map(Step::Wait),
        1 => (10_000_u16..10_010).prop_map(Step::Silence),
        1 => Just(Step::Lost),
        1 => (1_u64..4).prop_map(Step::Operator),
        1 => prop_oneof![
            Just(PinholeResult::Done),
            Just(PinholeResult::Full),
            Just(PinholeResult::Failed),
        ].prop_map(Step::KernelSays),
    ]
}

/// A call that goes well, in order: the raw material for disorder.
fn whole_call(on_offer: bool) -> Vec<Step> {
    let message = |direction, message: Msg| Step::Message(direction, Box::new(message));
    let (provider, pbx) = (Direction::Ingress, Direction::Egress);
    let mut steps = vec![
        message(pbx, request("INVITE", 1).sdp(sdp(PBX, 10_000))),
        message(provider, response(100, "INVITE", 1)),
        message(provider, response(183, "INVITE", 1).sdp(sdp(MEDIA, 20_000))),
        message(pbx, request("PRACK", 2).to("callee")),
        message(provider, response(200, "PRACK", 2)),
        message(provider, response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000))),
        message(pbx, request("ACK", 1).to("callee").branch("z9hG4bK-ack")),
        message(pbx, request("INVITE", 3).to("callee").sdp(sdp(PBX, 10_002))),
        message(
            provider,
            response(200, "INVITE", 3).sdp(sdp("198.51.100.78", 20_000)),
        ),
        message(pbx, request("ACK", 3).to("callee").branch("z9hG4bK-ack-3")),
        message(provider, request("BYE", 9).by_callee()),
        message(pbx, response(200, "BYE", 9).by_callee()),
    ];
    if on_offer {
        steps.push(Step::Wait(40));
    }
    steps
}

fn play(steps: Vec<Step>, on_offer: bool) {
    let mut world = if on_offer {
        World::with_provider(|provider| provider.early_media = EarlyMedia::OnOffer)
    } else {
        World::new()
    };
    let mut spoken = BTreeSet::new();
    for step in steps {
        match step {
            Step::Message(direction, message) => {
                spoken.insert(direction);
                world.sends(direction, *message);
            }
            Step::Wait(seconds) => world.wait_secs(seconds),
            Step::Silence(port) => world.silence(port),
            Step::Lost => world.input(Input::CaptureLost { packets: 1 }),
            Step::Operator(number) => world.input(Input::EndCall(CallNumber(number))),
            Step::KernelSays(result) => world.answer = result,
        }
        if spoken.len() < 2 && !on_offer {
            assert_eq!(world.locals(), [], "one side alone opens nothing");
        }
    }
    world.answer = PinholeResult::Done;
    // Everybody falls silent. The kernel reports every pinhole after each idle limit.
    for _ in 0..8 {
        world.wait_secs(3_700);
        for local in world.locals() {
            world.input(Input::PinholeIdle { local });
        }
    }
    world.wait_secs(3_700);
    world.expect_closed();
    assert_eq!(world.engine.pinholes().count(), 0);
    assert_eq!(world.engine.calls().count(), 0);
    assert_eq!(world.engine.poll_timeout(), None);
    let counters = world.engine.counters();
    assert!(counters.pinholes_opened >= counters.pinholes_closed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_messages_in_any_order_leave_nothing_behind(
        steps in proptest::collection::vec(step(), 0..60),
        on_offer: bool,
    ) {
        play(steps, on_offer);
    }

    #[test]
    fn a_whole_call_in_disorder_leaves_nothing_behind(
        steps in Just(()).prop_flat_map(|()| any::<bool>()).prop_flat_map(|on_offer| {
            let mut steps = whole_call(on_offer);
            steps.extend(whole_call(on_offer));
            Just(steps).prop_shuffle()
        }),
        kept in 5_usize..24,
        on_offer: bool,
    ) {
        play(steps.into_iter().take(kept).collect(), on_offer);
    }
}
