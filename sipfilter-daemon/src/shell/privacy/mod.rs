//! Who is named to those who read: the log, the control sockets' answers and captures, redacted as `[privacy]` says.
//!
//! This is the one place that knows. It stands at the daemon's three ways out, and works on finished text and packets, so that a new
//! line, field or header cannot be forgotten: `log` is what the log is written through, `api` what answers pass, and
//! [`Redactor::packet`] what a captured packet passes. Whatever is inside (engine, records, ledgers) keeps what it has seen.
//!
//! Invariants: within a run the same user or address always becomes the same token, which nobody can reckon back without the run's
//! random key; a token of a user is as long as the user, so that packets keep their lengths, and a token of an address is an address, so
//! that whoever reads addresses reads on. Digest credentials reach no log at any setting.

pub mod api;
pub mod log;
mod packet;
mod text;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    hash::Hasher as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock},
};

use siphasher::sip::SipHasher13;

use self::text::{Found, Place};
use crate::config::Redact;

/// What stands in place of what nobody needs to tell apart.
const BLANK: u8 = b'x';
/// Consonants make no words.
const LETTERS: &[u8; 20] = b"bcdfghjklmnpqrstvwxz";
/// Tokens of IPv4 addresses: 240.0.0.0/4, which nobody has (RFC 1112 §4).
const TOKEN_V4: u32 = 0xf000_0000;
/// Tokens of IPv6 addresses: 100::/64, which leads nowhere (RFC 6666).
const TOKEN_V6: u128 = 0x0100 << 112;

/// Redacts, by what is configured now. Its copies all know the same.
#[derive(Debug, Clone)]
pub struct Redactor(Arc<Inner>);

struct Inner {
    key: [u64; 2],
    rules: RwLock<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    redact: Redact,
    /// The PBX's own addresses, which stand in the configuration anyway.
    own: BTreeSet<IpAddr>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Inner").field("rules", &self.rules).finish()
    }
}

impl Redactor {
    /// With a key that is drawn for this run, and what is configured at first.
    pub fn new(key: [u64; 2], redact: Redact) -> Self {
        let rules = Rules {
            redact,
            own: BTreeSet::new(),
        };
        Self(Arc::new(Inner {
            key,
            rules: RwLock::new(rules),
        }))
    }

    /// From now on this is configured.
    pub fn configure(&self, redact: Redact, own: &[IpAddr]) {
        let rules = Rules {
            redact,
            own: own.iter().copied().collect(),
        };
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Whether there is anything to be done.
    pub fn is_idle(&self) -> bool {
        self.redact() == Redact::None
    }

    fn redact(&self) -> Redact {
        let rules = self.0.rules.read();
        rules.unwrap_or_else(PoisonError::into_inner).redact
    }

    /// A text as it may be read.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.replace(text, self.places(text.as_bytes()))
    }

    /// A line of the log as it may be read: credentials go at any setting.
    fn line<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let mut places = self.places(line.as_bytes());
        text::credentials(line.as_bytes(), &mut places);
        self.replace(line, places)
    }

    fn replace<'a>(&self, text: &'a str, mut places: Vec<Place>) -> Cow<'a, str> {
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        places.sort_by_key(|place| place.range.start);
        let (mut told, mut last) = (String::with_capacity(text.len()), 0);
        for Place { range, found } in places {
            // What lies within another one is gone already.
            let (Some(between), Some(what)) =
                (text.get(last..range.start), text.get(range.clone()))
            else {
                continue;
            };
            told.push_str(between);
            match found {
                Found::User => told.extend(self.letters(what.as_bytes()).map(char::from)),
                Found::Rest | Found::Credential => {
                    told.extend(what.bytes().map(|_| char::from(BLANK)));
                }
                Found::Address(address) => told.push_str(&self.address(address).to_string()),
            }
            last = range.end;
        }
        told.push_str(text.get(last..).unwrap_or_default());
        Cow::Owned(told)
    }

    /// The same in place, nothing longer or shorter than it was: addresses are blanked.
    fn in_place(&self, text: &mut [u8]) {
        for Place { range, found } in self.places(text) {
            let Some(what) = text.get_mut(range) else {
                continue;
            };
            match found {
                Found::User => {
                    let letters: Vec<u8> = self.letters(what).collect();
                    what.copy_from_slice(&letters);
                }
                Found::Rest | Found::Credential => what.fill(BLANK),
                Found::Address(_) => {
                    for byte in what.iter_mut().filter(|byte| byte.is_ascii_hexdigit()) {
                        *byte = BLANK;
                    }
                }
            }
        }
    }

    fn places(&self, text: &[u8]) -> Vec<Place> {
        let mut places = Vec::new();
        let redact = self.redact();
        if redact != Redact::None {
            text::users(text, &mut places);
        }
        if redact == Redact::UsersAndAddresses {
            text::addresses(text, &mut places);
            places.retain(
                |place| !matches!(place.found, Found::Address(address) if self.is_plain(address)),
            );
        }
        places
    }

    /// Addresses that stay: the PBX's, this host's loopback, and those that mean any.
    fn is_plain(&self, address: IpAddr) -> bool {
        let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
        address.is_loopback()
            || address.is_unspecified()
            || rules.own.contains(&address.to_canonical())
    }

    /// An address that stands for this one, if it does not stay.
    fn address(&self, address: IpAddr) -> IpAddr {
        if self.is_plain(address) {
            return address;
        }
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let token = self.hash(&address.octets(), 0) as u32 & !TOKEN_V4;
                Ipv4Addr::from(TOKEN_V4 | token).into()
            }
            IpAddr::V6(address) => {
                let token = self.hash(&address.octets(), 0);
                Ipv6Addr::from(TOKEN_V6 | u128::from(token)).into()
            }
        }
    }

    /// As many letters as there were bytes.
    fn letters(&self, what: &[u8]) -> impl Iterator<Item = u8> {
        let what = what.to_vec();
        let redactor = self.clone();
        let mut word = 0;
        (0..what.len()).map(move |at| {
            // A word of 64 bits is good for eight letters.
            if at % 8 == 0 {
                word = redactor.hash(&what, at as u64 + 1);
            }
            let letter = LETTERS[(word % LETTERS.len() as u64) as usize];
            word /= LETTERS.len() as u64;
            letter
        })
    }

    fn hash(&self, what: &[u8], turn: u64) -> u64 {
        let [one, two] = self.0.key;
        let mut hasher = SipHasher13::new_with_keys(one, two);
        hasher.write(what);
        hasher.write_u64(turn);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "\"Alice\" <sip:+4930123456@198.51.100.7> via 198.51.100.7, 2001:db8::7 and 203.0.113.10";

    fn redactor(redact: Redact) -> Redactor {
        let redactor = Redactor::new([1, 2], Redact::None);
        redactor.configure(redact, &["203.0.113.10".parse().expect("an address")]);
        redactor
    }

    #[test]
    fn each_setting_tells_what_it_says_and_no_more() {
        let hidden = |redact: Redact| {
            let told = redactor(redact).text(TEXT).into_owned();
            [
                "Alice",
                "4930123456",
                "198.51.100.7",
                "2001:db8::7",
                "203.0.113.10",
            ]
            .into_iter()
            .filter(|what| !told.contains(what))
            .collect::<Vec<_>>()
        };
        assert_eq!(hidden(Redact::None), Vec::<&str>::new());
        assert_eq!(hidden(Redact::Users), ["Alice", "4930123456"]);
        assert_eq!(
            hidden(Redact::UsersAndAddresses),
            ["Alice", "4930123456", "198.51.100.7", "2001:db8::7"]
        );
    }

    #[test]
    fn the_same_is_told_the_same_everywhere_and_otherwise_in_another_run() {
        let redactor = redactor(Redact::UsersAndAddresses);
        let told = redactor
            .text("sip:4930123456@198.51.100.7 tel:+4930123456 198.51.100.7")
            .into_owned();
        let (first, rest) = told.split_once('@').expect("a URI");
        let user = first.strip_prefix("sip:").expect("a user");
        assert!(
            user.len() == 10 && rest.contains(&format!("tel:+{user}")),
            "{told}"
        );
        let (address, last) = rest.split_once(' ').expect("an address");
        assert!(
            last.ends_with(address) && address.starts_with("24"),
            "{told}"
        );
        address
            .parse::<Ipv4Addr>()
            .expect("a token that is an address");
        assert_ne!(redactor.text("sip:4930123457@h"), format!("sip:{user}@h"));
        let other = Redactor::new([1, 3], Redact::Users);
        assert_ne!(other.text("sip:4930123456@h"), format!("sip:{user}@h"));
        let mut packet = *b"sip:4930123456@198.51.100.7";
        redactor.in_place(&mut packet);
        assert_eq!(
            packet.as_slice(),
            format!("sip:{user}@xxx.xx.xxx.x").as_bytes()
        );
    }

    #[test]
    fn credentials_are_in_no_line_at_any_setting() {
        for redact in [Redact::None, Redact::Users, Redact::UsersAndAddresses] {
            let line = redactor(redact)
                .line("nonce=\"secret\" response=\"secret\"")
                .into_owned();
            assert_eq!(line, "nonce=\"xxxxxx\" response=\"xxxxxx\"");
        }
    }
}
