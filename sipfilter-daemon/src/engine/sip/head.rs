//! The one pass over a message head: where its lines end, where the headers of interest stand, and what no head may hold
//! (RFC 3261 §7.3, §7.5).
//!
//! It notes places and reads no value; who wants one reads it later, so that a message that moves nothing costs this pass and little
//! more. It refuses only what makes the head's lines doubtful; a header that stands twice is noted for `scan` to refuse. Its invariant:
//! the headers found are those that `lines::Headers` would give, which the property tests compare.

use memchr::{memchr, memchr2, memrchr};

use super::{
    HeaderName, SipError,
    framing::{MAX_HEAD, MAX_HEADERS},
    lines::{RawValue, split_line, trim_name, without_cr},
};

/// Headers in which providers give a call their own identifier.
const PROVIDER_CALL_IDS: [&str; 1] = ["X-Twilio-CallSid"];

/// A header of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    CallId,
    CSeq,
    From,
    To,
    Via,
    ContentType,
    ContentEncoding,
    ContentLength,
    SessionExpires,
    ProviderCallId,
    Replaces,
    ReferredBy,
    ReferTo,
}

impl Kind {
    /// Every kind, in the order of its declaration.
    #[cfg(test)]
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::CallId,
        Self::CSeq,
        Self::From,
        Self::To,
        Self::Via,
        Self::ContentType,
        Self::ContentEncoding,
        Self::ContentLength,
        Self::SessionExpires,
        Self::ProviderCallId,
        Self::Replaces,
        Self::ReferredBy,
        Self::ReferTo,
    ];
    /// How many there are.
    const COUNT: usize = Self::ReferTo as usize + 1;

    /// By name: names have no case, and some a compact form (RFC 3261 §7.3.3).
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let is = |full: &str, kind| name.eq_ignore_ascii_case(full.as_bytes()).then_some(kind);
        match (name.first()?.to_ascii_lowercase(), name.len()) {
            (b'i', 1) => Some(Self::CallId),
            (b'f', 1) => Some(Self::From),
            (b't', 1) => Some(Self::To),
            (b'v', 1) => Some(Self::Via),
            (b'c', 1) => Some(Self::ContentType),
            (b'e', 1) => Some(Self::ContentEncoding),
            (b'l', 1) => Some(Self::ContentLength),
            (b'x', 1) => Some(Self::SessionExpires),
            (b'b', 1) => Some(Self::ReferredBy),
            (b'r', 1) => Some(Self::ReferTo),
            (b't', 2) => is("To", Self::To),
            (b'v', 3) => is("Via", Self::Via),
            (b'f', 4) => is("From", Self::From),
            (b'c', 4) => is("CSeq", Self::CSeq),
            (b'c', 7) => is("Call-ID", Self::CallId),
            (b'c', 12) => is("Content-Type", Self::ContentType),
            (b'c', 14) => is("Content-Length", Self::ContentLength),
            (b'c', 16) => is("Content-Encoding", Self::ContentEncoding),
            (b's', 15) => is("Session-Expires", Self::SessionExpires),
            (b'r', 8) => is("Replaces", Self::Replaces).or(is("Refer-To", Self::ReferTo)),
            (b'r', 11) => is("Referred-By", Self::ReferredBy),
            (b'x', _) => PROVIDER_CALL_IDS
                .iter()
                .find_map(|full| is(full, Self::ProviderCallId)),
            _ => None,
        }
    }

    /// The kinds that may stand once (RFC 3261 §7.3.1), by the name under which a second one is refused.
    fn unique(self) -> Option<HeaderName> {
        match self {
            Self::CallId => Some(HeaderName::CallId),
            Self::CSeq => Some(HeaderName::CSeq),
            Self::From => Some(HeaderName::From),
            Self::To => Some(HeaderName::To),
            Self::ContentType => Some(HeaderName::ContentType),
            _ => None,
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Where in the head a header's value stands, folded lines included. No value stands at the very beginning, so that zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    begin: u16,
    end: u16,
}

/// The headers of interest, each where it stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found {
    places: [Place; Kind::COUNT],
    /// By kind: the value goes on over more than one line.
    folded: u16,
    /// By kind: another one stands behind the first.
    repeated: u16,
    /// The first repetition of a header that may stand once.
    refused: Option<HeaderName>,
}

impl Found {
    /// The value of the first header of that kind, among the header lines in which these were found.
    pub(super) fn value<'a>(&self, kind: Kind, headers: &'a [u8]) -> Option<RawValue<'a>> {
        let place = self.places.get(kind as usize)?;
        if place.begin == 0 {
            return None;
        }
        Some(RawValue {
            bytes: headers.get(usize::from(place.begin)..usize::from(place.end))?,
            folded: self.folded & kind.bit() != 0,
        })
    }

    /// The name of the first header of that kind, as it stands.
    pub(super) fn name<'a>(&self, kind: Kind, headers: &'a [u8]) -> Option<&'a [u8]> {
        let colon = usize::from(self.places.get(kind as usize)?.begin).checked_sub(1)?;
        let before = headers.get(..colon)?;
        let line = memrchr(b'\n', before).map_or(0, |end| end + 1);
        Some(trim_name(before.get(line..)?))
    }

    /// Whether a header of that kind stands more than once.
    pub(super) fn is_repeated(&self, kind: Kind) -> bool {
        self.repeated & kind.bit() != 0
    }

    /// The first repetition of a header that may stand once.
    pub(super) fn refused(&self) -> Option<HeaderName> {
        self.refused
    }

    /// Notes a header; says whether it is the first of its kind, whose continuation lines count.
    fn note(&mut self, kind: Kind, value: Place) -> bool {
        let Some(place) = self.places.get_mut(kind as usize) else {
            return false;
        };
        if place.begin == 0 {
            *place = value;
            return true;
        }
        self.repeated |= kind.bit();
        self.refused = self.refused.or(kind.unique());
        false
    }

    fn extend(&mut self, kind: Kind, end: u16) {
        if let Some(place) = self.places.get_mut(kind as usize) {
            place.end = end;
            self.folded |= kind.bit();
        }
    }
}

/// A message head.
pub(super) struct Head<'a> {
    /// The start line, without its line end.
    pub(super) start_line: &'a [u8],
    /// The header lines, with their line ends, without the empty line.
    pub(super) headers: &'a [u8],
    /// The headers of interest among them.
    pub(super) found: Found,
    /// Everything behind the empty line.
    pub(super) rest: &'a [u8],
}

/// Reads up to the empty line; `None` where it is not there yet.
pub(super) fn read_head(bytes: &[u8]) -> Result<Option<Head<'_>>, SipError> {
    // A token begins every start line, so that most binary junk is refused by one byte.
    if !bytes.first().is_some_and(u8::is_ascii_graphic) {
        return Err(SipError::NotSip);
    }
    let capped = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let incomplete = || match capped.len() {
        MAX_HEAD => Err(SipError::HeadTooLarge),
        _ => Ok(None),
    };

    let Some((start_line, mut rest)) = split_start_line(capped)? else {
        return incomplete();
    };
    if let Some(b' ' | b'\t') = rest.first() {
        return Err(SipError::FoldedStartLine);
    }

    let lines = rest;
    let mut found = Found::default();
    // The header of interest that a continuation line would continue.
    let mut open = None;
    for _ in 0..=MAX_HEADERS {
        let Some((line, behind)) = split_clean_line(rest)? else {
            return incomplete();
        };
        let begin = lines.len() - rest.len();
        match line.first() {
            None => {
                return Ok(Some(Head {
                    start_line,
                    headers: lines.get(..begin).unwrap_or_default(),
                    found,
                    rest: bytes.get(capped.len() - behind.len()..).unwrap_or_default(),
                }));
            }
            Some(b' ' | b'\t') => {
                if let Some(kind) = open {
                    found.extend(kind, offset(begin + line.len()));
                }
            }
            Some(first) => {
                open = None;
                if may_be_of_interest(*first)
                    && let Some(colon) = line.iter().position(|&byte| byte == b':')
                    && let Some(kind) = line.get(..colon).and_then(|name| Kind::of(trim_name(name)))
                {
                    let value = Place {
                        begin: offset(begin + colon + 1),
                        end: offset(begin + line.len()),
                    };
                    open = found.note(kind, value).then_some(kind);
                }
            }
        }
        rest = behind;
    }
    Err(SipError::TooManyHeaders)
}

/// Whether the name of a header of interest can begin with this byte.
fn may_be_of_interest(first: u8) -> bool {
    matches!(
        first | 0x20,
        b'b' | b'c' | b'e' | b'f' | b'i' | b'l' | b'r' | b's' | b't' | b'v' | b'x'
    )
}

/// A head is no longer than [`MAX_HEAD`], so that every offset in it fits.
fn offset(at: usize) -> u16 {
    const { assert!(MAX_HEAD <= u16::MAX as usize) };
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// A line without its line end, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The start line; `None` where it is not over yet.
fn split_start_line(bytes: &[u8]) -> Result<Option<Split<'_>>, SipError> {
    let (line, rest) = match split_clean_line(bytes) {
        Ok(Some(split)) => split,
        Ok(None) => return Ok(None),
        // What is no start line is not SIP, whatever else is wrong with it.
        Err(error) => {
            let is_sip = split_line(bytes).is_some_and(|(line, _)| is_start_line(without_cr(line)));
            return Err(if is_sip { error } else { SipError::NotSip });
        }
    };
    if !is_start_line(line) {
        return Err(SipError::NotSip);
    }
    Ok(Some((line, rest)))
}

/// Whether a line is SIP's at all (RFC 3261 §7.1, §7.2).
pub(super) fn is_start_line(line: &[u8]) -> bool {
    line.starts_with(b"SIP/2.0 ") || line.ends_with(b" SIP/2.0")
}

/// The first line; `None` where it is not over yet. CRs stand only in front of its LF.
fn split_clean_line(bytes: &[u8]) -> Result<Option<Split<'_>>, SipError> {
    let Some(end) = memchr2(b'\r', b'\n', bytes) else {
        return Ok(None);
    };
    let Some((line, behind)) = bytes.split_at_checked(end) else {
        return Ok(None);
    };
    match behind {
        [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => Ok(Some((line, rest))),
        _ => Ok(behind_odd_line_end(behind)?.map(|rest| (line, rest))),
    }
}

/// What follows a line end that begins with several CRs.
#[cold]
fn behind_odd_line_end(mut bytes: &[u8]) -> Result<Option<&[u8]>, SipError> {
    while let [b'\r', rest @ ..] = bytes {
        bytes = rest;
    }
    match bytes {
        [b'\n', rest @ ..] => Ok(Some(rest)),
        _ if memchr(b'\n', bytes).is_none() => Ok(None),
        _ => Err(SipError::BareCr),
    }
}
