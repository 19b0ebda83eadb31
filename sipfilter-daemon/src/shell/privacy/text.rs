//! Where in a text somebody stands: user parts, names, numbers, addresses and credentials.
//!
//! It finds and changes nothing, and knows of no key. It reads any text: a line of a log, a string of an answer, a SIP message. A number
//! that stands alone is only taken for a telephone number where it looks like one, because the identifiers of calls are numbers, too.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

/// Shorter ones are extensions, ports and counts.
const LEAST_DIGITS: usize = 7;
/// With a plus there is less doubt.
const LEAST_DIGITS_WITH_PLUS: usize = 5;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A user part, a number, or a word of a name.
    User,
    /// What tells more of a user, or a password.
    Rest,
    /// An address.
    Address(IpAddr),
    /// What proves a password, or what that was made for.
    Credential,
}

/// A place and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) range: Range<usize>,
    pub(super) found: Found,
}

/// Digest credentials (RFC 7616 §3.3 to §3.5), wherever they stand.
pub(super) fn credentials(text: &[u8], places: &mut Vec<Place>) {
    const NAMES: [&[u8]; 3] = [b"nonce=", b"response=", b"rspauth="];
    for at in 0..text.len() {
        let Some(name) = NAMES.iter().find(|name| begins_with(text, at, name)) else {
            continue;
        };
        let mut start = at + name.len();
        // In a log a quote may be written with a backslash.
        start += usize::from(byte(text, start) == Some(b'\\'));
        if byte(text, start) != Some(b'"') {
            continue;
        }
        start += 1;
        push(
            places,
            start..end_of(text, start, b"\"\\ \r\n"),
            Found::Credential,
        );
    }
}

/// Users: in URIs, in front of them, in `username`, and telephone numbers.
pub(super) fn users(text: &[u8], places: &mut Vec<Place>) {
    let mut at = 0;
    while at < text.len() {
        let scheme = [b"sip:".as_slice(), b"sips:", b"tel:"]
            .into_iter()
            .find(|scheme| begins_with(text, at, scheme) && !is_word(before(text, at)));
        if let Some(scheme) = scheme {
            names_before(text, at, places);
            at = uri(text, at + scheme.len(), scheme == b"tel:", places);
        } else if begins_with(text, at, b"username=") {
            let mut start = at + b"username=".len();
            start += usize::from(byte(text, start) == Some(b'\\'));
            at = start + 1;
            if byte(text, start) == Some(b'"') {
                at = end_of(text, at, b"\"\\\r\n");
                push(places, start + 1..at, Found::User);
            }
        } else if begins_with(text, at, b"o=") && matches!(before(text, at), None | Some(b'\n')) {
            at = origin(text, at + 2, places);
        } else {
            at = number(text, at, places);
        }
    }
}

/// Addresses, but for those that say nothing of anybody.
pub(super) fn addresses(text: &[u8], places: &mut Vec<Place>) {
    let mut at = 0;
    while at < text.len() {
        let is_start =
            |previous: Option<u8>, is_part: fn(u8) -> bool| !previous.is_some_and(is_part);
        let v4 = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let v6 = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
        let run = |is_part: fn(u8) -> bool| {
            let rest = text.get(at..).unwrap_or_default();
            let length = rest.iter().position(|&byte| !is_part(byte));
            rest.get(..length.unwrap_or(rest.len())).unwrap_or_default()
        };
        let previous = before(text, at);
        let mut found = None;
        if is_start(previous, v6) && !previous.is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            let found_v6 = longest::<Ipv6Addr>(run(v6));
            // A word that happens to end so is none.
            let found_v6 = found_v6.filter(|(length, _)| !is_word(byte(text, at + length)));
            found = found_v6.map(|(length, address)| (length, address.into()));
        }
        if found.is_none() && is_start(previous, v4) {
            found = longest::<Ipv4Addr>(run(v4)).map(|(length, address)| (length, address.into()));
        }
        match found {
            Some((length, address)) => {
                push(places, at..at + length, Found::Address(address));
                at += length;
            }
            None => at += 1,
        }
    }
}

/// The address that these bytes are, without punctuation behind it.
fn longest<A: std::str::FromStr>(run: &[u8]) -> Option<(usize, A)> {
    let text = std::str::from_utf8(run).ok()?;
    let trimmed = text.trim_end_matches(['.', ':']);
    // `::` ends with what is punctuation elsewhere; a port may stand behind an address of four numbers, but that is no part of its run.
    [text, trimmed]
        .into_iter()
        .find_map(|text| Some((text.len(), text.parse().ok()?)))
}

/// One URI from behind its scheme; gives where it goes on.
fn uri(text: &[u8], start: usize, is_tel: bool, places: &mut Vec<Place>) -> usize {
    let end = end_of(text, start, b" \t\r\n<>\"\\'");
    let inside = text.get(start..end).unwrap_or_default();
    let user_end = match inside.iter().position(|&byte| byte == b'@') {
        Some(length) if !is_tel => start + length,
        // A host alone is no user, but for a number without a host.
        _ => {
            let digits = start + usize::from(byte(text, start) == Some(b'+'));
            let length = digits_from(text, digits);
            if length < LEAST_DIGITS_WITH_PLUS && !is_tel
                || byte(text, digits + length) == Some(b'.')
            {
                return start;
            }
            let end = end_of(text, start, b" \t\r\n<>\"\\';,?)");
            push(places, digits..end, Found::User);
            return end.max(start);
        }
    };
    let name_start = start + usize::from(byte(text, start) == Some(b'+'));
    let name_end = end_of(text, name_start, b";:").min(user_end);
    push(places, name_start..name_end, Found::User);
    if name_end < user_end {
        push(places, name_end + 1..user_end, Found::Rest);
    }
    user_end
}

/// The words of a display name in front of a URI in angle brackets (RFC 3261 §20.10), quoted or not.
fn names_before(text: &[u8], uri: usize, places: &mut Vec<Place>) {
    let Some(bracket) = uri
        .checked_sub(1)
        .filter(|&at| byte(text, at) == Some(b'<'))
    else {
        return;
    };
    let line = text.get(..bracket).unwrap_or_default();
    let trimmed = line.trim_ascii_end();
    let (delimiters, end): (&[u8], usize) = match trimmed {
        [name @ .., b'"'] => (b"\"\r\n", name.strip_suffix(b"\\").unwrap_or(name).len()),
        name => (b"\":,=([{\r\n", name.len()),
    };
    let name = line.get(..end).unwrap_or_default();
    let start = name
        .iter()
        .rposition(|byte| delimiters.contains(byte))
        .map_or(0, |at| at + 1);
    let mut at = start;
    while at < end {
        if byte(text, at) == Some(b'\\') {
            // An escape is no word: `\"`, `\u001b`.
            at += if byte(text, at + 1) == Some(b'u') {
                6
            } else {
                2
            };
            continue;
        }
        let word = text.get(at..end).unwrap_or_default();
        let length = word
            .iter()
            .position(|&byte| !is_name(byte))
            .unwrap_or(word.len());
        push(places, at..at + length, Found::User);
        at += length.max(1);
    }
}

/// The user in the origin of a session (RFC 8866 §5.2); `-` is nobody. Gives where it goes on.
fn origin(text: &[u8], start: usize, places: &mut Vec<Place>) -> usize {
    let end = end_of(text, start, b" \r\n");
    let line = text
        .get(end..end_of(text, end, b"\r\n"))
        .unwrap_or_default();
    if line.windows(4).any(|word| word == b" IN ") && text.get(start..end) != Some(b"-") {
        push(places, start..end, Found::User);
    }
    end
}

/// A telephone number that stands alone, if one begins here; gives where to go on.
fn number(text: &[u8], at: usize, places: &mut Vec<Place>) -> usize {
    let has_plus = byte(text, at) == Some(b'+');
    let start = at + usize::from(has_plus);
    let length = digits_from(text, start);
    let end = start + length;
    if length == 0 {
        return at + 1;
    }
    let (previous, next) = (before(text, at), byte(text, end));
    let is_apart = !is_word(previous)
        && !matches!(previous, Some(b'-' | b'.' | b'=' | b':' | b'%'))
        && !is_word(next);
    let is_whole = matches!(previous, None | Some(b'"' | b'<' | b'\''))
        && matches!(next, None | Some(b'"' | b'\\' | b'>' | b';' | b'\''));
    let is_number = match has_plus {
        true => length >= LEAST_DIGITS_WITH_PLUS,
        false => length >= LEAST_DIGITS && (is_whole || next == Some(b'@')),
    };
    if is_apart && is_number {
        push(places, start..end, Found::User);
    }
    end
}

fn digits_from(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let length = rest.iter().position(|byte| !byte.is_ascii_digit());
    length.unwrap_or(rest.len())
}

fn push(places: &mut Vec<Place>, range: Range<usize>, found: Found) {
    if !range.is_empty() {
        places.push(Place { range, found });
    }
}

fn byte(text: &[u8], at: usize) -> Option<u8> {
    text.get(at).copied()
}

fn before(text: &[u8], at: usize) -> Option<u8> {
    byte(text, at.checked_sub(1)?)
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Part of a name: other languages' letters are beyond ASCII.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// Where the first of these bytes stands, or the end.
fn end_of(text: &[u8], start: usize, stops: &[u8]) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    let length = rest.iter().position(|byte| stops.contains(byte));
    start + length.unwrap_or(rest.len())
}

fn begins_with(text: &[u8], at: usize, what: &[u8]) -> bool {
    text.get(at..at + what.len())
        .is_some_and(|text| text.eq_ignore_ascii_case(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found, each in brackets.
    fn marked(text: &str, find: fn(&[u8], &mut Vec<Place>)) -> String {
        let mut places = Vec::new();
        find(text.as_bytes(), &mut places);
        places.sort_by_key(|place| place.range.start);
        let (mut marked, mut last) = (String::new(), 0);
        for place in places {
            marked += &text[last..place.range.start];
            marked += &format!("[{}]", &text[place.range.clone()]);
            last = place.range.end;
        }
        marked + &text[last..]
    }

    #[test]
    fn users_are_found_in_uris_and_names_and_numbers() {
        for (text, expect) in [
            ("sip:alice@example.com", "sip:[alice]@example.com"),
            (
                "<SIPS:+4930123456@198.51.100.7:5061>",
                "<SIPS:+[4930123456]@198.51.100.7:5061>",
            ),
            (
                "sip:bob:secret@example.com",
                "sip:[bob]:[secret]@example.com",
            ),
            (
                "sip:123;phone-context=+49@h",
                "sip:[123];[phone-context=+49]@h",
            ),
            (
                "<tel:+1-201-555-0123;ext=7>",
                "<tel:+[1-201-555-0123];ext=7>",
            ),
            ("sip:4930123456;user=phone", "sip:[4930123456];user=phone"),
            ("sip:203.0.113.10:5060 ", "sip:203.0.113.10:5060 "),
            ("sip:example.com;lr", "sip:example.com;lr"),
            (
                "From: Alice Ant <sip:a@b>;tag=1",
                "From: [Alice] [Ant] <sip:[a]@b>;tag=1",
            ),
            ("\"Jörg, Dr.\" <sip:a@b>", "\"[Jörg], [Dr].\" <sip:[a]@b>"),
            (
                r#"value="\"Al\u001bice\" <sip:a@b>""#,
                r#"value="\"[Al]\u001b[ice]\" <sip:[a]@b>""#,
            ),
            (
                "username=\"4930123\", realm=\"x\"",
                "username=\"[4930123]\", realm=\"x\"",
            ),
            ("4930123456@198.51.100.10", "[4930123456]@198.51.100.10"),
            (
                "call_id=\"4930123456\" pid=1234567",
                "call_id=\"[4930123456]\" pid=1234567",
            ),
            ("called +4930123456.", "called +[4930123456]."),
            // Identifiers and counts stay.
            (
                "12345678-1234-1234-1234-123456789012@h",
                "12345678-1234-1234-1234-123456789012@h",
            ),
            (
                "a84b4c76e66710@pc33.example.com",
                "a84b4c76e66710@pc33.example.com",
            ),
            ("CSeq: 314159265 INVITE", "CSeq: 314159265 INVITE"),
            (
                "o=- 2890844526 2890844527 IN IP4 h",
                "o=- 2890844526 2890844527 IN IP4 h",
            ),
            (
                "2026-11-21T07:18:51.1234567Z",
                "2026-11-21T07:18:51.1234567Z",
            ),
            ("{\"packets\":123456789}", "{\"packets\":123456789}"),
            ("40000-60000", "40000-60000"),
        ] {
            assert_eq!(marked(text, users), expect);
        }
    }

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        for (text, expect) in [
            ("12000@198.51.100.10:5060", "12000@[198.51.100.10]:5060"),
            ("c=IN IP4 198.51.100.10\r\n", "c=IN IP4 [198.51.100.10]\r\n"),
            ("to 198.51.100.0/24, all", "to [198.51.100.0]/24, all"),
            ("it was 198.51.100.10.", "it was [198.51.100.10]."),
            ("[2001:db8::1]:5060", "[[2001:db8::1]]:5060"),
            ("c=IN IP6 2001:DB8:113::a", "c=IN IP6 [2001:DB8:113::a]"),
            ("::ffff:198.51.100.10", "[::ffff:198.51.100.10]"),
            ("2026-11-21T07:18:51.704Z", "2026-11-21T07:18:51.704Z"),
            ("aya::maps and dead::beefs", "aya::maps and dead::beefs"),
            ("version 0.1.0, 1.2.3.400", "version 0.1.0, 1.2.3.400"),
        ] {
            assert_eq!(marked(text, addresses), expect);
        }
    }

    #[test]
    fn what_proves_a_password_is_found() {
        let check = |text: &str, expect: &str| assert_eq!(marked(text, credentials), expect);
        check(
            "Digest realm=\"r\", nonce=\"abc\", cnonce=\"d\", response=\"ef\", qop=auth",
            "Digest realm=\"r\", nonce=\"[abc]\", cnonce=\"[d]\", response=\"[ef]\", qop=auth",
        );
        check(
            r#"{"value":"nonce=\"abc\""}"#,
            r#"{"value":"nonce=\"[abc]\""}"#,
        );
        check("response=200", "response=200");
    }
}
