//! What must not open anything: one side's word alone, foreign addresses, wrong tags, other providers' messages.

use std::collections::BTreeMap;

use sipfilter_daemon::engine::{Direction, Refusal, settings::MediaSource};

use crate::world::*;

const RTP: &str = "10000 rtp 198.51.100.77";
const RTCP: &str = "10001 rtcp 198.51.100.77";

#[test]
fn a_spoofed_invite_alone_opens_nothing() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(request("ACK", 1).to("callee").sdp(sdp(PBX, 10_000)));
    world.expect_closed();
    world.wait_secs(301);
    assert_eq!(world.ends().len(), 1);
}

#[test]
fn a_spoofed_200_opens_nothing_without_the_branch_of_the_invite() {
    let mut world = World::new();
    world.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.provider_sends(
        response(200, "INVITE", 1)
            .sdp(sdp("198.51.100.66", 20_000))
            .branch("z9hG4bK-guess"),
    );
    world.provider_sends(response(200, "INVITE", 2).sdp(sdp("198.51.100.66", 20_000)));
    world.provider_sends(
        response(200, "INVITE", 1)
            .from("guess")
            .sdp(sdp("198.51.100.66", 20_000)),
    );
    world.expect_closed();
    assert_eq!(world.refusals(), [Refusal::WrongDialog; 3]);
    world.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_spoofed_answer_to_a_reinvite_or_an_update_adds_nothing() {
    let forged = |cseq: u32, method: &str, branch: &str| {
        response(200, method, cseq)
            .branch(branch)
            .sdp(sdp("198.51.100.66", 20_000))
    };
    let cases = [
        // A guessed CSeq number, with the branch of the right one.
        ("INVITE", forged(3, "INVITE", "z9hG4bK-INVITE-2")),
        // The right CSeq number, with a guessed branch.
        ("INVITE", forged(2, "INVITE", "z9hG4bK-guess")),
        ("UPDATE", forged(3, "UPDATE", "z9hG4bK-UPDATE-2")),
        ("UPDATE", forged(2, "UPDATE", "z9hG4bK-guess")),
    ];
    for (method, forged) in cases {
        let mut world = World::new();
        world.outbound_call();
        world.pbx_sends(request(method, 2).to("callee").sdp(sdp(PBX, 10_010)));
        let offered = [
            RTP,
            RTCP,
            "10010 rtp 198.51.100.77",
            "10011 rtcp 198.51.100.77",
        ];
        world.expect(&offered);
        world.provider_sends(forged);
        world.expect(&offered);
        // And it does not take the place of the true one.
        world.provider_sends(response(200, method, 2).sdp(sdp(MEDIA, 20_000)));
        world.pbx_sends(request("ACK", 2).to("callee").branch("z9hG4bK-ack-2"));
        world.wait_secs(8);
        world.expect(&offered[2..]);
    }
}

#[test]
fn a_remote_reoffer_moves_nothing_until_the_pbx_answers() {
    let mut world = World::new();
    world.inbound_call();
    world.provider_sends(
        request("INVITE", 2)
            .to("callee")
            .sdp(sdp("198.51.100.66", 20_000)),
    );
    world.expect(&[RTP, RTCP]);
}

#[test]
fn a_bye_with_wrong_tags_ends_nothing() {
    let mut world = World::new();
    world.inbound_call();
    for bye in [
        request("BYE", 2).to("guess"),
        request("BYE", 2).from("guess").to("callee"),
        request("BYE", 2),
        // Replayed from the past: lower than what this side has sent already.
        request("BYE", 0).to("callee"),
        // The right tags, but from the wrong side of the wire.
        request("BYE", 2).by_callee(),
    ] {
        world.provider_sends(bye);
    }
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), [Refusal::WrongDialog; 5]);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_call_id_collision_between_providers_is_two_calls() {
    let mut world = World::new();
    world.inbound_call();
    let bye = request("BYE", 2).to("callee");
    world.datagram(Direction::Ingress, OTHER_PROVIDER, PBX, &bye.bytes());
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), [Refusal::WrongDialog]);
    let invite = request("INVITE", 1).sdp(sdp("203.0.113.77", 20_000));
    world.datagram(Direction::Ingress, OTHER_PROVIDER, PBX, &invite.bytes());
    // The PBX's answer to the first provider is no answer to the second.
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&[RTP, RTCP]);
    let answer = response(200, "INVITE", 1).sdp(sdp(PBX, 10_002));
    world.datagram(Direction::Egress, PBX, OTHER_PROVIDER, &answer.bytes());
    world.expect(&[
        RTP,
        RTCP,
        "10002 rtp 203.0.113.77",
        "10003 rtcp 203.0.113.77",
    ]);
    world.provider_sends(request("BYE", 2).to("callee"));
    world.expect(&["10002 rtp 203.0.113.77", "10003 rtcp 203.0.113.77"]);
}

#[test]
fn strangers_are_not_heard() {
    let mut world = World::new();
    let invite = request("INVITE", 1).sdp(sdp(MEDIA, 20_000)).bytes();
    world.datagram(Direction::Ingress, "203.0.113.200", PBX, &invite);
    world.datagram(Direction::Egress, PBX, "203.0.113.200", &invite);
    assert_eq!(world.refusals(), [Refusal::UnknownPeer; 2]);
    assert_eq!(world.engine.calls().count(), 0);
}

#[test]
fn local_sdp_outside_the_pbxs_own_opens_nothing() {
    let cases = [
        (sdp("192.0.2.11", 10_000), Refusal::ForeignLocalAddress),
        (sdp("127.0.0.1", 10_000), Refusal::ForeignLocalAddress),
        (sdp(PBX, 5060), Refusal::ForeignLocalPort),
        (sdp(PBX, 22), Refusal::ForeignLocalPort),
        (sdp(PBX, 20_000), Refusal::ForeignLocalPort),
        (
            sdp_of(
                PBX,
                &["c=IN IP4 pbx.example.com", "m=audio 10000 RTP/AVP 8"],
            )
            .replace("c=IN IP4 192.0.2.10\r\n", ""),
            Refusal::HostName,
        ),
        ("nonsense".to_owned(), Refusal::MalformedSdp),
    ];
    for (body, refusal) in cases {
        let mut world = World::new();
        world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
        world.pbx_sends(response(200, "INVITE", 1).sdp(body.clone()));
        world.expect_closed();
        assert_eq!(world.refusals(), [refusal], "{body}");
    }
}

#[test]
fn a_foreign_stream_does_not_cost_the_others() {
    let mut world = World::new();
    let two = ["m=audio 20000 RTP/AVP 8", "m=video 20002 RTP/AVP 99"];
    world.provider_sends(request("INVITE", 1).sdp(sdp_of(MEDIA, &two)));
    let answer = sdp_of(
        PBX,
        &[
            "m=audio 10000 RTP/AVP 8",
            "m=video 10002 RTP/AVP 99",
            "c=IN IP4 192.0.2.200",
        ],
    );
    world.pbx_sends(response(200, "INVITE", 1).sdp(answer));
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), [Refusal::ForeignLocalAddress]);
}

#[test]
fn rtcp_must_be_the_pbxs_own_too() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    let answer = sdp_of(PBX, &["m=audio 10000 RTP/AVP 8", "a=rtcp:22"]);
    world.pbx_sends(response(200, "INVITE", 1).sdp(answer));
    world.expect(&[RTP]);
    assert_eq!(world.refusals(), [Refusal::ForeignLocalPort]);

    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    let foreign = "a=rtcp:10001 IN IP4 192.0.2.200";
    let answer = sdp_of(PBX, &["m=audio 10000 RTP/AVP 8", foreign]);
    world.pbx_sends(response(200, "INVITE", 1).sdp(answer));
    world.expect(&[RTP]);
    assert_eq!(world.refusals(), [Refusal::ForeignLocalAddress]);
}

#[test]
fn a_candidate_of_the_pbx_on_a_port_that_is_not_for_media_opens_nothing() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    let answer = sdp_of(
        PBX,
        &[
            "m=audio 10000 RTP/AVP 8",
            "a=candidate:1 1 UDP 2130706431 192.0.2.10 22 typ host",
            "a=candidate:1 2 UDP 2130706430 192.0.2.10 5060 typ host",
        ],
    );
    world.pbx_sends(response(200, "INVITE", 1).sdp(answer));
    world.expect(&[RTP, RTCP]);
}

#[test]
fn an_exact_source_is_within_the_providers_ports_for_candidates_too() {
    let mut world = World::with_provider(|provider| provider.media.source = MediaSource::Exact);
    let offer = sdp_of(
        MEDIA,
        &[
            "m=audio 20000 RTP/AVP 8",
            "a=candidate:1 1 UDP 2130706431 198.51.100.78 20002 typ host",
            "a=candidate:2 1 UDP 2130706430 198.51.100.79 50000 typ host",
        ],
    );
    world.provider_sends(request("INVITE", 1).sdp(offer));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&[
        "10000 rtp 198.51.100.77:20000-20000 198.51.100.78:20002-20002",
        "10001 rtcp 198.51.100.77:20001-20001",
    ]);
}

#[test]
fn addresses_behind_nat_stand_for_the_protected_ones() {
    let mut settings = settings();
    settings.pbx.nat = BTreeMap::from([("10.0.0.5".parse().unwrap(), PBX.parse().unwrap())]);
    let mut world = World::with(settings);
    world.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp("10.0.0.5", 10_000)));
    world.expect(&[RTP, RTCP]);
    assert_eq!(world.refusals(), []);
}

#[test]
fn remote_sources_stay_within_the_providers_limits() {
    const REFUSED: &[Refusal] = &[Refusal::ForeignRemoteMedia];
    const STRANGER: &str = "203.0.113.9";
    let check = |source,
                 prefixes: &[&str],
                 address: &str,
                 port,
                 pinholes: &[&str],
                 refusals: &[Refusal]| {
        let mut world = World::with_provider(|provider| {
            provider.media.source = source;
            provider.media.prefixes = prefixes.iter().map(|net| net.parse().unwrap()).collect();
        });
        world.provider_sends(request("INVITE", 1).sdp(sdp(address, port)));
        world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
        world.expect(pinholes);
        assert_eq!(world.refusals(), refusals, "{source:?} {address}:{port}");
    };
    let nets = ["198.51.100.64/26"];
    let open = [RTP, RTCP];
    let prefix = ["10000 rtp 198.51.100.64/26", "10001 rtcp 198.51.100.64/26"];
    let exact = [
        "10000 rtp 198.51.100.77:20000-20000",
        "10001 rtcp 198.51.100.77:20001-20001",
    ];
    check(MediaSource::Signalled, &[], MEDIA, 20_000, &open, &[]);
    check(MediaSource::Signalled, &nets, MEDIA, 20_000, &open, &[]);
    check(
        MediaSource::Signalled,
        &nets,
        STRANGER,
        20_000,
        &[],
        REFUSED,
    );
    check(
        MediaSource::Signalled,
        &[],
        "127.0.0.1",
        20_000,
        &[],
        REFUSED,
    );
    check(
        MediaSource::Signalled,
        &[],
        "224.0.0.1",
        20_000,
        &[],
        REFUSED,
    );
    // The range is the provider's documented limit; the SDP's port beyond it is reported and changes nothing.
    check(MediaSource::Signalled, &[], MEDIA, 50_000, &open, REFUSED);
    check(MediaSource::Exact, &[], MEDIA, 20_000, &exact, &[]);
    check(MediaSource::Exact, &[], MEDIA, 50_000, &[], REFUSED);
    check(MediaSource::Exact, &nets, STRANGER, 20_000, &[], REFUSED);
    check(MediaSource::Prefix, &nets, MEDIA, 20_000, &prefix, &[]);
    // The prefixes hold whatever the SDP says, and the report says that media will not come from where it says.
    check(
        MediaSource::Prefix,
        &nets,
        STRANGER,
        20_000,
        &prefix,
        REFUSED,
    );
}

#[test]
fn a_private_media_address_may_be_a_relay() {
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(sdp("10.9.9.9", 20_000)));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&["10000 rtp 10.9.9.9", "10001 rtcp 10.9.9.9"]);
}

#[test]
fn a_host_name_falls_back_to_the_providers_prefixes_else_to_who_sends_first() {
    let body = sdp(MEDIA, 20_000).replace("c=IN IP4 198.51.100.77", "c=IN IP4 media.example.com");
    let mut world = World::new();
    world.provider_sends(request("INVITE", 1).sdp(body.clone()));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&["10000 rtp 0.0.0.0/0", "10001 rtcp 0.0.0.0/0"]);
    assert!(world.pinhole(10_000).latch.is_some() && world.pinhole(10_001).latch.is_some());
    assert_eq!(world.refusals(), [Refusal::HostName]);

    let mut world = World::with_provider(|provider| {
        provider.media.prefixes = vec!["198.51.100.64/26".parse().unwrap()];
    });
    world.provider_sends(request("INVITE", 1).sdp(body));
    world.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
    world.expect(&["10000 rtp 198.51.100.64/26", "10001 rtcp 198.51.100.64/26"]);
}

#[test]
fn what_is_not_whole_sip_over_udp_is_counted() {
    let mut world = World::new();
    let (source, destination) = (PROVIDER.parse().unwrap(), PBX.parse().unwrap());
    let invite = request("INVITE", 1).sdp(sdp(MEDIA, 20_000)).bytes();
    let whole = udp(source, destination, &invite);
    let mut fragment = whole.clone();
    fragment[6] = 0x20;
    world.packet(Direction::Ingress, &fragment);
    let tcp = |port: u16| {
        let mut segment = Vec::from(5060_u16.to_be_bytes());
        segment.extend(port.to_be_bytes());
        segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        ip(source, destination, 6, &segment)
    };
    world.packet(Direction::Ingress, &tcp(5060));
    world.packet(Direction::Ingress, &tcp(5061));
    world.input(sipfilter_daemon::engine::Input::Packet {
        direction: Direction::Ingress,
        bytes: &whole,
        truncated: true,
    });
    world.packet(Direction::Ingress, &whole[..30]);
    world.datagram(Direction::Ingress, PROVIDER, PBX, b"GET / HTTP/1.1\r\n\r\n");
    let long = request("INVITE", 1).call(&"x".repeat(257));
    world.provider_sends(long);
    assert_eq!(
        world.refusals(),
        [
            // The provider of these stories speaks no TCP.
            Refusal::UnknownPeer,
            Refusal::Tls,
            Refusal::Truncated,
            Refusal::MalformedSip,
            Refusal::MalformedSip,
            Refusal::MalformedSip,
        ]
    );
    assert_eq!(world.engine.calls().count(), 0);
}

#[test]
fn a_forged_offer_inside_an_unknown_dialog_is_not_answered_from_another_one() {
    // This run has not seen the call's beginning, so that it cannot tell the dialogs of this Call-ID from invented ones.
    let mut world = World::new();
    world.provider_sends(
        request("INVITE", 2)
            .to("forged")
            .branch("z9hG4bK-forged")
            .sdp(sdp("203.0.113.66", 20_000)),
    );
    // The provider's own re-INVITE has the CSeq that the forger guessed.
    world.provider_sends(request("INVITE", 2).to("callee").sdp(sdp(MEDIA, 20_000)));
    world.pbx_sends(response(200, "INVITE", 2).sdp(sdp(PBX, 10_000)));
    assert!(
        world.locals().iter().all(|local| {
            !format!("{:?}", world.pinhole(local.port())).contains("203.0.113.66")
        }),
        "the forger's media was let in"
    );
}
