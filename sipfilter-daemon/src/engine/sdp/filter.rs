//! The line filter in front of `sdp-types`: of a body only `v=`, `m=`, `c=`, sections' `b=` and the attributes that move media go on.
//!
//! It tolerates what receivers tolerate (LF or CR line ends, junk lines, odd white space, bytes that are no UTF-8 in lines that
//! do not matter), so that `sdp-types` refuses only what could hide where media goes. It reads no value except the form of a port.

use super::{MAX_BODY, SdpError};

/// Attributes whose value is read.
const WITH_VALUE: [&str; 3] = ["rtcp", "candidate", "ptime"];
/// The name under which a section's `b=` lines go on.
pub(super) const BANDWIDTH: &str = "b";
/// Attributes whose mere presence counts; their values, keys and fingerprints among them, go no further.
const PRESENT: [&str; 9] = [
    "sendrecv",
    "sendonly",
    "recvonly",
    "inactive",
    "rtcp-mux",
    "rtcp-mux-only",
    "ice-ufrag",
    "fingerprint",
    "crypto",
];

/// The lines of `body` that matter, LF-ended, in order.
pub(super) fn filter(body: &[u8], max_media: usize) -> Result<Vec<u8>, SdpError> {
    if body.len() > MAX_BODY {
        return Err(SdpError::TooLarge { size: body.len() });
    }
    let mut kept = Vec::with_capacity(body.len() + 8);
    let mut media = 0;
    let mut version = false;
    for line in lines(body) {
        let [key, b'=', value @ ..] = line else {
            continue;
        };
        match key {
            b'v' => {
                if version || value.trim_ascii() != b"0" {
                    return Err(SdpError::Version);
                }
                version = true;
                kept.extend_from_slice(b"v=0\n");
            }
            b'm' | b'c' if !version => return Err(SdpError::Version),
            b'm' => {
                if media == max_media {
                    return Err(SdpError::TooManyMedia { limit: max_media });
                }
                push_media(&mut kept, value).ok_or(SdpError::Port { section: media })?;
                media += 1;
            }
            b'c' => push_connection(&mut kept, value),
            b'b' if media > 0 => push_bandwidth(&mut kept, value),
            b'a' if version => push_attribute(&mut kept, value),
            _ => {}
        }
    }
    version.then_some(kept).ok_or(SdpError::Version)
}

/// LF ends a line where there is one in the body, with or without CRs in front of it; else CR does.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = match memchr::memchr(b'\n', body) {
        Some(_) => b'\n',
        None => b'\r',
    };
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = memchr::memchr(end, rest).unwrap_or(rest.len());
        let line = rest.get(..at)?;
        rest = rest.get(at + 1..).unwrap_or_default();
        Some(line)
    })
    .map(<[u8]>::trim_ascii_end)
}

/// `<media> <port>[/<count>] <proto> <fmt> …` with single spaces. `None` where a port is no plain number: `sdp-types` would take
/// `+5000` for one.
fn push_media(kept: &mut Vec<u8>, value: &[u8]) -> Option<()> {
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let mut fields = fields(value);
    let (kind, port) = (fields.next().unwrap_or_default(), fields.next()?);
    if !port.splitn(2, |&byte| byte == b'/').all(is_number) {
        return None;
    }
    kept.extend_from_slice(b"m=");
    let count = push_fields(kept, [kind, port].into_iter().chain(fields));
    // Rejected streams are seen without any format, which `sdp-types` refuses; the stream must keep its place all the same.
    if count == 3 && port.iter().all(|&byte| byte == b'0') {
        kept.extend_from_slice(b" -");
    }
    kept.push(b'\n');
    Some(())
}

/// `<nettype> <addrtype> <address>` with single spaces.
fn push_connection(kept: &mut Vec<u8>, value: &[u8]) {
    kept.extend_from_slice(b"c=");
    push_fields(kept, fields(value));
    kept.push(b'\n');
}

fn push_attribute(kept: &mut Vec<u8>, value: &[u8]) {
    let mut words = value.splitn(2, |&byte| byte == b':');
    let name = words.next().unwrap_or_default().trim_ascii();
    let is = |known: &&str| known.as_bytes() == name;
    if PRESENT.iter().any(is) {
        push_attribute_line(kept, &[name]);
    } else if WITH_VALUE.iter().any(is)
        && let Some(value) = words.next()
        && value.is_ascii()
        && !value.iter().any(u8::is_ascii_control)
    {
        push_attribute_line(kept, &[name, b":", value]);
    }
}

/// Goes on as an attribute of a name that no body's attribute keeps: `sdp-types` would refuse the body for a number that it cannot read.
fn push_bandwidth(kept: &mut Vec<u8>, value: &[u8]) {
    if value.is_ascii() && !value.iter().any(u8::is_ascii_control) {
        push_attribute_line(kept, &[BANDWIDTH.as_bytes(), b":", value]);
    }
}

/// Says how many there were.
fn push_fields<'l>(kept: &mut Vec<u8>, fields: impl Iterator<Item = &'l [u8]>) -> usize {
    let mut count = 0;
    for field in fields {
        if count > 0 {
            kept.push(b' ');
        }
        kept.extend_from_slice(field);
        count += 1;
    }
    count
}

fn push_attribute_line(kept: &mut Vec<u8>, parts: &[&[u8]]) {
    kept.extend_from_slice(b"a=");
    for part in parts {
        kept.extend_from_slice(part);
    }
    kept.push(b'\n');
}

fn fields(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|field| !field.is_empty())
}
