//! The head scan: one pass over a framed message that picks the few headers on which dialogs and media depend.
//!
//! It judges nothing that no later stage needs: URIs, routes and most headers are never read. Text stays borrowed unless a line
//! is folded or is no UTF-8.

use std::borrow::Cow;

use super::{
    HeaderName, Message, Related, SipError, Start,
    body::{self, Content},
    fields::{branch, call_id_of, cseq, method_name, part_of, tag},
    framing::Frame,
    lines::{Headers, RawHeader},
};

/// Headers in which providers give a call their own identifier.
const PROVIDER_CALL_IDS: [&str; 1] = ["X-Twilio-CallSid"];

/// Reads a framed message (RFC 3261 §7, §8.1.1).
pub(super) fn scan<'a>(frame: &Frame<'a>) -> Result<Message<'a>, SipError> {
    let start = start(frame.start_line)?;
    let found = Found::read(frame.headers)?;

    let call_id = require(found.call_id, HeaderName::CallId)?.text();
    if call_id.is_empty() || call_id.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(SipError::CallId);
    }
    let cseq = cseq(require(found.cseq, HeaderName::CSeq)?.text())?;
    if let Start::Request(method) = &start
        && *method != cseq.method
    {
        return Err(SipError::CSeqMethod);
    }
    let from = require(found.from, HeaderName::From)?;
    let to = require(found.to, HeaderName::To)?;
    let sdp = match found.content_type {
        Some(content_type) if !frame.body.is_empty() => body::find_sdp(
            &Content {
                content_type: content_type.text(),
                encoded: found.encoded,
            },
            frame.body,
        )?,
        _ => None,
    };
    Ok(Message {
        start,
        call_id,
        cseq,
        from_tag: part_of(from.text(), tag),
        to_tag: part_of(to.text(), tag),
        branch: found.via.and_then(|via| part_of(via.text(), branch)),
        sdp,
        session_expires: found
            .session_expires
            .and_then(|header| delta_seconds(&header.text())),
        provider_call_id: found.provider_call_id.map(|header| {
            let name = String::from_utf8_lossy(header.name);
            (name, header.text())
        }),
        related: Related {
            replaces: found
                .replaces
                .and_then(|header| part_of(header.text(), call_id_of)),
            referred_by: found.referred_by.map(|header| header.text()),
            refer_to: found.refer_to.map(|header| header.text()),
        },
    })
}

/// The headers of interest, as they stand.
#[derive(Default)]
struct Found<'a> {
    call_id: Option<RawHeader<'a>>,
    cseq: Option<RawHeader<'a>>,
    from: Option<RawHeader<'a>>,
    to: Option<RawHeader<'a>>,
    via: Option<RawHeader<'a>>,
    content_type: Option<RawHeader<'a>>,
    encoded: bool,
    session_expires: Option<RawHeader<'a>>,
    provider_call_id: Option<RawHeader<'a>>,
    replaces: Option<RawHeader<'a>>,
    referred_by: Option<RawHeader<'a>>,
    refer_to: Option<RawHeader<'a>>,
}

impl<'a> Found<'a> {
    fn read(head: &'a [u8]) -> Result<Self, SipError> {
        let mut found = Self::default();
        for header in Headers::new(head) {
            let Some(kind) = Kind::of(header.name) else {
                continue;
            };
            match kind {
                Kind::CallId => once(&mut found.call_id, header, HeaderName::CallId)?,
                Kind::CSeq => once(&mut found.cseq, header, HeaderName::CSeq)?,
                Kind::From => once(&mut found.from, header, HeaderName::From)?,
                Kind::To => once(&mut found.to, header, HeaderName::To)?,
                Kind::ContentType => {
                    once(&mut found.content_type, header, HeaderName::ContentType)?;
                }
                Kind::Via => _ = found.via.get_or_insert(header),
                Kind::ContentEncoding => found.encoded |= body::is_encoded(&header.text()),
                Kind::SessionExpires => _ = found.session_expires.get_or_insert(header),
                Kind::ProviderCallId => _ = found.provider_call_id.get_or_insert(header),
                // These stand in reports and decide nothing: the first one will do.
                Kind::Replaces => _ = found.replaces.get_or_insert(header),
                Kind::ReferredBy => _ = found.referred_by.get_or_insert(header),
                Kind::ReferTo => _ = found.refer_to.get_or_insert(header),
            }
        }
        Ok(found)
    }
}

/// A header of interest.
#[derive(Clone, Copy)]
enum Kind {
    CallId,
    CSeq,
    From,
    To,
    Via,
    ContentType,
    ContentEncoding,
    SessionExpires,
    ProviderCallId,
    Replaces,
    ReferredBy,
    ReferTo,
}

impl Kind {
    /// Names have no case, and some a compact form (RFC 3261 §7.3.3).
    fn of(name: &[u8]) -> Option<Self> {
        let is = |full: &str| name.eq_ignore_ascii_case(full.as_bytes());
        match name {
            [b'i' | b'I'] => Some(Self::CallId),
            [b'f' | b'F'] => Some(Self::From),
            [b't' | b'T'] => Some(Self::To),
            [b'v' | b'V'] => Some(Self::Via),
            [b'c' | b'C'] => Some(Self::ContentType),
            [b'e' | b'E'] => Some(Self::ContentEncoding),
            [b'x' | b'X'] => Some(Self::SessionExpires),
            [b'b' | b'B'] => Some(Self::ReferredBy),
            [b'r' | b'R'] => Some(Self::ReferTo),
            [_, _] if is("To") => Some(Self::To),
            [_, _, _] if is("Via") => Some(Self::Via),
            [_, _, _, _] if is("From") => Some(Self::From),
            [_, _, _, _] if is("CSeq") => Some(Self::CSeq),
            [b'c' | b'C', ..] if is("Call-ID") => Some(Self::CallId),
            [b'c' | b'C', ..] if is("Content-Type") => Some(Self::ContentType),
            [b'c' | b'C', ..] if is("Content-Encoding") => Some(Self::ContentEncoding),
            [b's' | b'S', ..] if is("Session-Expires") => Some(Self::SessionExpires),
            [b'r' | b'R', ..] if is("Replaces") => Some(Self::Replaces),
            [b'r' | b'R', ..] if is("Refer-To") => Some(Self::ReferTo),
            [b'r' | b'R', ..] if is("Referred-By") => Some(Self::ReferredBy),
            [b'x' | b'X', ..] if PROVIDER_CALL_IDS.iter().any(|full| is(full)) => {
                Some(Self::ProviderCallId)
            }
            _ => None,
        }
    }
}

/// The start line (RFC 3261 §7.1, §7.2). A status line without a reason phrase is common and harmless.
fn start(line: &[u8]) -> Result<Start<'_>, SipError> {
    if let Some(status) = line.strip_prefix(b"SIP/2.0 ") {
        return match status {
            [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9']
            | [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
                let digit = |byte: &u8| u16::from(byte - b'0');
                Ok(Start::Response(digit(a) * 100 + digit(b) * 10 + digit(c)))
            }
            _ => Err(SipError::StartLine),
        };
    }
    let request = line.strip_suffix(b" SIP/2.0").unwrap_or(line);
    let mut words = request.splitn(2, |&byte| byte == b' ');
    let method = words.next().and_then(|word| str::from_utf8(word).ok());
    match (
        method.map(Cow::Borrowed).and_then(method_name),
        words.next(),
    ) {
        (Some(method), Some(uri)) if !uri.trim_ascii().is_empty() => Ok(Start::Request(method)),
        _ => Err(SipError::StartLine),
    }
}

/// Delta-seconds in front of any parameters. A number that is no 32-bit one is none that anybody could mean.
fn delta_seconds(value: &str) -> Option<u32> {
    let digits = value.split(';').next()?.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

fn once<'a>(
    slot: &mut Option<RawHeader<'a>>,
    header: RawHeader<'a>,
    name: HeaderName,
) -> Result<(), SipError> {
    match slot.replace(header) {
        None => Ok(()),
        Some(_) => Err(SipError::Repeated(name)),
    }
}

fn require(slot: Option<RawHeader<'_>>, name: HeaderName) -> Result<RawHeader<'_>, SipError> {
    slot.ok_or(SipError::Missing(name))
}
