//! What the beginning of a message says of its sender, for reports on strangers.
//!
//! Nothing here is believed and nothing follows from it: who is let in is the kernel's matter, by address. It takes what there is of a
//! message, cut short or not, which the engine's own reading (`scan`) refuses. Every text that it gives is bounded.

use super::{
    head::is_start_line,
    lines::{Headers, split_line, without_cr},
};

/// Bytes of a text that is shown.
const MAX_TEXT: usize = 96;
/// A domain's length (RFC 1035 §2.3.4).
const MAX_DOMAIN: usize = 253;
/// Headers that are looked at.
const MAX_HEADERS: usize = 64;

/// What a message claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// A request's method, or `response`.
    pub method: String,
    /// User-Agent, or Server (RFC 3261 §20.41, §20.35).
    pub user_agent: Option<String>,
    /// The domains of From, Contact and the topmost Via, lower case, each once; addresses are none.
    pub domains: Vec<String>,
}

/// Reads the beginning of a message; `None` if it is no SIP.
pub fn read_claims(bytes: &[u8]) -> Option<Claims> {
    let (line, rest) = split_line(bytes)?;
    let line = without_cr(line);
    if !is_start_line(line) {
        return None;
    }
    let mut claims = Claims {
        method: match line.strip_prefix(b"SIP/2.0 ") {
            Some(_) => "response".to_owned(),
            None => text(line.split(|&byte| byte == b' ').next()?),
        },
        ..Claims::default()
    };
    // A header whose end is missing may be cut anywhere.
    let end = rest.iter().rposition(|&byte| byte == b'\n')?;
    let (mut from, mut contact, mut via) = (None, None, None);
    for header in Headers::new(rest.get(..end)?).take(MAX_HEADERS) {
        let is = |full: &str, short: &str| {
            header.name.eq_ignore_ascii_case(full.as_bytes())
                || (!short.is_empty() && header.name.eq_ignore_ascii_case(short.as_bytes()))
        };
        let value = header.value.line();
        if is("From", "f") {
            from = from.or_else(|| domain_of_address(&value));
        } else if is("Contact", "m") {
            contact = contact.or_else(|| domain_of_address(&value));
        } else if is("Via", "v") {
            via = via.or_else(|| domain_of_via(&value));
        } else if (is("User-Agent", "") || is("Server", "")) && claims.user_agent.is_none() {
            claims.user_agent = Some(text(&value)).filter(|text| !text.is_empty());
        }
    }
    for domain in [from, contact, via].into_iter().flatten() {
        if !claims.domains.contains(&domain) {
            claims.domains.push(domain);
        }
    }
    Some(claims)
}

/// The beginning of a text, each byte that is no UTF-8 replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_TEXT).unwrap_or(bytes))
        .trim()
        .to_owned()
}

/// The domain in `"name" <sip:user@domain:port;parameters>;tag=…` (§20.10, §20.20).
fn domain_of_address(value: &[u8]) -> Option<String> {
    let uri = value
        .windows(4)
        .position(|window| window.eq_ignore_ascii_case(b"sip:"))
        .map(|at| at + 4)
        .or_else(|| {
            value
                .windows(5)
                .position(|window| window.eq_ignore_ascii_case(b"sips:"))
                .map(|at| at + 5)
        })?;
    let uri = value.get(uri..)?;
    let end = uri
        .iter()
        .position(|byte| matches!(byte, b'>' | b'?' | b',' | b' ' | b'\t'))
        .unwrap_or(uri.len());
    let uri = uri.get(..end)?;
    // A user part may have semicolons of its own.
    let host = match uri.iter().rposition(|&byte| byte == b'@') {
        Some(at) => uri.get(at + 1..)?,
        None => uri,
    };
    domain(host)
}

/// The domain in `SIP/2.0/UDP domain:port;branch=…` (§20.42).
fn domain_of_via(value: &[u8]) -> Option<String> {
    let mut words = value
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    words.next()?;
    domain(words.next()?)
}

/// A host in front of its port and parameters, if it is a domain.
fn domain(host: &[u8]) -> Option<String> {
    let end = host
        .iter()
        .position(|byte| matches!(byte, b':' | b';' | b','))
        .unwrap_or(host.len());
    let host = str::from_utf8(host.get(..end)?).ok()?.trim_end_matches('.');
    let is_domain = host.len() <= MAX_DOMAIN
        && host.contains('.')
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_domain.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_claims_a_method_an_agent_and_domains() {
        let check = |message: &str, expect: Option<(&str, Option<&str>, &[&str])>| {
            let found = read_claims(message.as_bytes());
            let expect = expect.map(|(method, agent, domains)| Claims {
                method: method.to_owned(),
                user_agent: agent.map(str::to_owned),
                domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            });
            assert_eq!(found, expect, "{message:?}");
        };
        check("", None);
        check("GET / HTTP/1.1\r\nHost: x.example\r\n\r\n", None);
        check(
            "INVITE sip:9@203.0.113.10 SIP/2.0\r\nVia: SIP/2.0/UDP gw.example.com:5060;branch=z9\r\n\
             From: \"a <b\" <sip:100@Sip.Vapi.AI;user=phone>;tag=1\r\nUser-Agent: friendly-scanner\r\n\
             Contact: <sips:100@192.0.2.66:5061>\r\n\r\n",
            Some((
                "INVITE",
                Some("friendly-scanner"),
                &["sip.vapi.ai", "gw.example.com"],
            )),
        );
        check(
            "SIP/2.0 404 Not Found\r\nf: sip:1@a.example\r\nServer: x\r\n\r\n",
            Some(("response", Some("x"), &["a.example"])),
        );
        // Cut in the middle of a header: what is whole counts.
        check(
            "REGISTER sip:x SIP/2.0\nm: <sip:1@one.example>\nFrom: <sip:1@two.exa",
            Some(("REGISTER", None, &["one.example"])),
        );
        check(
            "OPTIONS sip:x SIP/2.0\r\nVia:\r\nFrom: sip:[2001:db8::1]\r\nContact: *\r\n\r\n",
            Some(("OPTIONS", None, &[])),
        );
    }

    #[test]
    fn cut_anywhere_or_full_of_junk_it_reads_within_its_bounds() {
        let long = format!(
            "X{} sip:x SIP/2.0\r\nUser-Agent: {}\r\nFrom: <sip:a@{}.example>\r\n\r\n",
            "M".repeat(500),
            "\u{7f}é".repeat(300),
            "d".repeat(400)
        );
        for end in 0..long.len() {
            let bytes = long.as_bytes().get(..end).unwrap_or_default();
            if let Some(claims) = read_claims(bytes) {
                assert!(claims.method.len() <= 3 * MAX_TEXT);
                let agent = claims.user_agent.map_or(0, |agent| agent.len());
                assert!(agent <= 3 * MAX_TEXT && claims.domains.is_empty());
            }
        }
    }
}
