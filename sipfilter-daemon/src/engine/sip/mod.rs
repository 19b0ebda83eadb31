//! SIP messages: what the engine reads of one, framed and scanned by our own code, in rsip's vocabulary.
//!
//! It does not keep state and does not judge what a message means for a call (`call` does).

use std::borrow::Cow;

pub use rsip::Method;

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
    /// A provider's own call identifier (`X-Twilio-CallSid` and the like): header name and value.
    pub provider_call_id: Option<(Cow<'a, str>, Cow<'a, str>)>,
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
