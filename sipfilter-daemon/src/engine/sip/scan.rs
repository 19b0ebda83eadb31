//! What a framed message says: at once who and what it is about, and only on demand what no one but a call wants to know.
//!
//! It judges nothing that no later stage needs: URIs, routes and most headers are never read. Text stays borrowed unless a line
//! is folded or is no UTF-8. A message that [`Scan`] takes is whole: reading the rest of it cannot fail.

use std::borrow::Cow;

use memchr::memchr;

use super::{
    CSeq, HeaderName, Message, Method, MethodName, Related, SipError, Start,
    body::{self, Content},
    fields::{branch, call_id_of, cseq, known_method, method_name, part_of, tag},
    framing::Frame,
    head::Kind,
    lines::{Headers, RawValue, text_of},
};

/// A message of which only so much is read as tells whether it can concern a call: whose it is, what it is, and its SDP.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    frame: Frame<'a>,
    start: Start<'a>,
    call_id: Cow<'a, str>,
    cseq: CSeq<'a>,
    sdp: Option<&'a [u8]>,
}

impl<'a> Scan<'a> {
    /// Reads a framed message (RFC 3261 §7, §8.1.1).
    pub(super) fn read(frame: Frame<'a>) -> Result<Self, SipError> {
        let start = start(frame.start_line)?;
        if let Some(name) = frame.found.refused() {
            return Err(SipError::Repeated(name));
        }
        let call_id = call_id(require(&frame, Kind::CallId, HeaderName::CallId)?)?;
        let cseq = read_cseq(require(&frame, Kind::CSeq, HeaderName::CSeq)?)?;
        if let Start::Request(method) = &start
            && *method != cseq.method
        {
            return Err(SipError::CSeqMethod);
        }
        require(&frame, Kind::From, HeaderName::From)?;
        require(&frame, Kind::To, HeaderName::To)?;
        let sdp = match value(&frame, Kind::ContentType) {
            Some(content_type) if !frame.body.is_empty() => {
                let content = Content {
                    content_type: content_type.text(),
                    encoded: is_encoded(&frame),
                };
                body::find_sdp(&content, frame.body)?
            }
            _ => None,
        };
        Ok(Self {
            frame,
            start,
            call_id,
            cseq,
            sdp,
        })
    }

    /// Request or response.
    pub fn start(&self) -> &Start<'a> {
        &self.start
    }

    /// The method, or the method of the request that it answers.
    pub fn method(&self) -> &MethodName<'a> {
        // A request's CSeq names the request's own method.
        &self.cseq.method
    }

    /// Call-ID (§20.8), trimmed, never empty.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// The body's SDP.
    pub fn sdp(&self) -> Option<&'a [u8]> {
        self.sdp
    }

    /// Reads the rest.
    pub fn into_message(self) -> Message<'a> {
        let frame = &self.frame;
        let line = |kind| value(frame, kind).map(|value| value.line());
        let text = |kind| line(kind).map(text_of);
        Message {
            from_tag: line(Kind::From).and_then(|from| part_of(from, tag)),
            to_tag: line(Kind::To).and_then(|to| part_of(to, tag)),
            branch: line(Kind::Via).and_then(|via| part_of(via, branch)),
            session_expires: text(Kind::SessionExpires).and_then(|text| delta_seconds(&text)),
            provider_call_id: text(Kind::ProviderCallId).map(|text| {
                let name = frame.found.name(Kind::ProviderCallId, frame.headers);
                (String::from_utf8_lossy(name.unwrap_or_default()), text)
            }),
            related: Related {
                replaces: line(Kind::Replaces).and_then(|line| part_of(line, call_id_of)),
                referred_by: text(Kind::ReferredBy),
                refer_to: text(Kind::ReferTo),
            },
            start: self.start,
            call_id: self.call_id,
            cseq: self.cseq,
            sdp: self.sdp,
        }
    }
}

fn value<'a>(frame: &Frame<'a>, kind: Kind) -> Option<RawValue<'a>> {
    frame.found.value(kind, frame.headers)
}

fn require<'a>(frame: &Frame<'a>, kind: Kind, name: HeaderName) -> Result<RawValue<'a>, SipError> {
    value(frame, kind).ok_or(SipError::Missing(name))
}

/// Call-ID is one word (§25.1).
fn call_id(value: RawValue<'_>) -> Result<Cow<'_, str>, SipError> {
    let call_id = value.text();
    // Every byte is looked at, so that the compiler may look at many at once.
    let odd = call_id
        .bytes()
        .fold(false, |odd, byte| odd | (byte <= b' ') | (byte == 0x7f));
    if call_id.is_empty() || odd {
        return Err(SipError::CallId);
    }
    Ok(call_id)
}

/// CSeq in its usual form; any other goes the long way.
fn read_cseq(value: RawValue<'_>) -> Result<CSeq<'_>, SipError> {
    let usual = |line: &[u8]| -> Option<(u32, Method)> {
        let digits = line.iter().position(|byte| !byte.is_ascii_digit())?;
        let (number, rest) = line.split_at_checked(digits)?;
        let method = known_method(rest.strip_prefix(b" ")?)?;
        // Nine digits cannot overflow.
        let number = (1..=9).contains(&digits).then(|| {
            number
                .iter()
                .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
        })?;
        Some((number, method))
    };
    match usual(&value.line()) {
        Some((number, method)) => Ok(CSeq {
            number,
            method: MethodName::Known(method),
        }),
        None => cseq(value.text()),
    }
}

/// Whether any Content-Encoding says that the body is not the text itself.
fn is_encoded(frame: &Frame<'_>) -> bool {
    value(frame, Kind::ContentEncoding).is_some()
        && Headers::new(frame.headers)
            .filter(|header| Kind::of(header.name) == Some(Kind::ContentEncoding))
            .any(|header| body::is_encoded(&header.value.text()))
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
    let end = memchr(b' ', request).ok_or(SipError::StartLine)?;
    let (name, uri) = request.split_at_checked(end).ok_or(SipError::StartLine)?;
    if uri.trim_ascii().is_empty() {
        return Err(SipError::StartLine);
    }
    if let Some(method) = known_method(name) {
        return Ok(Start::Request(MethodName::Known(method)));
    }
    str::from_utf8(name)
        .ok()
        .and_then(|name| method_name(Cow::Borrowed(name)))
        .map(Start::Request)
        .ok_or(SipError::StartLine)
}

/// Delta-seconds in front of any parameters. A number that is no 32-bit one is none that anybody could mean.
fn delta_seconds(value: &str) -> Option<u32> {
    let digits = value.split(';').next()?.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}
