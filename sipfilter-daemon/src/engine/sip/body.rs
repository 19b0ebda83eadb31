//! Where the SDP is in a message body: the whole of it, or a part of a multipart body (RFC 2046 §5.1, RFC 5621).
//!
//! It cuts bytes and never decodes them: an encoded SDP is refused. Multipart bodies may nest once.

use std::borrow::Cow;

use memchr::memchr;

use super::{
    SipError,
    lines::{Headers, split_line, without_cr},
};

/// How deep multipart bodies may nest inside one another.
const MAX_NESTING: u8 = 1;

/// What the headers of a message, or of a part, say about its body.
pub(super) struct Content<'a> {
    /// The Content-Type value.
    pub(super) content_type: Cow<'a, str>,
    /// Content-Encoding or Content-Transfer-Encoding says that the bytes are not the text itself.
    pub(super) encoded: bool,
}

/// Finds the SDP of a message's session (not of an early session, RFC 3959) in `body`.
pub(super) fn find_sdp<'a>(
    content: &Content<'_>,
    body: &'a [u8],
) -> Result<Option<&'a [u8]>, SipError> {
    find(content, body, 0)
}

/// Whether a Content-Encoding value names anything but the identity (RFC 3261 §20.12).
pub(super) fn is_encoded(value: &str) -> bool {
    value
        .split(',')
        .map(str::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
}

fn find<'a>(
    content: &Content<'_>,
    body: &'a [u8],
    depth: u8,
) -> Result<Option<&'a [u8]>, SipError> {
    let mut words = content.content_type.splitn(2, ';');
    let (main, sub) = words
        .next()
        .and_then(|essence| essence.split_once('/'))
        .map_or(("", ""), |(main, sub)| {
            (main.trim_ascii(), sub.trim_ascii())
        });
    let parameters = words.next().unwrap_or_default();

    if main.eq_ignore_ascii_case("application") && sub.eq_ignore_ascii_case("sdp") {
        if content.encoded {
            return Err(SipError::EncodedSdp);
        }
        return Ok((!body.is_empty()).then_some(body));
    }
    if main.eq_ignore_ascii_case("multipart") && depth <= MAX_NESTING {
        if content.encoded {
            return Err(SipError::EncodedSdp);
        }
        return find_in_parts(boundary(parameters)?, body, depth);
    }
    Ok(None)
}

/// The first part that is or holds SDP. A missing end delimiter ends the last part with the body.
fn find_in_parts<'a>(
    boundary: &str,
    body: &'a [u8],
    depth: u8,
) -> Result<Option<&'a [u8]>, SipError> {
    let mut part: Option<usize> = None;
    let mut at = 0;
    while let Some(rest) = body.get(at..).filter(|rest| !rest.is_empty()) {
        let next = at + memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let line = body.get(at..next).unwrap_or_default();
        if let Some(delimiter) = delimiter(line, boundary) {
            if let Some(bytes) = part.and_then(|begin| body.get(begin..at))
                && let Some(sdp) = find_in_part(without_line_end(bytes), depth)?
            {
                return Ok(Some(sdp));
            }
            if delimiter == Delimiter::End {
                return Ok(None);
            }
            part = Some(next);
        }
        at = next;
    }
    match part.and_then(|begin| body.get(begin..)) {
        Some(bytes) => find_in_part(bytes, depth),
        None => Ok(None),
    }
}

fn find_in_part(part: &[u8], depth: u8) -> Result<Option<&[u8]>, SipError> {
    let mut at = 0;
    let (head, body) = loop {
        let Some((line, behind)) = part.get(at..).and_then(split_line) else {
            return Ok(None);
        };
        if without_cr(line).is_empty() {
            break (part.get(..at).unwrap_or_default(), behind);
        }
        at = part.len() - behind.len();
    };

    let mut content = Content {
        content_type: Cow::Borrowed(""),
        encoded: false,
    };
    for header in Headers::new(head) {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name.as_bytes());
        if is("Content-Type") || is("c") {
            content.content_type = header.value.text();
        } else if is("Content-Encoding") || is("e") {
            content.encoded |= is_encoded(&header.value.text());
        } else if is("Content-Transfer-Encoding") {
            let value = header.value.text();
            content.encoded |= !["7bit", "8bit", "binary"]
                .iter()
                .any(|plain| value.eq_ignore_ascii_case(plain));
        } else if is("Content-Disposition") && is_early_session(&header.value.text()) {
            return Ok(None);
        }
    }
    find(&content, body, depth + 1)
}

/// RFC 3959 §4: the SDP of another offer and answer, which ends with the early dialog.
fn is_early_session(disposition: &str) -> bool {
    let kind = disposition.split(';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case("early-session")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delimiter {
    Part,
    End,
}

/// RFC 2046 §5.1.1: two hyphens, the boundary, two more at the end, and white space.
fn delimiter(line: &[u8], boundary: &str) -> Option<Delimiter> {
    let behind = line
        .strip_prefix(b"--")?
        .strip_prefix(boundary.as_bytes())?;
    match behind.trim_ascii_end() {
        b"" => Some(Delimiter::Part),
        b"--" => Some(Delimiter::End),
        _ => None,
    }
}

/// The boundary parameter, quoted or not. None of the characters that RFC 2046 allows in one needs a backslash.
fn boundary(parameters: &str) -> Result<&str, SipError> {
    let mut rest = parameters;
    loop {
        let (name, value) = rest.split_once('=').ok_or(SipError::Boundary)?;
        let value = value.trim_ascii_start();
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or(SipError::Boundary)?,
            None => {
                let end = value.find(';').unwrap_or(value.len());
                let (value, behind) = value.split_at_checked(end).ok_or(SipError::Boundary)?;
                (value.trim_ascii_end(), behind)
            }
        };
        let name = name.rsplit(';').next().unwrap_or_default();
        if name.trim_ascii().eq_ignore_ascii_case("boundary") {
            let usable = (1..=70).contains(&value.len()) && !value.contains('\\');
            return usable.then_some(value).ok_or(SipError::Boundary);
        }
        rest = behind;
    }
}

/// The line end in front of a delimiter belongs to the delimiter.
fn without_line_end(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}
