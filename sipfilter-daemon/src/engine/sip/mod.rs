//! SIP messages: what the engine reads of one, framed and scanned by our own code, in rsip's vocabulary.
//!
//! It does not keep state and does not judge what a message means for a call (`call` does). It does not read rsip's wire
//! format parser's results: that one refuses or misreads too much of what real peers send. No input panics, and junk is refused
//! before anything is allocated.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod body;
pub mod claims;
mod fields;
pub mod framing;
mod head;
mod lines;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use rsip::Method;

use framing::{Framed, MAX_BODY, MAX_HEAD, MAX_HEADERS, frame_datagram, frame_stream};
pub use scan::Scan;

/// Reads of a UDP datagram (RFC 3261 §18.3) what tells whether its message can concern a call. Anything behind the declared body is
/// not looked at. It refuses all that [`parse_datagram`] refuses.
///
/// # Errors
/// [`SipError::KeepAlive`] for a datagram that only keeps a binding open; every other variant is a fault of the sender.
pub fn scan_datagram(bytes: &[u8]) -> Result<Scan<'_>, SipError> {
    scan(frame_datagram(bytes)?)
}

/// Reads the message that a UDP datagram carries: its scan and the rest.
///
/// # Errors
/// Those of [`scan_datagram`].
pub fn parse_datagram(bytes: &[u8]) -> Result<Message<'_>, SipError> {
    scan_datagram(bytes).map(Scan::into_message)
}

/// Reads the first message of a stream's pending bytes, and says how many of them it took. `None` waits for more bytes.
///
/// The inner error refuses one message (or is a keep-alive) and reading goes on behind it.
///
/// # Errors
/// The outer error means that the stream's framing is lost: nothing behind it can be trusted.
#[expect(
    clippy::type_complexity,
    reason = "one use; a name would hide which error ends the stream"
)]
pub fn parse_stream(
    bytes: &[u8],
) -> Result<Option<(Result<Message<'_>, SipError>, usize)>, SipError> {
    Ok(frame_stream(bytes)?
        .map(|(framed, consumed)| (scan(framed).map(Scan::into_message), consumed)))
}

fn scan(framed: Framed<'_>) -> Result<Scan<'_>, SipError> {
    match framed {
        Framed::KeepAlive => Err(SipError::KeepAlive),
        Framed::Message(frame) => Scan::read(frame),
    }
}

/// One SIP message, as far as dialogs and media are concerned (RFC 3261 §7). Text is borrowed wherever no line was folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Request or response.
    pub start: Start<'a>,
    /// Call-ID (§20.8), trimmed, never empty.
    pub call_id: Cow<'a, str>,
    /// CSeq (§20.16).
    pub cseq: CSeq<'a>,
    /// The From tag (§20.20); absent in RFC 2543 messages.
    pub from_tag: Option<Cow<'a, str>>,
    /// The To tag (§20.39); absent in a request outside a dialog.
    pub to_tag: Option<Cow<'a, str>>,
    /// The branch of the topmost Via (§20.42).
    pub branch: Option<Cow<'a, str>>,
    /// The body's SDP, if it is or contains `application/sdp` (a part of a multipart body included).
    pub sdp: Option<&'a [u8]>,
    /// Session-Expires in seconds (RFC 4028 §4), where it is a number.
    pub session_expires: Option<u32>,
    /// A provider's own call identifier (`X-Twilio-CallSid` and the like): header name and value.
    pub provider_call_id: Option<(Cow<'a, str>, Cow<'a, str>)>,
    /// Other calls that it names.
    pub related: Related<'a>,
}

/// What a message says of other calls. It opens and closes nothing: a transfer's INVITE is a call of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Related<'a> {
    /// The Call-ID in Replaces (RFC 3891 §3).
    pub replaces: Option<Cow<'a, str>>,
    /// Referred-By (RFC 3892 §3).
    pub referred_by: Option<Cow<'a, str>>,
    /// Refer-To (RFC 3515 §2.1).
    pub refer_to: Option<Cow<'a, str>>,
}

/// The start line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request: the method (RFC 3261 §7.1); an unknown one is data.
    Request(MethodName<'a>),
    /// A response: its status code, 100 to 699 (§7.2).
    Response(u16),
}

/// A method by name: rsip's where rsip knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MethodName<'a> {
    /// A method of rsip's list.
    Known(Method),
    /// Any other token.
    Other(Cow<'a, str>),
}

/// CSeq: sequence number and method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The sequence number, below 2^31 in well-behaved messages.
    pub number: u32,
    /// The method of the request, also in its responses.
    pub method: MethodName<'a>,
}

/// Why bytes are not a SIP message that the engine can use. No variant holds text of the peer's, so none allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SipError {
    /// Not a fault: nothing but a keep-alive (RFC 5626 §3.5, or the habits of NAT boxes).
    #[error("a keep-alive, not a message")]
    KeepAlive,
    /// The first line is no SIP/2.0 start line.
    #[error("not SIP: the first line neither starts with \"SIP/2.0 \" nor ends with \" SIP/2.0\"")]
    NotSip,
    /// The start line is SIP's but breaks its grammar (RFC 3261 §7.1, §7.2).
    #[error("the start line names no method and URI, or no status code from 100 to 699")]
    StartLine,
    /// The datagram ends before the empty line that ends the head.
    #[error("the datagram ends inside the message head")]
    HeadUnterminated,
    /// The head is larger than [`MAX_HEAD`].
    #[error("the message head is larger than {MAX_HEAD} bytes")]
    HeadTooLarge,
    /// The head has more than [`MAX_HEADERS`] lines.
    #[error("the message head has more than {MAX_HEADERS} lines")]
    TooManyHeaders,
    /// A CR without its LF in the head: receivers disagree on whether it ends the line.
    #[error("a bare CR inside the message head")]
    BareCr,
    /// The line behind the start line is a continuation line.
    #[error("the start line is continued on a second line")]
    FoldedStartLine,
    /// Content-Length is not a plain number (RFC 3261 §20.14).
    #[error("Content-Length is not a plain decimal number")]
    ContentLength,
    /// Two Content-Length headers disagree.
    #[error("Content-Length is given twice, with different values")]
    ContentLengthConflict,
    /// Content-Length says more than the datagram holds (RFC 3261 §18.3).
    #[error("Content-Length is {declared}, but the datagram holds {held} bytes of body")]
    BodyTruncated {
        /// The header's value.
        declared: usize,
        /// What is there.
        held: usize,
    },
    /// The body is larger than [`MAX_BODY`].
    #[error("the body is larger than {MAX_BODY} bytes")]
    BodyTooLarge,
    /// A header that every message must have is absent (RFC 3261 §8.1.1).
    #[error("no {0} header")]
    Missing(HeaderName),
    /// A header that may stand once stands twice (RFC 3261 §7.3.1): receivers disagree on which one counts.
    #[error("more than one {0} header")]
    Repeated(HeaderName),
    /// The Call-ID is empty or has white space or control characters in it.
    #[error("the Call-ID is empty, or has white space or control characters in it")]
    CallId,
    /// The CSeq is not a number below 2^32 and a method.
    #[error("the CSeq is not a 32-bit number followed by a method")]
    CSeq,
    /// The CSeq of a request names another method than its start line (RFC 3261 §8.1.1.5).
    #[error("the CSeq names another method than the request line")]
    CSeqMethod,
    /// A multipart body without a usable boundary parameter (RFC 2046 §5.1.1).
    #[error("a multipart body without a usable boundary")]
    Boundary,
    /// Unsupported: the SDP is compressed or otherwise encoded.
    #[error(
        "the SDP body is encoded (Content-Encoding or Content-Transfer-Encoding), which cannot be read"
    )]
    EncodedSdp,
}

/// The headers that a [`SipError`] can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderName {
    /// Call-ID
    CallId,
    /// CSeq
    CSeq,
    /// From
    From,
    /// To
    To,
    /// Content-Type
    ContentType,
}

impl std::fmt::Display for HeaderName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CallId => "Call-ID",
            Self::CSeq => "CSeq",
            Self::From => "From",
            Self::To => "To",
            Self::ContentType => "Content-Type",
        })
    }
}
