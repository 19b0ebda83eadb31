//! Single values: prefixes, addresses, port ranges, ports, durations and words out of a list.
//!
//! Each takes a text with its place, reports what is wrong with the form to write, and gives `None` then. What a value means
//! together with others is checked elsewhere.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;
use sipfilter_common::settings::MAX_PORTS;
use toml::Spanned;

use super::{
    diagnostic::suggestion,
    document::Document,
    raw::{Ports, RawSignallingPorts, Text, Texts},
};
use crate::engine::settings::SignallingPorts;

/// One of a few words.
pub(super) fn word<T: Copy>(doc: &mut Document, text: &Text, known: &[(&str, T)]) -> Option<T> {
    let found = known.iter().find(|(name, _)| name == text.get_ref());
    if found.is_none() {
        let help = suggestion(
            text.get_ref(),
            known.iter().map(|(name, _)| *name),
            "the possible values are",
        );
        doc.error(
            text.span(),
            format!("unknown value {:?}", text.get_ref()),
            help,
        );
    }
    found.map(|(_, value)| *value)
}

/// An address prefix; a bare address stands for itself alone.
pub(super) fn prefix(doc: &mut Document, text: &Text) -> Option<IpNet> {
    let given = text.get_ref().trim();
    let net = match (given.parse::<IpNet>(), given.parse::<IpAddr>()) {
        (Ok(net), _) => net,
        (_, Ok(address)) => IpNet::from(address),
        _ => {
            doc.error(
                text.span(),
                format!("{given:?} is not an address prefix"),
                prefix_help(given),
            );
            return None;
        }
    };
    if net.addr() != net.network() {
        doc.error(
            text.span(),
            format!("{given} has bits set beyond its /{}", net.prefix_len()),
            format!(
                "write \"{}\" for the whole network, or \"{}\" for the one address",
                net.trunc(),
                IpNet::from(net.addr())
            ),
        );
        return None;
    }
    if !is_usable(doc, text, net.addr(), net.prefix_len()) {
        return None;
    }
    Some(net)
}

fn prefix_help(given: &str) -> String {
    let form = "an address, a slash and the length: \"198.51.100.10/32\", \"203.0.113.0/24\" or \"2001:db8::/32\"";
    match given.split_once('/') {
        Some((address, length)) => match address.parse::<IpAddr>() {
            Ok(address) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                format!(
                    "the length {length:?} must be a number from 1 to {most}; for this one address alone write \"{address}/{most}\""
                )
            }
            Err(_) => format!("write {form}"),
        },
        None if given.chars().any(|c| c.is_alphabetic()) && !given.contains(':') => format!(
            "host names are not taken, because what a name resolves to need not be what signals: write {form}"
        ),
        None => format!("write {form}"),
    }
}

/// A single address.
pub(super) fn address(doc: &mut Document, text: &Text) -> Option<IpAddr> {
    let given = text.get_ref().trim();
    match given.parse::<IpAddr>() {
        Ok(address) => is_usable(doc, text, address, 128).then_some(address),
        Err(_) => {
            let help = match given.split_once('/') {
                Some((address, _)) => format!("write the address without a length: \"{address}\""),
                None => {
                    "write one address, such as \"203.0.113.10\" or \"2001:db8::10\"".to_owned()
                }
            };
            doc.error(text.span(), format!("{given:?} is not an IP address"), help);
            None
        }
    }
}

/// Refuses what can be nobody's address. `length` is the prefix length.
fn is_usable(doc: &mut Document, text: &Text, address: IpAddr, length: u8) -> bool {
    if length == 0 {
        doc.error(
            text.span(),
            format!("{} would let everybody in", text.get_ref()),
            "write the provider's own prefixes; an unknown provider's addresses are not to be guessed",
        );
        return false;
    }
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        doc.error(
            text.span(),
            format!("{} is an IPv4 address in IPv6 clothes", text.get_ref()),
            match length {
                96..128 => format!("write \"{v4}/{}\"", length - 96),
                _ => format!("write \"{v4}\""),
            },
        );
        return false;
    }
    if address.is_multicast()
        || address.is_unspecified()
        || address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    {
        doc.error(
            text.span(),
            format!("{} is no host's address", text.get_ref()),
            "write a unicast address, such as \"203.0.113.10\"",
        );
        return false;
    }
    true
}

/// A list whose elements are each read by `read`; duplicates are refused.
pub(super) fn list<T: PartialEq>(
    doc: &mut Document,
    texts: &Texts,
    mut read: impl FnMut(&mut Document, &Text) -> Option<T>,
) -> Vec<T> {
    let mut values = Vec::new();
    for text in texts.get_ref() {
        let Some(value) = read(doc, text) else {
            continue;
        };
        if values.contains(&value) {
            doc.error(
                text.span(),
                format!("{:?} is listed twice", text.get_ref()),
                "remove one of the two",
            );
        } else {
            values.push(value);
        }
    }
    values
}

/// A host name as DNS has it (RFC 1123 §2.1), in lower case and without the last dot.
pub(super) fn host_name(doc: &mut Document, text: &Text) -> Option<String> {
    let name = as_host_name(text.get_ref());
    if name.is_none() {
        doc.error(
            text.span(),
            format!("{:?} is not a host name", text.get_ref()),
            "write a name that DNS knows, without scheme, port or path, for example \"sip.provider.example\"",
        );
    }
    name
}

/// The same for a word of the command line; `None` where it is no host name. An address is none.
pub fn as_host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = name.len() <= 253
        && name.contains('.')
        && name.split('.').all(is_label)
        && name.parse::<IpAddr>().is_err();
    is_name.then(|| name.to_ascii_lowercase())
}

/// A range of UDP ports, `"first-last"`.
pub(super) fn port_range(doc: &mut Document, text: &Text) -> Option<RangeInclusive<u16>> {
    let given = text.get_ref().trim();
    let (first, last) = given.split_once(['-', ':']).unwrap_or((given, given));
    let port = |part: &str| part.trim().parse::<u16>().ok();
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        doc.error(
            text.span(),
            format!("{given:?} is not a range of ports"),
            "write the first and the last port, each from 1 to 65535: \"10000-20000\"",
        );
        return None;
    };
    if first > last {
        doc.error(
            text.span(),
            format!("the range {given} runs backwards"),
            format!("write \"{last}-{first}\""),
        );
        return None;
    }
    if first == 0 {
        doc.error(
            text.span(),
            "port 0 is no port".to_owned(),
            format!("write \"1-{last}\", or better the range that is really used"),
        );
        return None;
    }
    Some(first..=last)
}

/// SIP ports over `default`: a transport that is not named keeps its default, an empty list switches it off.
pub(super) fn signalling_ports(
    doc: &mut Document,
    raw: &RawSignallingPorts,
    default: &SignallingPorts,
) -> SignallingPorts {
    let mut read = |given: &Option<Ports>, default: &[u16]| match given {
        Some(ports) => port_list(doc, ports),
        None => default.to_vec(),
    };
    let ports = SignallingPorts {
        udp: read(&raw.udp, &default.udp),
        tcp: read(&raw.tcp, &default.tcp),
        tls: read(&raw.tls, &default.tls),
    };
    for given in [&raw.tls, &raw.tcp].into_iter().flatten() {
        if let Some(both) = given
            .get_ref()
            .iter()
            .find(|port| ports.tcp.contains(port.get_ref()) && ports.tls.contains(port.get_ref()))
        {
            doc.error(
                both.span(),
                format!("port {} is listed for tcp and for tls", both.get_ref()),
                "TLS runs over TCP: list the port under the one that is spoken there (usually tcp = [5060], tls = [5061])",
            );
            break;
        }
    }
    ports
}

fn port_list(doc: &mut Document, ports: &Ports) -> Vec<u16> {
    let mut list = Vec::new();
    for port in ports.get_ref() {
        if *port.get_ref() == 0 {
            doc.error(
                port.span(),
                "port 0 is no port",
                "write a port from 1 to 65535, usually 5060 (5061 for TLS)",
            );
        } else if list.contains(port.get_ref()) {
            doc.error(
                port.span(),
                format!("port {} is listed twice", port.get_ref()),
                "remove one of the two",
            );
        } else {
            list.push(*port.get_ref());
        }
    }
    if list.len() > MAX_PORTS {
        doc.error(
            ports.span(),
            format!(
                "{} ports for one transport, and at most {MAX_PORTS} fit into the kernel's policy",
                list.len()
            ),
            format!("keep the {MAX_PORTS} that are in use"),
        );
    }
    list
}

/// A duration with its unit, within `limits`.
pub(super) fn duration(
    doc: &mut Document,
    text: &Text,
    limits: RangeInclusive<Duration>,
) -> Option<Duration> {
    let given = text.get_ref().trim();
    let Ok(value) = humantime::parse_duration(given) else {
        let help = match given.parse::<u64>() {
            Ok(number) => format!(
                "a duration needs its unit: write \"{number}s\" for seconds or \"{number}m\" for minutes"
            ),
            Err(_) => "write a number and its unit: \"32s\", \"5m\", \"1h 30m\"".to_owned(),
        };
        doc.error(text.span(), format!("{given:?} is not a duration"), help);
        return None;
    };
    if limits.contains(&value) {
        return Some(value);
    }
    let (least, most) = (
        humantime::format_duration(*limits.start()),
        humantime::format_duration(*limits.end()),
    );
    doc.error(
        text.span(),
        format!("{given} is outside {least} to {most}"),
        format!("write a duration from \"{least}\" to \"{most}\""),
    );
    None
}

/// A count within `limits`.
pub(super) fn count(
    doc: &mut Document,
    number: &Spanned<u64>,
    limits: RangeInclusive<usize>,
) -> Option<usize> {
    match usize::try_from(*number.get_ref()) {
        Ok(value) if limits.contains(&value) => Some(value),
        _ => {
            doc.error(
                number.span(),
                format!(
                    "{} is outside {} to {}",
                    number.get_ref(),
                    limits.start(),
                    limits.end()
                ),
                format!("write a number from {} to {}", limits.start(), limits.end()),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_what_dns_can_be_asked_for() {
        let long = format!("{}.example", "a".repeat(64));
        for (text, expect) in [
            ("sip.provider.example", Some("sip.provider.example")),
            ("SIP.Provider.Example.", Some("sip.provider.example")),
            ("a-1.example", Some("a-1.example")),
            ("localhost", None),
            ("", None),
            (".", None),
            ("a..example", None),
            ("-a.example", None),
            ("a-.example", None),
            ("sip:a.example", None),
            ("a.example:5060", None),
            ("*.example", None),
            ("_sip._udp.a.example", None),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
            (&long, None),
        ] {
            assert_eq!(as_host_name(text).as_deref(), expect, "{text:?}");
        }
    }
}
