//! Readers of header values: parameters, CSeq and method names (RFC 3261 §20, §25.1).
//!
//! They work on trimmed, unfolded values and give parts of them. They do not know which header a value came from.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3, memrchr};

use super::{CSeq, Method, MethodName, SipError, lines::text_of};

/// Applies a reader of parts to a line that may be borrowed or owned. All that has a meaning to the readers is ASCII, so that what is no
/// UTF-8 may be replaced afterwards, and only in the part.
pub(super) fn part_of<'a>(
    line: Cow<'a, [u8]>,
    read: impl for<'t> Fn(&'t [u8]) -> Option<&'t [u8]>,
) -> Option<Cow<'a, str>> {
    let part = match line {
        Cow::Borrowed(line) => Cow::Borrowed(read(line)?),
        Cow::Owned(line) => Cow::Owned(read(&line)?.to_owned()),
    };
    Some(text_of(part))
}

/// The tag of a From or To value (§20.20, §20.39). An empty tag is none.
pub(super) fn tag(value: &[u8]) -> Option<&[u8]> {
    match parameter(value, "tag", Shape::Address) {
        Ok(tag) => tag,
        // Display names with an odd number of quotes are seen in the wild, and receivers take the parameters behind the address.
        Err(Unbalanced) => {
            let address = memrchr(b'>', value).map_or(0, |end| end + 1);
            let mut parts = value.get(address..)?.split(|&byte| byte == b';').skip(1);
            parts.find_map(|part| named(part, "tag"))
        }
    }
}

/// The branch of the first of the Via values (§20.42) in one header.
pub(super) fn branch(value: &[u8]) -> Option<&[u8]> {
    match parameter(value, "branch", Shape::List) {
        Ok(branch) => branch,
        Err(Unbalanced) => {
            let first = value.split(|&byte| byte == b',').next()?;
            let mut parts = first.split(|&byte| byte == b';').skip(1);
            parts.find_map(|part| named(part, "branch"))
        }
    }
}

/// The Call-ID of a Replaces value (RFC 3891 §3): what stands in front of the parameters.
pub(super) fn call_id_of(value: &[u8]) -> Option<&[u8]> {
    let call_id = value.split(|&byte| byte == b';').next()?.trim_ascii();
    (!call_id.is_empty()).then_some(call_id)
}

/// A CSeq value (§20.16): digits, white space, a method.
pub(super) fn cseq(value: Cow<'_, str>) -> Result<CSeq<'_>, SipError> {
    let read = |text: &str| -> Option<(u32, usize)> {
        let (number, rest) = text.split_once([' ', '\t'])?;
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = plain.then(|| number.parse().ok()).flatten()?;
        Some((number, text.len() - rest.trim_start().len()))
    };
    let (number, at) = read(&value).ok_or(SipError::CSeq)?;
    let method = match value {
        Cow::Borrowed(text) => text.get(at..).map(Cow::Borrowed),
        Cow::Owned(text) => text.get(at..).map(|method| Cow::Owned(method.to_owned())),
    };
    let method = method.and_then(method_name);
    Ok(CSeq {
        number,
        method: method.ok_or(SipError::CSeq)?,
    })
}

/// A method (§7.1): case matters, and any token is one.
pub(super) fn method_name(name: Cow<'_, str>) -> Option<MethodName<'_>> {
    match known_method(name.as_bytes()) {
        Some(method) => Some(MethodName::Known(method)),
        None if is_token(&name) => Some(MethodName::Other(name)),
        None => None,
    }
}

/// A method of rsip's list.
pub(super) fn known_method(name: &[u8]) -> Option<Method> {
    Some(match name {
        b"ACK" => Method::Ack,
        b"BYE" => Method::Bye,
        b"CANCEL" => Method::Cancel,
        b"INFO" => Method::Info,
        b"INVITE" => Method::Invite,
        b"MESSAGE" => Method::Message,
        b"NOTIFY" => Method::Notify,
        b"OPTIONS" => Method::Options,
        b"PRACK" => Method::PRack,
        b"PUBLISH" => Method::Publish,
        b"REFER" => Method::Refer,
        b"REGISTER" => Method::Register,
        b"SUBSCRIBE" => Method::Subscribe,
        b"UPDATE" => Method::Update,
        _ => return None,
    })
}

/// RFC 3261 §25.1: `token`.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
}

/// A header's shape, as far as its parameters are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One address, in angle brackets or bare, and parameters.
    Address,
    /// A comma-separated list, of which the first element counts.
    List,
}

/// A quoted string or an angle bracket is not closed.
#[derive(Debug)]
struct Unbalanced;

/// The value of the first parameter called `name`: parameters begin at the first `;` outside quotes and angle brackets.
fn parameter<'v>(
    bytes: &'v [u8],
    name: &str,
    shape: Shape,
) -> Result<Option<&'v [u8]>, Unbalanced> {
    let third = match shape {
        Shape::Address => b'<',
        Shape::List => b',',
    };
    let find = |from: usize| {
        let at = from + memchr3(b'"', b';', third, bytes.get(from..)?)?;
        Some((at, *bytes.get(at)?))
    };
    let finish = |begin: Option<usize>, end: usize| named(bytes.get(begin?..end)?, name);

    let (mut from, mut end) = (0, bytes.len());
    let (mut begin, mut found) = (None, None);
    while let Some((at, byte)) = find(from) {
        from = at + 1;
        match byte {
            b'"' => from = behind_quote(bytes, from).ok_or(Unbalanced)?,
            b';' => {
                found = found.or_else(|| finish(begin, at));
                begin = Some(from);
            }
            b'<' => {
                let inside = bytes.get(from..).unwrap_or_default();
                from += memchr(b'>', inside).ok_or(Unbalanced)? + 1;
            }
            _ => {
                end = at;
                break;
            }
        }
    }
    Ok(found.or_else(|| finish(begin, end)))
}

/// Where the quoted string that is open at `from` is over (§25.1: a backslash quotes the next byte).
fn behind_quote(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr2(b'"', b'\\', bytes.get(from..)?)?;
        match bytes.get(at) {
            Some(b'"') => return Some(at + 1),
            _ => from = at + 2,
        }
    }
}

/// The value of `part` if it is `name=value`: names without case, white space allowed around both. The value ends at white space
/// or a comma; an empty one is none.
fn named<'v>(part: &'v [u8], name: &str) -> Option<&'v [u8]> {
    let (found, behind) = part.trim_ascii_start().split_at_checked(name.len())?;
    if !found.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    let value = behind.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
    let end = value
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b','));
    let value = value.get(..end.unwrap_or(value.len()))?;
    (!value.is_empty()).then_some(value)
}
