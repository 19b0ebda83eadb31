//! Readers of header values: parameters, CSeq and method names (RFC 3261 §20, §25.1).
//!
//! They work on trimmed, unfolded text and give parts of it. They do not know which header a value came from.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

use super::{CSeq, Method, MethodName, SipError};

/// Applies a reader of parts to text that may be borrowed or owned.
pub(super) fn part_of<'a>(
    text: Cow<'a, str>,
    read: impl for<'t> Fn(&'t str) -> Option<&'t str>,
) -> Option<Cow<'a, str>> {
    match text {
        Cow::Borrowed(text) => read(text).map(Cow::Borrowed),
        Cow::Owned(text) => read(&text).map(|part| Cow::Owned(part.to_owned())),
    }
}

/// The tag of a From or To value (§20.20, §20.39). An empty tag is none.
pub(super) fn tag(value: &str) -> Option<&str> {
    match parameter(value, "tag", Shape::Address) {
        Ok(tag) => tag,
        // Display names with an odd number of quotes are seen in the wild, and receivers take the parameters behind the address.
        Err(Unbalanced) => {
            let behind = value.rsplit_once('>').map_or(value, |(_, behind)| behind);
            behind
                .split(';')
                .skip(1)
                .find_map(|part| named(part, "tag"))
        }
    }
}

/// The branch of the first of the Via values (§20.42) in one header.
pub(super) fn branch(value: &str) -> Option<&str> {
    match parameter(value, "branch", Shape::List) {
        Ok(branch) => branch,
        Err(Unbalanced) => {
            let first = value.split(',').next()?;
            first
                .split(';')
                .skip(1)
                .find_map(|part| named(part, "branch"))
        }
    }
}

/// The Call-ID of a Replaces value (RFC 3891 §3): what stands in front of the parameters.
pub(super) fn call_id_of(value: &str) -> Option<&str> {
    let call_id = value.split(';').next()?.trim_ascii();
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
    let method = part_of(value, |text| text.get(at..)).and_then(method_name);
    Ok(CSeq {
        number,
        method: method.ok_or(SipError::CSeq)?,
    })
}

/// A method (§7.1): case matters, and any token is one.
pub(super) fn method_name(name: Cow<'_, str>) -> Option<MethodName<'_>> {
    let known = match name.as_ref() {
        "ACK" => Method::Ack,
        "BYE" => Method::Bye,
        "CANCEL" => Method::Cancel,
        "INFO" => Method::Info,
        "INVITE" => Method::Invite,
        "MESSAGE" => Method::Message,
        "NOTIFY" => Method::Notify,
        "OPTIONS" => Method::Options,
        "PRACK" => Method::PRack,
        "PUBLISH" => Method::Publish,
        "REFER" => Method::Refer,
        "REGISTER" => Method::Register,
        "SUBSCRIBE" => Method::Subscribe,
        "UPDATE" => Method::Update,
        other if is_token(other) => return Some(MethodName::Other(name)),
        _ => return None,
    };
    Some(MethodName::Known(known))
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
fn parameter<'v>(value: &'v str, name: &str, shape: Shape) -> Result<Option<&'v str>, Unbalanced> {
    let bytes = value.as_bytes();
    let third = match shape {
        Shape::Address => b'<',
        Shape::List => b',',
    };
    let find = |from: usize| {
        let at = from + memchr3(b'"', b';', third, bytes.get(from..)?)?;
        Some((at, *bytes.get(at)?))
    };
    let finish = |begin: Option<usize>, end: usize| named(value.get(begin?..end)?, name);

    let (mut from, mut end) = (0, value.len());
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
fn named<'v>(part: &'v str, name: &str) -> Option<&'v str> {
    let (found, value) = part.split_once('=')?;
    if !found.trim_ascii().eq_ignore_ascii_case(name) {
        return None;
    }
    let value = value.trim_ascii().split([' ', '\t', ',']).next()?;
    (!value.is_empty()).then_some(value)
}
