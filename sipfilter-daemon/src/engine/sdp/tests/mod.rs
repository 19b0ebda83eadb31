//! Bodies that are odd but right, wrong, or no SDP at all.
//!
//! `table` and `addresses` have one entry per habit and trap, `property` says what holds for every input.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod addresses;
mod property;
mod table;

use std::net::IpAddr;

use super::*;

/// The rest of an audio section that says nothing special.
fn audio() -> MediaDescription {
    MediaDescription {
        kind: MediaKind::Audio,
        protocol: Protocol::Rtp,
        port: 5000,
        port_count: 1,
        connections: vec![address("192.0.2.1")],
        direction: MediaDirection::SendRecv,
        rtcp: Rtcp::default(),
        candidates: Vec::new(),
        ice: false,
        fingerprint: false,
        crypto: false,
        payload_types: 1,
        packet_time: None,
        bandwidth: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> Connection {
    Connection::Address(ip(text))
}

fn name(text: &str) -> Connection {
    Connection::Name(text.to_owned())
}

/// Reads `lines` (`|` stands for a line end) behind `v=0`, with each kind of line end.
fn check(lines: &str, expect: Result<Vec<MediaDescription>, SdpError>) {
    let expect = expect.map(|media| SessionDescription { media });
    for end in ["\r\n", "\n", "\r"] {
        let body = format!("v=0|{lines}").replace('|', end);
        assert_eq!(parse(body.as_bytes(), 4), expect, "{body:?}");
        let body = body + end;
        assert_eq!(parse(body.as_bytes(), 4), expect, "{body:?}");
    }
}

/// Reads one audio section with the given lines behind its `m=` line.
fn check_audio(lines: &str, expect: MediaDescription) {
    check(
        &format!("c=IN IP4 192.0.2.1|m=audio 5000 RTP/AVP 0|{lines}"),
        Ok(vec![expect]),
    );
}
