//! `enforcement`, `scope`, `egress`, `provisional` and `[[strict.allow]]`: how the packet policy is applied, and what strict scope lets in.
//!
//! It says so where the operator would lock people out; that nobody who is in already is locked out is the policy's own doing.
//!
//! Invariant: what any source prefix is allowed fits into the kernel's list for it.

use std::ops::RangeInclusive;

use sipfilter_common::{abi::ALLOWED_PREFIXES, value::MAX_ALLOWED};
use toml::Spanned;

use super::{
    document::Document,
    provider::Keyword,
    raw::{RawAllow, RawConfig},
    values,
};
use crate::{
    engine::settings::{Allow, Egress, Enforcement, Filtering, Pbx, Provisional, Scope},
    ranges::entries_by_prefix,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SSH: u16 = 22;

/// Names of IANA protocol numbers that somebody may want to let in; a number in quotes stands for any other.
const PROTOCOLS: [(&str, u8); 7] = [
    ("tcp", TCP),
    ("udp", UDP),
    ("gre", 47),
    ("ipip", 4),
    ("ipv6", 41),
    ("l2tp", 115),
    ("sctp", 132),
];

/// Which of the two scopes is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Voice,
    Strict,
}

const REACHES: [(&str, Reach); 2] = [("voice", Reach::Voice), ("strict", Reach::Strict)];

impl Keyword for Enforcement {
    const WORDS: &'static [(&'static str, Self)] =
        &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

impl Keyword for Egress {
    const WORDS: &'static [(&'static str, Self)] =
        &[("count", Self::Count), ("enforce", Self::Enforce)];
}

/// The protocol's name, or its number where it has none here.
pub(super) fn protocol_name(protocol: u8) -> String {
    PROTOCOLS
        .iter()
        .find(|(_, number)| *number == protocol)
        .map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned())
}

/// Checks everything that says how the policy is applied.
pub(super) fn check(doc: &mut Document, raw: &RawConfig, pbx: Option<&Pbx>) -> Filtering {
    let enforcement = raw
        .enforcement
        .as_ref()
        .and_then(|text| values::word(doc, text, Enforcement::WORDS))
        .unwrap_or_default();
    let egress = raw
        .egress
        .as_ref()
        .and_then(|text| values::word(doc, text, Egress::WORDS))
        .unwrap_or_default();
    let provisional = match &raw.provisional {
        Some(false) => Provisional::Off,
        Some(true) | None => Provisional::On,
    };
    let reach = raw
        .scope
        .as_ref()
        .and_then(|text| values::word(doc, text, &REACHES))
        .unwrap_or(Reach::Voice);
    let mut rules = Vec::new();
    for section in &raw.strict.allow {
        let Some(rule) = allow(doc, section) else {
            continue;
        };
        rules.push(rule);
        check_room(doc, section, &rules);
        if let Some(pbx) = pbx {
            warn_of_voice(doc, section.get_ref(), pbx);
        }
    }
    match (reach, &raw.scope) {
        (Reach::Strict, Some(scope)) => {
            let has_ssh = rules.iter().any(|rule| {
                rule.protocol == TCP && rule.ports.iter().any(|ports| ports.contains(&SSH))
            });
            if !has_ssh && !doc.has_refused(&["strict", "strict.allow"]) {
                doc.warn(
                    scope.span(),
                    "strict scope lets in no new connection to TCP port 22: sessions that are established go on, but nobody can log in by SSH",
                    "add [[strict.allow]] with protocol = \"tcp\", ports = [\"22\"], from = [\"192.0.2.0/24\"] (or the port that is really used, if you do not need 22)",
                );
            }
            Filtering {
                enforcement,
                scope: Scope::Strict(rules),
                egress,
                provisional,
            }
        }
        _ => {
            if let Some(first) = raw.strict.allow.first() {
                doc.warn(
                    first.span(),
                    "the allow-list has no effect: only strict scope asks for it",
                    "write scope = \"strict\" at the top of the file, or remove the section",
                );
            }
            Filtering {
                enforcement,
                scope: Scope::Voice,
                egress,
                provisional,
            }
        }
    }
}

fn allow(doc: &mut Document, section: &Spanned<RawAllow>) -> Option<Allow> {
    let raw = section.get_ref();
    let Some(text) = &raw.protocol else {
        doc.missing(
            Some(section.span()),
            "protocol",
            "this section names no protocol",
            "add protocol = \"tcp\" or \"udp\", and ports = [\"22\"]",
        );
        return None;
    };
    let protocol = match text.get_ref().parse::<u8>() {
        Ok(number) => number,
        Err(_) => values::word(doc, text, &PROTOCOLS)?,
    };
    let from = match &raw.from {
        None => Vec::new(),
        Some(texts) => {
            let nets = values::list(doc, texts, values::prefix);
            if nets.is_empty() {
                if texts.get_ref().is_empty() {
                    doc.error(
                        texts.span(),
                        "the list of sources is empty, which would be nobody",
                        "name prefixes, from = [\"192.0.2.0/24\"], or leave the key out for anywhere",
                    );
                }
                return None;
            }
            nets
        }
    };
    let has_ports = protocol == TCP || protocol == UDP;
    let ports: Vec<RangeInclusive<u16>> = match &raw.ports {
        Some(texts) if !has_ports => {
            doc.error(
                texts.span(),
                format!(
                    "ports are read of TCP and UDP alone, not of protocol {}",
                    text.get_ref()
                ),
                "leave the key out: the rule lets in the whole protocol",
            );
            return None;
        }
        Some(texts) => values::list(doc, texts, values::port_range),
        None => Vec::new(),
    };
    if has_ports && ports.is_empty() {
        // Ports that were all refused have been complained of already.
        if raw
            .ports
            .as_ref()
            .is_none_or(|texts| texts.get_ref().is_empty())
        {
            doc.missing(
                Some(section.span()),
                "ports",
                "this section names no ports",
                "add ports = [\"22\", \"8000-8100\"]; every port would be \"1-65535\"",
            );
        }
        return None;
    }
    Some(Allow {
        protocol,
        ports,
        from,
    })
}

/// Reports the rule with which a prefix, or the list of prefixes, outgrows the kernel's table.
fn check_room(doc: &mut Document, section: &Spanned<RawAllow>, rules: &[Allow]) {
    let lists = entries_by_prefix(rules);
    if let Some((prefix, list)) = lists.iter().find(|(_, list)| list.len() > MAX_ALLOWED) {
        doc.error(
            section.span(),
            format!(
                "with this rule {prefix} has {} port ranges, and at most {MAX_ALLOWED} fit into the kernel's list for one prefix",
                list.len()
            ),
            "join neighbouring ports into ranges, or let in fewer",
        );
    }
    if lists.len() > ALLOWED_PREFIXES as usize {
        doc.error(
            section.span(),
            format!("{} source prefixes up to here, and at most {ALLOWED_PREFIXES} fit into the kernel's table", lists.len()),
            "join neighbouring prefixes into wider ones",
        );
    }
}

/// SIP and media are judged before the allow-list is asked.
fn warn_of_voice(doc: &mut Document, raw: &RawAllow, pbx: &Pbx) {
    let (Some(protocol), Some(texts)) = (&raw.protocol, &raw.ports) else {
        return;
    };
    let signalling = &pbx.signalling;
    let (sip, media): (Vec<u16>, _) = match protocol.get_ref().as_str() {
        "tcp" => (
            signalling
                .tcp
                .iter()
                .chain(&signalling.tls)
                .copied()
                .collect(),
            None,
        ),
        "udp" => (signalling.udp.clone(), Some(&pbx.rtp_ports)),
        _ => return,
    };
    for text in texts.get_ref() {
        let given = text.get_ref();
        let (first, last) = given.split_once('-').unwrap_or((given, given));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>())
        else {
            continue;
        };
        let is_sip = sip.iter().any(|port| (first..=last).contains(port));
        let is_media = media.is_some_and(|media| first <= *media.end() && *media.start() <= last);
        if is_sip || is_media {
            doc.warn(
                text.span(),
                format!(
                    "the PBX's {} are among {given}, and the allow-list is not asked about those",
                    if is_sip { "SIP ports" } else { "RTP ports" }
                ),
                "who may signal is said by a [[trunk]], and media passes through pinholes; nothing to do if the rest is meant",
            );
        }
    }
}
