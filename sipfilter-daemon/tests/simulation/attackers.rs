//! Everybody who is no party to a call: strangers, spoofers of a provider's signalling address, and who replays what was overheard.
//!
//! The PBX ignores what they say (it knows its dialogs), so nothing of theirs is ever negotiated, and nothing of theirs may pass.

use std::net::SocketAddr;

use sipfilter_daemon::engine::Direction;

use crate::{
    call::Call,
    frames::{TcpHeader, tcp, udp},
    places::{PBX, address, media_address, pbx, signalling},
    wire::{Component, Desc, Hold, Medium, Section, Shape, Side, Sip, media, udptl},
    world::{Kind, Packet, World},
};

impl World {
    /// One attack of a random kind.
    pub fn attack(&mut self) {
        match self.random.below(10) {
            0..=2 => self.send_media_as_stranger(),
            3 => self.send_media_to_a_wrong_port(),
            4 => self.call_with_a_providers_address(),
            5 | 6 => self.join_a_call(),
            7 => self.send_junk_as_a_provider(),
            8 => self.break_into_a_connection(),
            _ => self.replay(),
        }
    }

    fn hostile(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) {
        self.send_frame(Packet {
            direction: Direction::Ingress,
            frame: udp(source, destination, payload),
            kind: Kind::Hostile(Shape::Rtp),
        });
    }

    /// Not RTP, from an address and to a place that some call has negotiated: welcome as fax only.
    fn send_junk_as_a_provider(&mut self) {
        let places: Vec<(SocketAddr, SocketAddr)> = self
            .calls
            .iter()
            .flat_map(|call| &call.dialogs)
            .filter_map(|dialog| dialog.ends[Side::Provider as usize].flow(0, Component::Rtp))
            .map(|(from, to, _)| (from, to))
            .collect();
        if places.is_empty() {
            return;
        }
        let (source, destination) = *self.random.pick(&places);
        let junk = udptl(self.random.next());
        self.send_frame(Packet {
            direction: Direction::Ingress,
            frame: udp(source, destination, &junk),
            kind: Kind::Hostile(Shape::Other),
        });
    }

    /// Data, a reset or a new beginning for somebody else's connection, by who can only guess its sequence numbers.
    fn break_into_a_connection(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let link = self.random.below(self.links.len());
        let (source, destination, sequence) = self.links[link].somewhere_else(Side::Provider);
        let header = TcpHeader {
            sequence,
            acknowledgment: self.random.percent(50).then(|| self.random.next() as u32),
            syn: self.random.percent(20),
            rst: self.random.percent(30),
        };
        let evil = b"BYE sip:100@example.com SIP/2.0\r\nContent-Length: 0\r\n\r\n";
        self.send_frame(Packet {
            direction: Direction::Ingress,
            frame: tcp(source, destination, header, evil),
            kind: Kind::Hostile(Shape::Other),
        });
    }

    /// To a port that the PBX uses, from an address that nobody has named, or that only an attacker's SDP has named.
    fn send_media_as_stranger(&mut self) {
        let port = self.any_port();
        let source = address(["192.0.2.66", "192.0.2.99"][self.random.below(2)]);
        let source = SocketAddr::new(source, 20_000 + self.random.below(20_000) as u16);
        let component = *self.random.pick(&[Component::Rtp, Component::Rtcp]);
        let destination = SocketAddr::new(address(PBX[0]), port);
        self.hostile(source, destination, &media(component));
    }

    /// From where a provider's media may well come, to any port of the range.
    fn send_media_to_a_wrong_port(&mut self) {
        let provider = self.random.below(4);
        let index = self.random.between(0, 5);
        let source = SocketAddr::new(
            media_address(provider, false, index),
            *self.random.pick(&[19_998, 20_000, 30_000, 40_001]),
        );
        let port = 10_000 + self.random.below(140) as u16;
        let destination = SocketAddr::new(address(PBX[0]), port);
        self.hostile(source, destination, &media(Component::Rtp));
    }

    fn any_port(&mut self) -> u16 {
        let used: Vec<u16> = self.ports.keys().copied().collect();
        match used.as_slice() {
            [] => 10_000,
            used => *self.random.pick(used),
        }
    }

    fn evil(&mut self) -> Desc {
        self.version += 1;
        Desc {
            version: self.version,
            address: address("192.0.2.66"),
            sections: vec![Section {
                medium: Medium::Audio,
                port: 20_000,
            }],
            mux: false,
            hold: Hold::None,
        }
    }

    /// A new call that the PBX refuses.
    fn call_with_a_providers_address(&mut self) {
        let evil = self.evil();
        let version = evil.version;
        let provider = self.random.below(4);
        let branch = format!("z9hG4bK-evil-{version}");
        let invite = Sip {
            start: "INVITE sip:100@example.com SIP/2.0".to_owned(),
            branch: &branch,
            from_tag: "evil",
            to_tag: None,
            call_id: &format!("evil-{version}"),
            cseq: (1, "INVITE"),
            reliable: "",
            sdp: Some(&evil),
        };
        self.hostile(
            signalling(provider, false),
            pbx(false),
            invite.text().as_bytes(),
        );
    }

    /// A message that knows a call's Call-ID and caller's tag, but not the secrets that prove its sender to be a party.
    fn join_a_call(&mut self) {
        let known: Vec<usize> = (0..self.calls.len())
            .filter(|index| self.calls[*index].known)
            .collect();
        if known.is_empty() {
            return;
        }
        let evil = self.evil();
        let index = *self.random.pick(&known);
        let kind = self.random.below(6);
        let (text, source) = {
            let other = self.random.percent(30);
            let call = &self.calls[index];
            let provider = if other {
                (call.plan.provider + 1) % 4
            } else {
                call.plan.provider
            };
            let v6 = call.plan.v6 && !other;
            (
                forge(call, kind, &evil),
                (signalling(provider, v6), pbx(v6)),
            )
        };
        self.note(|| format!("attack of kind {kind} on call {index}"));
        self.hostile(source.0, source.1, text.as_bytes());
    }

    fn replay(&mut self) {
        if self.overheard.is_empty() {
            return;
        }
        let index = self.random.below(self.overheard.len());
        let packet = Packet {
            kind: Kind::Hostile(Shape::Other),
            ..self.overheard[index].clone()
        };
        self.send_frame(packet);
    }
}

fn forge(call: &Call, kind: usize, evil: &Desc) -> String {
    let cseq = call.cseq[call.plan.caller as usize];
    let tag = call.dialogs.first().map(|dialog| dialog.tag.as_str());
    let request = |method: &'static str, from_tag, to_tag, sdp| Sip {
        start: format!("{method} sip:100@example.com SIP/2.0"),
        branch: "z9hG4bK-evil",
        from_tag,
        to_tag,
        call_id: &call.call_id,
        cseq: (cseq + 1, method),
        reliable: "",
        sdp,
    };
    let response = |status: u16, to_tag| Sip {
        start: format!("SIP/2.0 {status} Whatever"),
        branch: "z9hG4bK-evil",
        from_tag: &call.from_tag,
        to_tag,
        call_id: &call.call_id,
        cseq: (cseq, "INVITE"),
        reliable: "",
        sdp: Some(evil),
    };
    let is_caller = call.plan.caller == Side::Provider;
    match kind {
        // Answers without the branch of the INVITE.
        0 => response(200, Some("evil")),
        1 => response(183, tag),
        // Ends without the other side's tag.
        2 if is_caller => request("BYE", &call.from_tag, Some("evil"), None),
        2 => request("BYE", "evil", Some(&call.from_tag), None),
        3 => Sip {
            sdp: None,
            ..response(486, Some("evil"))
        },
        // Offers without it.
        4 if is_caller => request("INVITE", &call.from_tag, Some("evil"), Some(evil)),
        4 => request("INVITE", "evil", Some(&call.from_tag), Some(evil)),
        _ => request("UPDATE", "evil", Some("evil"), Some(evil)),
    }
    .text()
}
