//! Hold, in every form.

use sipfilter_daemon::engine::Direction;

use super::*;

const HELD: [&str; 2] = [
    "10000 rtp 198.51.100.77 held",
    "10001 rtcp 198.51.100.77 held",
];

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
