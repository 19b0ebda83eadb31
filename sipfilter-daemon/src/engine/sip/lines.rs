//! The lines of a message head (RFC 3261 §7.3): where a header begins and ends, and its text.
//!
//! It owns the rules of line ends (CRLF or LF), folding and trimming, for the head of a message and of a multipart body's part.
//! It does not know any header's meaning. A line without a colon is passed over, since receivers ignore it too.

use std::borrow::Cow;

use memchr::memchr;

/// One header as it stands in the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawHeader<'a> {
    /// The name, without the white space around it. Compare without case.
    pub(super) name: &'a [u8],
    /// What stands behind the colon.
    pub(super) value: RawValue<'a>,
}

/// A header's value as it stands in the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawValue<'a> {
    /// All of it, folded lines included.
    pub(super) bytes: &'a [u8],
    /// It goes on over more than one line.
    pub(super) folded: bool,
}

impl<'a> RawValue<'a> {
    /// The value, trimmed, on one line (§7.3.1: a fold is worth one space).
    pub(super) fn line(&self) -> Cow<'a, [u8]> {
        if !self.folded {
            return Cow::Borrowed(self.bytes.trim_ascii());
        }
        let mut line = Vec::with_capacity(self.bytes.len());
        for part in self.bytes.split(|&byte| byte == b'\n') {
            let part = part.trim_ascii();
            if !part.is_empty() && !line.is_empty() {
                line.push(b' ');
            }
            line.extend_from_slice(part);
        }
        Cow::Owned(line)
    }

    /// The text of that line.
    pub(super) fn text(&self) -> Cow<'a, str> {
        text_of(self.line())
    }
}

/// Bytes as text, each that is no UTF-8 replaced.
pub(super) fn text_of(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        // The common case is valid, which the plain check sees faster than the lossy one.
        Cow::Borrowed(bytes) => {
            str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
        }
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// A header's name without the white space around it (RFC 3261 §7.3.1). A form feed is none: nobody trims it.
pub(super) fn trim_name(mut name: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = name {
        name = rest;
    }
    name
}

/// The headers of a head, in order.
#[derive(Debug, Clone)]
pub(super) struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// `head` is everything between the start line and the empty line.
    pub(super) fn new(head: &'a [u8]) -> Self {
        Self { rest: head }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = RawHeader<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let first = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let mut end = first;
            while let Some(b' ' | b'\t') = self.rest.get(end + 1) {
                let line = self.rest.get(end + 1..).unwrap_or_default();
                end += 1 + memchr(b'\n', line).unwrap_or(line.len());
            }
            let header = self.rest.get(..end).unwrap_or_default();
            self.rest = self.rest.get(end + 1..).unwrap_or_default();

            let Some((name, value)) = memchr(b':', header)
                .filter(|&colon| colon < first)
                .and_then(|colon| Some((header.get(..colon)?, header.get(colon + 1..)?)))
            else {
                continue;
            };
            let name = trim_name(name);
            if !name.is_empty() {
                let folded = end != first;
                return Some(RawHeader {
                    name,
                    value: RawValue {
                        bytes: value,
                        folded,
                    },
                });
            }
        }
        None
    }
}

/// The first line without its LF, and what follows it.
pub(super) fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at_checked(memchr(b'\n', bytes)?)?;
    Some((line, rest.get(1..)?))
}

/// `line` without the CRs in front of its LF.
pub(super) fn without_cr(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r'] = line {
        line = rest;
    }
    line
}
