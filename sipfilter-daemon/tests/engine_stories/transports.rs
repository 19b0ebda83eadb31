//! Calls whose SIP comes in pieces: IP fragments, and TCP streams dialled by either side.

use std::net::SocketAddr;

use sipfilter_daemon::engine::{
    Direction,
    settings::{Provider, Transport},
};

use super::world::*;

/// One end's place in its stream.
struct Stream {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
}

impl Stream {
    fn new(from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            from,
            to,
            sequence: 0_u32.wrapping_sub(300),
        }
    }

    /// The segment with the next bytes.
    fn segment(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend([0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        segment.extend(bytes);
        self.sequence = self.sequence.wrapping_add(bytes.len() as u32);
        ip(self.from.ip(), self.to.ip(), 6, &segment)
    }
}

fn speaks_tcp(provider: &mut Provider) {
    provider.transports.push(Transport::Tcp);
}

/// A call and its end, message by message, over one connection in segments of `size` bytes.
fn call_over_tcp(provider: &str, pbx: &str, size: usize) {
    let (provider, pbx) = (provider.parse().unwrap(), pbx.parse().unwrap());
    let mut inbound = Stream::new(provider, pbx);
    let mut outbound = Stream::new(pbx, provider);
    let mut world = World::with_provider(speaks_tcp);
    let mut send = |world: &mut World, direction, message: Msg| {
        let stream = match direction {
            Direction::Ingress => &mut inbound,
            Direction::Egress => &mut outbound,
        };
        for bytes in message.bytes().chunks(size) {
            let segment = stream.segment(bytes);
            world.packet(direction, &segment);
        }
    };
    send(
        &mut world,
        Direction::Ingress,
        request("INVITE", 1).sdp(sdp(MEDIA, 20_000)),
    );
    world.expect_closed();
    send(
        &mut world,
        Direction::Egress,
        response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)),
    );
    world.expect(&["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"]);
    send(
        &mut world,
        Direction::Ingress,
        request("ACK", 1).to("callee"),
    );
    send(
        &mut world,
        Direction::Ingress,
        request("BYE", 2).to("callee"),
    );
    send(&mut world, Direction::Egress, response(200, "BYE", 2));
    world.expect_closed();
    assert_eq!(world.refusals(), []);
}

#[test]
fn a_call_over_tcp_opens_and_closes_its_pinholes() {
    for size in [100_000, 500, 7] {
        call_over_tcp(&format!("{PROVIDER}:40001"), &format!("{PBX}:5060"), size);
        call_over_tcp(&format!("{PROVIDER}:5060"), &format!("{PBX}:40001"), size);
    }
}

#[test]
fn a_call_in_fragments_opens_its_pinholes() {
    let (provider, pbx) = (PROVIDER.parse().unwrap(), PBX.parse().unwrap());
    let mut world = World::new();
    let mut send = |direction, message: Msg| {
        let whole = match direction {
            Direction::Ingress => udp(provider, pbx, &message.bytes()),
            Direction::Egress => udp(pbx, provider, &message.bytes()),
        };
        let (header, datagram) = whole.split_at(20);
        let parts = datagram.chunks(104).enumerate().collect::<Vec<_>>();
        // The last one first.
        for (index, part) in parts.iter().rev() {
            let mut packet = header.to_vec();
            packet.extend(*part);
            let length = u16::try_from(packet.len()).unwrap();
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            let is_last = index + 1 == parts.len();
            let word = u16::try_from(index * 13).unwrap() | if is_last { 0 } else { 0x2000 };
            packet[6..8].copy_from_slice(&word.to_be_bytes());
            world.packet(direction, &packet);
        }
    };
    send(
        Direction::Ingress,
        request("INVITE", 1).sdp(sdp(MEDIA, 20_000)),
    );
    send(
        Direction::Egress,
        response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)),
    );
    world.expect(&["10000 rtp 198.51.100.77", "10001 rtcp 198.51.100.77"]);
    assert_eq!(world.refusals(), []);
}

/// Two calls of the provider's, and one segment of the PBX's that brings these messages, while the kernel refuses some of the `Open`s.
fn at_once(messages: &[Msg], refused: [bool; 4]) -> World {
    let mut stream = Stream::new(
        format!("{PBX}:5060").parse().unwrap(),
        format!("{PROVIDER}:40001").parse().unwrap(),
    );
    let mut world = World::with_provider(speaks_tcp);
    for (call, media) in [("one", MEDIA), ("two", "198.51.100.78")] {
        world.provider_sends(request("INVITE", 1).call(call).sdp(sdp(media, 20_000)));
    }
    world.refused = refused.into();
    let bytes: Vec<u8> = messages.iter().flat_map(Msg::bytes).collect();
    let segment = stream.segment(&bytes);
    world.packet(Direction::Egress, &segment);
    world
}

fn answer(call: &str) -> Msg {
    response(200, "INVITE", 1).call(call).sdp(sdp(PBX, 10_000))
}

fn bye(call: &str) -> Msg {
    request("BYE", 1).call(call).by_callee()
}

#[test]
fn an_answer_to_an_action_tells_nothing_of_later_ones_on_the_same_place() {
    let second = ["10000 rtp 198.51.100.78", "10001 rtcp 198.51.100.78"];
    let both = [
        "10000 rtp 198.51.100.77 198.51.100.78",
        "10001 rtcp 198.51.100.77 198.51.100.78",
    ];
    let reopened = [answer("one"), bye("one"), answer("two")];
    let united = [answer("one"), answer("two")];
    for (messages, refused, pinholes) in [
        // The kernel has no room for the first, and room again for the second.
        (&reopened[..], [true, true, false, false], &second[..]),
        // The other way round.
        (&reopened[..], [false, false, true, true], &[]),
        // Refused, and made up for by the update behind it.
        (&united[..], [true, true, false, false], &both[..]),
    ] {
        let mut world = at_once(messages, refused);
        world.expect(pinholes);
        assert_eq!(world.engine.pinholes().count(), pinholes.len());
        for call in ["one", "two"] {
            world.provider_sends(request("BYE", 2).call(call).to("callee"));
        }
        world.expect_closed();
    }
}
