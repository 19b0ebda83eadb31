//! The SIP of a measured call, as text, and the little that its agents must read of it.
//!
//! Both agents are ours and lose nothing, so there are no retransmissions, no authentication and one codec. Lines, sizes and order are
//! those of a usual trunk's messages.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use crate::lab::address::SIP_PORT;

/// The addresses of one call.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Where the provider signals from.
    pub provider: IpAddr,
    /// Where the PBX is called.
    pub pbx: IpAddr,
    /// The provider's media, as its SDP names it.
    pub provider_media: SocketAddr,
    /// The PBX's media, as its SDP names it.
    pub pbx_media: SocketAddr,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An INVITE.
    Invite,
    /// An ACK.
    Ack,
    /// A BYE.
    Bye,
    /// The 200 to an INVITE.
    Answer,
    /// The 200 to a BYE.
    Goodbye,
}

/// Kind and call of a message of ours.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<(Kind, u32)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let call = header(text, "Call-ID:")?;
    let (call, _) = call.trim().split_once('@')?;
    let call = call.parse().ok()?;
    let kind = match text.split_ascii_whitespace().next()? {
        "INVITE" => Kind::Invite,
        "ACK" => Kind::Ack,
        "BYE" => Kind::Bye,
        _ if header(text, "CSeq:")?.ends_with("INVITE") => Kind::Answer,
        _ => Kind::Goodbye,
    };
    Some((kind, call))
}

fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split("\r\n").find_map(|line| line.strip_prefix(name))
}

/// A request of the provider: its INVITE has an offer.
#[must_use]
pub fn request(kind: Kind, call: u32, ends: &Ends) -> String {
    let (method, sequence, tag) = match kind {
        Kind::Invite => ("INVITE", 1, String::new()),
        Kind::Ack => ("ACK", 1, format!(";tag=pbx{call}")),
        _ => ("BYE", 2, format!(";tag=pbx{call}")),
    };
    let (provider, pbx) = (url(ends.provider), url(ends.pbx));
    let body = match kind {
        Kind::Invite => sdp(ends.provider_media, call),
        _ => String::new(),
    };
    let mut text = format!(
        "{method} sip:+15550100@{pbx}:{SIP_PORT};transport=udp SIP/2.0\r\n\
         Via: SIP/2.0/UDP {provider}:{SIP_PORT};branch=z9hG4bK{method}{call};rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Caller {call}\" <sip:+15550{call:06}@{provider}>;tag=trunk{call}\r\n\
         To: <sip:+15550100@{pbx}>{tag}\r\n\
         Call-ID: {call}@bench.example\r\n\
         CSeq: {sequence} {method}\r\n\
         Contact: <sip:trunk@{provider}:{SIP_PORT};transport=udp>\r\n\
         User-Agent: trunk gateway\r\n"
    );
    if kind == Kind::Invite {
        text += "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, PRACK, INFO\r\n\
                 Supported: timer, 100rel, replaces\r\n\
                 P-Asserted-Identity: <sip:+15550199@trunk.example>\r\n\
                 Content-Type: application/sdp\r\n";
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
    text
}

/// The PBX's 200 to a request; the one to an INVITE has the answer.
#[must_use]
pub fn response(kind: Kind, call: u32, ends: &Ends) -> String {
    let (method, sequence) = match kind {
        Kind::Invite => ("INVITE", 1),
        _ => ("BYE", 2),
    };
    let (provider, pbx) = (url(ends.provider), url(ends.pbx));
    let (body, content_type) = match kind {
        Kind::Invite => (
            sdp(ends.pbx_media, call),
            "Content-Type: application/sdp\r\n",
        ),
        _ => (String::new(), ""),
    };
    format!(
        "SIP/2.0 200 OK\r\n\
         Via: SIP/2.0/UDP {provider}:{SIP_PORT};branch=z9hG4bK{method}{call};rport={SIP_PORT}\r\n\
         From: \"Caller {call}\" <sip:+15550{call:06}@{provider}>;tag=trunk{call}\r\n\
         To: <sip:+15550100@{pbx}>;tag=pbx{call}\r\n\
         Call-ID: {call}@bench.example\r\n\
         CSeq: {sequence} {method}\r\n\
         Server: PBX\r\n\
         Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, PRACK, INFO\r\n\
         Contact: <sip:{pbx}:{SIP_PORT}>\r\n\
         {content_type}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn sdp(media: SocketAddr, call: u32) -> String {
    let (ip, port) = (media.ip(), media.port());
    let version = if ip.is_ipv4() { 4 } else { 6 };
    format!(
        "v=0\r\no=- {call} 1 IN IP{version} {ip}\r\ns=-\r\nc=IN IP{version} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

fn url(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_reads_what_the_other_writes() {
        let ends = Ends {
            provider: [198, 51, 100, 10].into(),
            pbx: [203, 0, 113, 10].into(),
            provider_media: ([198, 51, 100, 20], 40_000).into(),
            pbx_media: ([203, 0, 113, 10], 10_000).into(),
        };
        for kind in [Kind::Invite, Kind::Ack, Kind::Bye] {
            let text = request(kind, 17, &ends);
            assert_eq!(read(text.as_bytes()), Some((kind, 17)), "{text}");
        }
        for (kind, expect) in [(Kind::Invite, Kind::Answer), (Kind::Bye, Kind::Goodbye)] {
            let text = response(kind, 17, &ends);
            assert_eq!(read(text.as_bytes()), Some((expect, 17)), "{text}");
        }
        assert_eq!(read(b"\r\n\r\n"), None);
    }
}
