//! What nobody may read in a capture: SIP credentials and media keys, blanked where they stand.
//!
//! It knows one packet at a time. A TCP segment or a fragment may begin in the middle of anything, so its first line is taken for the
//! rest of a credential, unless a message begins there. Invariants: a packet keeps its length and its headers below SIP; checksums are
//! not mended, as the kernel's copies have unfinished ones anyway.

use std::ops::Range;

use sipfilter_common::{
    parse::{self, Fragment, Ip, Network},
    reader::Reader,
};

/// What stands in place of what was there.
const BLANK: u8 = b'X';
/// Offset and unit of the header length in a TCP header (RFC 9293 §3.1).
const TCP_OFFSET: usize = 12;
const UDP_HEADER: usize = 8;

/// Endings of header names whose whole value goes: credentials, and the digests that prove them (RFC 3261 §20.7, §20.28, §20.6;
/// RFC 7615 §4). Challenges stay: they hold no secret, and tell why there is a second request.
const HEADERS: [&[u8]; 2] = [b"authorization", b"authentication-info"];

/// What makes the rest of a line go, wherever it stands: the digests themselves (RFC 7616 §3.4, §3.5), a header within a URI
/// (RFC 3261 §19.1.1), and keys of SRTP (RFC 4568 §6.1).
const MARKS: [&[u8]; 4] = [b"response=", b"rspauth=", b"authorization=", b"inline:"];

/// Blanks what is secret in a packet, which begins with its Ethernet header and may be cut short; tells how many bytes that were.
pub fn blank(packet: &mut [u8]) -> usize {
    let text = text(packet);
    let Some(text_bytes) = packet.get_mut(text.start..) else {
        return 0;
    };
    let mut rest = text_bytes;
    let mut may_be_inside = text.may_be_inside && !begins_message(rest);
    let mut blanked = 0;
    while !rest.is_empty() {
        let (line, behind) = rest.split_at_mut(line_end(rest));
        blanked += if may_be_inside && is_text(line) {
            fill(line, 0..line.len())
        } else {
            blank_line(line)
        };
        may_be_inside = false;
        rest = match behind {
            [b'\r', b'\n', next @ ..] | [_, next @ ..] => next,
            [] => behind,
        };
    }
    blanked
}

/// Where in a packet SIP may stand.
struct Text {
    start: usize,
    /// What comes first may belong to a line of another packet.
    may_be_inside: bool,
}

fn text(packet: &[u8]) -> Text {
    let cut = Cut(packet);
    let found = match parse::parse_ethernet(&cut) {
        Ok(Network::Ipv4(start)) => parse::parse_ipv4(&cut, start)
            .ok()
            .and_then(|ip| within(&cut, &ip)),
        Ok(Network::Ipv6(start)) => parse::parse_ipv6(&cut, start)
            .ok()
            .and_then(|ip| within(&cut, &ip)),
        _ => None,
    };
    // In what cannot be read, everything is looked through.
    found.unwrap_or(Text {
        start: 0,
        may_be_inside: false,
    })
}

fn within<A>(packet: &Cut<'_>, ip: &Ip<A>) -> Option<Text> {
    let (header, may_be_inside) = match (ip.fragment, ip.protocol) {
        (Fragment::Later { .. }, _) => (0, true),
        (_, parse::UDP) => (UDP_HEADER, false),
        (_, parse::TCP) => {
            let offset = packet.byte(ip.transport + TCP_OFFSET)?;
            (usize::from(offset >> 4) * 4, true)
        }
        _ => return None,
    };
    Some(Text {
        start: ip.transport + header,
        may_be_inside,
    })
}

/// A packet of which perhaps only the beginning is there.
struct Cut<'a>(&'a [u8]);

impl Reader for Cut<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        usize::MAX
    }
}

/// Whether a request or status line comes first (RFC 3261 §7.1, §7.2).
fn begins_message(text: &[u8]) -> bool {
    const VERSION: &[u8] = b"SIP/2.0";
    let line = text.split(|byte| is_break(*byte)).next().unwrap_or(text);
    if let Some(behind) = line.strip_prefix(VERSION) {
        return behind.starts_with(b" ");
    }
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && words.next().is_some_and(|uri| uri.contains(&b':'))
        && words.next() == Some(VERSION)
        && words.next().is_none()
}

/// Where the first line ends, with those that continue it (RFC 3261 §7.3.1). Each half of CRLF alone ends a line as well, as some
/// readers take it.
fn line_end(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let Some(found) = text.iter().skip(at).position(|byte| is_break(*byte)) else {
            return text.len();
        };
        let end = at + found;
        let behind = match text.get(end..) {
            Some([b'\r', b'\n', behind @ ..] | [_, behind @ ..]) => behind,
            _ => return end,
        };
        if !matches!(behind, [b' ' | b'\t', ..]) {
            return end;
        }
        at = text.len() - behind.len();
    }
}

fn blank_line(line: &mut [u8]) -> usize {
    let blanked = if let Some(value) = value(line) {
        fill(line, value)
    } else if let Some(start) = MARKS.iter().filter_map(|mark| behind(line, mark)).min() {
        fill(line, start..line.len())
    } else {
        0
    };
    blanked + blank_passwords(line)
}

/// A secret header's value, or that of a key in SDP (RFC 4566 §5.12).
fn value(line: &[u8]) -> Option<Range<usize>> {
    if line.starts_with(b"k=") {
        return Some(2..line.len());
    }
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    let is_secret = HEADERS.iter().any(|ending| {
        let start = name.len().checked_sub(ending.len());
        start
            .and_then(|start| name.get(start..))
            .is_some_and(|end| end.eq_ignore_ascii_case(ending))
    });
    is_secret.then_some(colon + 1..line.len())
}

/// Behind a mark's first place.
fn behind(line: &[u8], mark: &[u8]) -> Option<usize> {
    line.windows(mark.len())
        .position(|window| window.eq_ignore_ascii_case(mark))
        .map(|at| at + mark.len())
}

/// Passwords in URIs (RFC 3261 §19.1.1: "not recommended", and there).
fn blank_passwords(line: &mut [u8]) -> usize {
    let mut blanked = 0;
    let mut at = 0;
    while let Some(found) = line.get(at..).and_then(|rest| behind(rest, b"sip")) {
        at += found;
        let start = match line.get(at..) {
            Some([b':', ..]) => at + 1,
            Some([b's' | b'S', b':', ..]) => at + 2,
            _ => continue,
        };
        let uri = line.get(start..).unwrap_or_default();
        let end = uri.iter().position(|byte| {
            matches!(
                byte,
                b'<' | b'>' | b'"' | b' ' | b'\t' | b',' | b'\r' | b'\n'
            )
        });
        let uri = uri.get(..end.unwrap_or(uri.len())).unwrap_or_default();
        let length = uri.len();
        let host = uri.iter().rposition(|byte| *byte == b'@');
        let password = uri.iter().position(|byte| *byte == b':');
        if let (Some(host), Some(password)) = (host, password)
            && password < host
        {
            blanked += fill(line, start + password + 1..start + host);
        }
        at = start + length;
    }
    blanked
}

fn fill(line: &mut [u8], range: Range<usize>) -> usize {
    let Some(secret) = line.get_mut(range) else {
        return 0;
    };
    secret.fill(BLANK);
    secret.len()
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether it can be of a SIP message; media and TLS seldom can.
fn is_text(line: &[u8]) -> bool {
    line.iter()
        .all(|byte| !byte.is_ascii_control() || matches!(byte, b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const ETHERNET_AND_IP: usize = 14 + 20;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([0; 6], [0; 6])
            .ipv4([192, 0, 2, 1], [203, 0, 113, 10], 64)
            .udp(5_060, 5_060)
            .write(&mut packet, payload)
            .expect("it fits");
        packet
    }

    fn tcp(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([0; 6], [0; 6])
            .ipv6([1; 16], [2; 16], 64)
            .tcp(5_060, 5_060, 7, 1_000)
            .write(&mut packet, payload)
            .expect("it fits");
        packet
    }

    /// The second fragment of a datagram.
    fn fragment(payload: &[u8]) -> Vec<u8> {
        let mut packet = udp(payload);
        // The UDP header's place is the payload's.
        packet.drain(ETHERNET_AND_IP..ETHERNET_AND_IP + UDP_HEADER);
        let length = u16::try_from(packet.len() - 14).expect("short");
        packet[16..18].copy_from_slice(&length.to_be_bytes());
        packet[20..22].copy_from_slice(&[0, 100]);
        packet
    }

    fn check(make: fn(&[u8]) -> Vec<u8>, payload: &str, expect: &str) {
        let mut packet = make(payload.as_bytes());
        let before = packet.clone();
        let blanked = blank(&mut packet);
        let start = packet.len() - payload.len();
        let text = String::from_utf8_lossy(&packet[start..]);
        assert_eq!(text, expect, "of {payload:?}");
        assert_eq!(packet[..start], before[..start], "headers of {payload:?}");
        let changed = packet.iter().zip(&before).filter(|(now, then)| now != then);
        assert_eq!(blanked, changed.count(), "{payload:?}");
    }

    #[test]
    fn credentials_go_and_everything_else_stays() {
        for (payload, expect) in [
            (
                "REGISTER sip:gw.example SIP/2.0\r\nAuthorization: Digest response=\"6629\"\r\nTo: <sip:a@b>\r\n\r\n",
                "REGISTER sip:gw.example SIP/2.0\r\nAuthorization:XXXXXXXXXXXXXXXXXXXXXXX\r\nTo: <sip:a@b>\r\n\r\n",
            ),
            (
                "proxy-AUTHORIZATION \t:a\r\nb: c",
                "proxy-AUTHORIZATION \t:X\r\nb: c",
            ),
            (
                "Authorization:a\r\n b\r\n\tc\r\nTo: d",
                "Authorization:XXXXXXXXX\r\nTo: d",
            ),
            ("a: b\rAuthorization:c\nd: e", "a: b\rAuthorization:X\nd: e"),
            ("X-Old-Authorization:a", "X-Old-Authorization:X"),
            (
                "Authentication-Info:rspauth=\"a\"",
                "Authentication-Info:XXXXXXXXXXX",
            ),
            (
                "X-Why: Digest response=\"ab\", b",
                "X-Why: Digest response=XXXXXXX",
            ),
            (
                "To: <sip:a@b?Authorization=Digest%20c>",
                "To: <sip:a@b?Authorization=XXXXXXXXXXX",
            ),
            (
                "WWW-Authenticate: Digest nonce=\"a\"",
                "WWW-Authenticate: Digest nonce=\"a\"",
            ),
            (
                "From: <sip:alice:secret@b>;tag=1, <SIPS:c:d@e>",
                "From: <sip:alice:XXXXXX@b>;tag=1, <SIPS:c:X@e>",
            ),
            (
                "To: <sip:b:5060>, <sip:c@d:5061;x=y>",
                "To: <sip:b:5060>, <sip:c@d:5061;x=y>",
            ),
            (
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:YWJj|2^20\r\nk=clear:a\r\n",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:XXXXXXXXX\r\nk=XXXXXXX\r\n",
            ),
            (
                "Allow: INVITE\r\nAuthorization",
                "Allow: INVITE\r\nAuthorization",
            ),
            ("", ""),
        ] {
            check(udp, payload, expect);
        }
    }

    #[test]
    fn what_may_be_the_rest_of_a_credential_goes() {
        for make in [tcp, fragment] {
            for (payload, expect) in [
                ("ponse=\"6629\"\r\nTo: a", "XXXXXXXXXXXX\r\nTo: a"),
                ("\r\n response=a\r\nTo: b", "XXXXXXXXXXXXX\r\nTo: b"),
                ("abc", "XXX"),
                ("\r\nTo: a", "\r\nTo: a"),
                (
                    "INVITE sip:a SIP/2.0\r\nTo: b",
                    "INVITE sip:a SIP/2.0\r\nTo: b",
                ),
                ("SIP/2.0 200 OK\r\nk=a", "SIP/2.0 200 OK\r\nk=X"),
                ("SIP/2.0\"\r\nTo: b", "XXXXXXXX\r\nTo: b"),
                ("a INVITE sip:a SIP/2.0", "XXXXXXXXXXXXXXXXXXXXXX"),
                ("\u{16}\u{3}\u{1}TLS", "\u{16}\u{3}\u{1}TLS"),
            ] {
                check(make, payload, expect);
            }
        }
    }

    #[test]
    fn wherever_a_stream_is_cut_no_part_of_the_secret_is_left() {
        let secret = "0123456789abcdef0123456789abcdef";
        for fold in ["", "\r\n "] {
            let message = format!(
                "REGISTER sip:gw.example SIP/2.0\r\nProxy-Authorization: Digest username=\"a\",{fold}response=\"{secret}\"\r\nExpires: 60\r\n\r\n"
            );
            for cut in 1..message.len() {
                let (head, tail) = message.split_at(cut);
                let mut text = Vec::new();
                for part in [head, tail] {
                    let mut packet = tcp(part.as_bytes());
                    blank(&mut packet);
                    text.extend_from_slice(&packet[packet.len() - part.len()..]);
                }
                assert_eq!(text.len(), message.len());
                for part in secret.as_bytes().chunks(4) {
                    assert!(
                        !text.windows(part.len()).any(|window| window == part),
                        "cut at {cut}: {}",
                        String::from_utf8_lossy(&text)
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_that_is_cut_short_panics() {
        for packet in [
            udp(b"Authorization: a"),
            tcp(b"Authorization: a"),
            fragment(b"Authorization: a"),
        ] {
            for length in 0..packet.len() {
                blank(&mut packet[..length].to_vec());
            }
        }
    }
}
