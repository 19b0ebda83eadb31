//! Where a message begins and ends in a datagram or in a stream (RFC 3261 §7.5, §18.3).
//!
//! It owns every cap on what a peer may send, and reads one header only: Content-Length. The pass over the head is `head`'s; no other
//! header is read here (`scan` does), and no bytes are kept (`reassemble` does). Nothing here allocates, and nothing behind a declared
//! body is looked at.

use memchr::memchr;

use super::{
    SipError,
    head::{Found, Head, Kind, is_start_line, read_head},
    lines::{Headers, without_cr},
};

/// The largest head: start line, headers and the empty line.
pub const MAX_HEAD: usize = 32 * 1024;
/// The most lines of headers, continuation lines counted.
pub const MAX_HEADERS: usize = 256;
/// The largest body.
pub const MAX_BODY: usize = 64 * 1024;
/// The most bytes of a stream that can be pending while [`frame_stream`] waits.
pub const MAX_PENDING: usize = MAX_HEAD + MAX_BODY;

/// What stands at the front of a datagram or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed<'a> {
    /// Nothing but a keep-alive.
    KeepAlive,
    /// A message.
    Message(Frame<'a>),
}

/// One message, cut into its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The start line, without its line end.
    pub start_line: &'a [u8],
    /// The header lines, with their line ends, without the empty line.
    pub headers: &'a [u8],
    /// The body, as long as Content-Length says.
    pub body: &'a [u8],
    /// The headers of interest.
    pub(super) found: Found,
}

/// Frames a datagram: Content-Length beyond its end refuses it, a shorter one cuts, none means to the end (RFC 3261 §18.3).
///
/// # Errors
/// See [`SipError`]; bytes that are not SIP are refused by their first line.
pub fn frame_datagram(bytes: &[u8]) -> Result<Framed<'_>, SipError> {
    let message = skip_line_ends(bytes);
    if is_empty_or_nul(message) || is_stun(message) {
        return Ok(Framed::KeepAlive);
    }
    let Some(head) = read_head(message)? else {
        // Junk without a line end is told from a message that was cut short by the line as far as it goes.
        return match memchr(b'\n', message) {
            None if !is_start_line(without_cr(message)) => Err(SipError::NotSip),
            _ => Err(SipError::HeadUnterminated),
        };
    };
    let body = match head.content_length()? {
        None => head.rest,
        Some(declared) => head.rest.get(..declared).ok_or(SipError::BodyTruncated {
            declared,
            held: head.rest.len(),
        })?,
    };
    if body.len() > MAX_BODY {
        return Err(SipError::BodyTooLarge);
    }
    Ok(Framed::Message(head.with_body(body)))
}

/// Frames the first message of a stream's pending bytes, and says how many bytes it takes up, line ends in front included.
///
/// `None` waits for more bytes. Without a Content-Length there is no body (RFC 3261 §18.3 demands the header on streams).
///
/// # Errors
/// See [`SipError`]; after an error the stream's framing is lost.
pub fn frame_stream(bytes: &[u8]) -> Result<Option<(Framed<'_>, usize)>, SipError> {
    let message = skip_line_ends(bytes);
    let skipped = bytes.len() - message.len();
    if message.is_empty() {
        return Ok((skipped > 0).then_some((Framed::KeepAlive, skipped)));
    }
    let Some(head) = read_head(message)? else {
        return Ok(None);
    };
    let Some(body) = head.rest.get(..head.content_length()?.unwrap_or(0)) else {
        return Ok(None);
    };
    let consumed = bytes.len() - (head.rest.len() - body.len());
    Ok(Some((Framed::Message(head.with_body(body)), consumed)))
}

impl<'a> Head<'a> {
    fn with_body(self, body: &'a [u8]) -> Frame<'a> {
        Frame {
            start_line: self.start_line,
            headers: self.headers,
            body,
            found: self.found,
        }
    }

    /// Content-Length (§20.14). Two may stand there if they agree.
    fn content_length(&self) -> Result<Option<usize>, SipError> {
        if self.found.is_repeated(Kind::ContentLength) {
            return agreed_content_length(self.headers);
        }
        let value = self.found.value(Kind::ContentLength, self.headers);
        value.map(|value| content_length(value.bytes)).transpose()
    }
}

/// The value of all Content-Length headers among the header lines.
#[cold]
fn agreed_content_length(headers: &[u8]) -> Result<Option<usize>, SipError> {
    let mut found = None;
    for header in
        Headers::new(headers).filter(|header| Kind::of(header.name) == Some(Kind::ContentLength))
    {
        let value = content_length(header.value.bytes)?;
        if found.is_some_and(|other| other != value) {
            return Err(SipError::ContentLengthConflict);
        }
        found = Some(value);
    }
    Ok(found)
}

/// One Content-Length. Digits only, without a sign; a number too large for any integer is too large, never a smaller one.
fn content_length(value: &[u8]) -> Result<usize, SipError> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(SipError::ContentLength);
    }
    let value = digits.iter().fold(0_usize, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(usize::from(digit - b'0'))
    });
    if value > MAX_BODY {
        return Err(SipError::BodyTooLarge);
    }
    Ok(value)
}

/// RFC 3261 §7.5: line ends in front of a start line are to be ignored.
fn skip_line_ends(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Line ends alone are a keep-alive (RFC 5626 §3.5.1); some phones and NAT boxes send up to four NUL bytes.
fn is_empty_or_nul(bytes: &[u8]) -> bool {
    bytes.len() <= 4 && bytes.iter().all(|&byte| byte == 0)
}

/// A STUN binding request or answer on the SIP port (RFC 5626 §3.5.2), told by its magic cookie (RFC 8489 §5).
fn is_stun(bytes: &[u8]) -> bool {
    matches!(bytes, [0..=3, _, _, _, 0x21, 0x12, 0xa4, 0x42, ..]) && bytes.len() >= 20
}
