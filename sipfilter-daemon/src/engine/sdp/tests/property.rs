//! What holds for every input: no panic, the endpoints of a model, and agreement with `sdp-types` on whole, well-formed bodies.

use std::{fmt::Write, net::IpAddr};

use proptest::{collection::vec, option, prelude::*, sample::Index};

use sipfilter_common::sdp_scan::{MAX_PORTS, Scan};

use super::super::*;

/// A description by its endpoints, and choices of how to write it.
#[derive(Debug, Clone)]
struct Model {
    session: Option<IpAddr>,
    direction: Option<MediaDirection>,
    media: Vec<Section>,
    noise: bool,
    lf: bool,
}

#[derive(Debug, Clone)]
struct Section {
    kind: MediaKind,
    secure: bool,
    port: u16,
    own: Vec<IpAddr>,
    direction: Option<MediaDirection>,
    rtcp: Rtcp,
    candidates: Vec<Candidate>,
    payload_types: Vec<u8>,
}

const NOISE: &str = "b=AS:64\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 x=1;y=2\r\na=maxptime:20\r\n";

fn connection(address: &IpAddr) -> String {
    format!(
        "c=IN IP{} {address}\r\n",
        if address.is_ipv4() { 4 } else { 6 }
    )
}

fn direction(direction: Option<MediaDirection>) -> &'static str {
    match direction {
        None => "",
        Some(MediaDirection::SendRecv) => "a=sendrecv\r\n",
        Some(MediaDirection::SendOnly) => "a=sendonly\r\n",
        Some(MediaDirection::RecvOnly) => "a=recvonly\r\n",
        Some(MediaDirection::Inactive) => "a=inactive\r\n",
    }
}

impl Section {
    fn text(&self, noise: bool) -> String {
        let kind = match self.kind {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
            MediaKind::Image => "image",
            MediaKind::Other => "text",
        };
        let protocol = if self.secure { "RTP/SAVP" } else { "RTP/AVP" };
        let mut text = format!("m={kind} {} {protocol}", self.port);
        for payload_type in &self.payload_types {
            write!(text, " {payload_type}").unwrap();
        }
        text += "\r\n";
        self.own
            .iter()
            .for_each(|address| text += &connection(address));
        if noise {
            text += NOISE;
        }
        text += direction(self.direction);
        if self.rtcp.mux {
            text += "a=rtcp-mux\r\n";
        }
        match self.rtcp.explicit {
            Some((port, Some(address))) => {
                write!(text, "a=rtcp:{port} IN IP4 {address}\r\n").unwrap()
            }
            Some((port, None)) => write!(text, "a=rtcp:{port}\r\n").unwrap(),
            None => {}
        }
        for Candidate {
            component,
            address,
            port,
        } in &self.candidates
        {
            write!(
                text,
                "a=candidate:f {component} udp 7 {address} {port} typ host\r\n"
            )
            .unwrap();
        }
        if self.secure {
            text += "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc\r\n";
        }
        text
    }

    fn expect(&self, model: &Model) -> MediaDescription {
        let mut connections = Vec::new();
        let session = Vec::from_iter(model.session);
        for address in if self.own.is_empty() {
            &session
        } else {
            &self.own
        } {
            let connection = Connection::Address(address.to_canonical());
            if !connections.contains(&connection) {
                connections.push(connection);
            }
        }
        MediaDescription {
            kind: self.kind,
            protocol: Protocol::Rtp,
            port: self.port,
            port_count: 1,
            connections,
            direction: self.direction.or(model.direction).unwrap_or_default(),
            rtcp: self.rtcp,
            candidates: self.candidates.clone(),
            ice: false,
            fingerprint: false,
            crypto: self.secure,
            payload_types: self.payload_types.iter().fold(0, |set, bit| set | 1 << bit),
            packet_time: None,
            bandwidth: model.noise.then_some(64_000),
        }
    }
}

impl Model {
    fn text(&self) -> Vec<u8> {
        let mut text = String::from("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n");
        text += &self.session.as_ref().map_or(String::new(), connection);
        text += "t=0 0\r\n";
        text += direction(self.direction);
        if self.noise {
            text += NOISE;
        }
        for section in &self.media {
            text += &section.text(self.noise);
        }
        if self.lf {
            text = text.replace('\r', "");
        }
        text.into_bytes()
    }

    fn expect(&self) -> SessionDescription {
        SessionDescription {
            media: self
                .media
                .iter()
                .map(|section| section.expect(self))
                .collect(),
        }
    }
}

fn directions() -> impl Strategy<Value = Option<MediaDirection>> {
    option::of(prop_oneof![
        Just(MediaDirection::SendRecv),
        Just(MediaDirection::SendOnly),
        Just(MediaDirection::RecvOnly),
        Just(MediaDirection::Inactive),
    ])
}

fn canonical() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|address| address.to_canonical())
}

fn section() -> impl Strategy<Value = Section> {
    let kinds = prop_oneof![
        Just(MediaKind::Audio),
        Just(MediaKind::Video),
        Just(MediaKind::Image),
        Just(MediaKind::Other)
    ];
    let specified = canonical().prop_filter("unspecified counts as none", |address| {
        !address.is_unspecified()
    });
    let rtcp = (any::<bool>(), option::of((1_u16.., option::of(specified))));
    let rtcp = rtcp.prop_map(|(mux, explicit)| Rtcp { mux, explicit });
    let candidate = (1..=256_u16, canonical(), 1_u16..);
    let candidate = candidate.prop_map(|(component, address, port)| Candidate {
        component,
        address,
        port,
    });
    let payload_types = vec(0..128_u8, 1..8);
    (
        kinds,
        any::<bool>(),
        any::<u16>(),
        vec(any::<IpAddr>(), 0..3),
        directions(),
        rtcp,
        vec(candidate, 0..3),
        payload_types,
    )
        .prop_map(
            |(kind, secure, port, own, direction, rtcp, candidates, payload_types)| Section {
                kind,
                secure,
                port,
                own,
                direction,
                rtcp,
                candidates,
                payload_types,
            },
        )
}

fn model() -> impl Strategy<Value = Model> {
    (
        option::of(any::<IpAddr>()),
        directions(),
        vec(section(), 0..4),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(session, direction, media, noise, lf)| Model {
            session,
            direction,
            media,
            noise,
            lf,
        })
}

proptest! {
    #[test]
    fn a_model_s_body_gives_the_model_s_endpoints(model in model()) {
        prop_assert_eq!(parse(&model.text(), 8), Ok(model.expect()));
    }

    #[test]
    fn sdp_types_reads_the_same_from_the_whole_body(model in model()) {
        let text = model.text();
        let ours = parse(&text, 8).unwrap();
        let theirs = sdp_types::Session::parse(&text).unwrap();
        prop_assert_eq!(ours.media.len(), theirs.medias.len());
        let session = theirs.connection.as_slice();
        for (ours, theirs) in ours.media.iter().zip(&theirs.medias) {
            prop_assert_eq!(ours.port, theirs.port);
            let lines = match theirs.connections.as_slice() {
                [] => session,
                own => own,
            };
            let lines: Vec<IpAddr> = lines
                .iter()
                .map(|line| line.connection_address.parse::<IpAddr>().unwrap().to_canonical())
                .collect();
            for line in &lines {
                prop_assert!(ours.connections.contains(&Connection::Address(*line)));
            }
            prop_assert!(ours.connections.len() <= lines.len());
        }
    }

    #[test]
    fn the_kernel_s_scan_finds_the_ports_that_are_read(model in model()) {
        let text = [b"SIP/2.0 200 OK\r\n\r\n".to_vec(), model.text()].concat();
        let mut scan = Scan::default();
        text.iter().for_each(|byte| scan.push(*byte));
        let found = scan.ports().into_iter().rev().filter(|port| *port != 0);
        let read = parse(&model.text(), 8).unwrap().media.into_iter();
        let read = read
            .filter(|media| media.kind != MediaKind::Image && media.port != 0)
            .map(|media| media.port);
        prop_assert!(found.eq(read.take(MAX_PORTS)));
    }

    #[test]
    fn the_kernel_s_scan_finds_no_port_outside_media_lines(
        lines in "(m=|audio|[0-9/+]{0,6}| |RTP/AVP 0|c=IN IP4 |a=|\r\n|\n|\r|=|m|x){0,80}",
    ) {
        let mut scan = Scan::default();
        lines.bytes().for_each(|byte| scan.push(byte));
        for port in scan.ports().into_iter().filter(|port| *port != 0) {
            let digits = port.to_string();
            let names = |line: &str| {
                let mut words = line.strip_prefix("m=").unwrap_or_default().split([' ', '\t', '/']);
                words.any(|word| word.trim_start_matches('0') == digits)
            };
            prop_assert!(lines.split('\n').any(names), "{port} in {lines:?}");
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), max_media in 0..4_usize) {
        _ = parse(&bytes, max_media);
    }

    #[test]
    fn arbitrary_lines_never_panic_and_never_exceed_the_caps(
        lines in "(v=0|m=|audio |[0-9/+]{0,6} |RTP/AVP |c=IN IP[46] |[0-9.:/%a-f]{0,9}|a=|candidate:|rtcp:|rtcp-mux|udp |\r\n|\n|\r|=| |\u{e9}|\0){0,60}",
    ) {
        if let Ok(session) = parse(format!("v=0\r\n{lines}").as_bytes(), 2) {
            prop_assert!(session.media.len() <= 2);
            for media in session.media {
                prop_assert!(media.port_count > 0);
                prop_assert!(media.port.checked_add(media.port_count - 1).is_some());
            }
        }
    }

    #[test]
    fn mutated_bodies_never_panic(model in model(), edits in vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..8)) {
        let mut text = model.text();
        for (at, byte, edit) in edits {
            let at = at.index(text.len());
            match edit {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 if text.len() > 1 => drop(text.remove(at)),
                _ => text.truncate(at.max(1)),
            }
        }
        _ = parse(&text, 3);
    }
}
