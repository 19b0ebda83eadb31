//! The `[pbx]` section: preset, port ranges, protected addresses, SIP ports and NAT.
//!
//! It does not ask the system for an interface's addresses: `Config::resolve` does that later, through its caller.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use sipfilter_common::settings::MAX_PROTECTED;
use toml::Spanned;

use super::{
    catalogue::{Catalogue, Preset},
    diagnostic::suggestion,
    document::Document,
    raw::{RawPbx, Text},
    values,
};
use crate::engine::settings::{Pbx, SignallingPorts};

/// Checks the section. `None` where no RTP range came of it; the reason has been reported.
pub(super) fn check(
    doc: &mut Document,
    raw: Option<&Spanned<RawPbx>>,
    catalogue: &Catalogue,
) -> Option<(Pbx, Option<String>)> {
    let Some(section) = raw else {
        doc.missing(
            None,
            "pbx",
            "the section [pbx] is missing",
            format!(
                "add [pbx] with preset = \"asterisk\" (or another of {}), or rtp_ports = \"10000-20000\" as in the PBX's own configuration",
                quoted(catalogue.preset_names())
            ),
        );
        return None;
    };
    let raw = section.get_ref();
    let preset = raw
        .preset
        .as_ref()
        .and_then(|text| preset(doc, text, catalogue));
    let rtp_ports = match &raw.rtp_ports {
        Some(text) => values::port_range(doc, text),
        None => preset.as_ref().map(|preset| preset.rtp_ports.clone()),
    };
    if raw.rtp_ports.is_none() && raw.preset.is_none() {
        doc.missing(
            Some(section.span()),
            "rtp_ports",
            "the PBX's RTP ports are not given",
            format!(
                "add rtp_ports = \"10000-20000\" as in the PBX's own configuration, or preset = one of {}",
                quoted(catalogue.preset_names())
            ),
        );
    }
    let udptl_ports = match &raw.udptl_ports {
        Some(text) => values::port_range(doc, text),
        None => preset
            .as_ref()
            .and_then(|preset| preset.udptl_ports.clone()),
    };
    let default = preset
        .as_ref()
        .map_or_else(SignallingPorts::default, |preset| preset.signalling.clone());
    let signalling = values::signalling_ports(doc, &raw.signalling, &default);
    if signalling.udp.is_empty() && signalling.tcp.is_empty() && signalling.tls.is_empty() {
        doc.error(
            section.span(),
            "the PBX has no SIP port at all",
            "leave at least one: signalling = { udp = [5060] }",
        );
    }
    let addresses = addresses(doc, raw);
    let nat = nat(doc, raw, &addresses);
    let rtp_ports = rtp_ports?;
    let at = raw.rtp_ports.as_ref().or(raw.preset.as_ref());
    no_signalling_inside(doc, at, "RTP", &rtp_ports, &signalling);
    if let Some(range) = &udptl_ports {
        let at = raw.udptl_ports.as_ref().or(raw.preset.as_ref());
        no_signalling_inside(doc, at, "UDPTL", range, &signalling);
    }
    let pbx = Pbx {
        addresses,
        rtp_ports,
        udptl_ports,
        nat,
        signalling,
    };
    Some((pbx, preset.map(|preset| preset.name)))
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(", ")
}

fn preset(doc: &mut Document, text: &Text, catalogue: &Catalogue) -> Option<Preset> {
    let name = text.get_ref();
    match catalogue.preset(name) {
        Some((preset, diagnostics)) => {
            doc.absorb(diagnostics);
            preset
        }
        None => {
            let help = suggestion(name, catalogue.preset_names(), "the presets are");
            doc.error(
                text.span(),
                format!("unknown PBX preset {name:?}"),
                format!("{help}; for any other PBX write rtp_ports = \"10000-20000\" instead"),
            );
            None
        }
    }
}

fn addresses(doc: &mut Document, raw: &RawPbx) -> Vec<IpAddr> {
    let Some(texts) = &raw.addresses else {
        return Vec::new();
    };
    if texts.get_ref().is_empty() {
        doc.error(
            texts.span(),
            "the list of protected addresses is empty",
            "list the PBX's addresses, or leave the key out for those of the interfaces",
        );
    }
    let list = values::list(doc, texts, values::address);
    if let Some((count, family)) = too_many(&list) {
        doc.error(
            texts.span(),
            format!("{count} {family} addresses, and at most {MAX_PROTECTED} fit into the kernel's policy"),
            format!("keep the {MAX_PROTECTED} on which the PBX takes calls"),
        );
    }
    list
}

/// The family that has more addresses than the kernel holds, and how many.
pub(super) fn too_many(addresses: &[IpAddr]) -> Option<(usize, &'static str)> {
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    let v6 = addresses.len() - v4;
    [(v4, "IPv4"), (v6, "IPv6")]
        .into_iter()
        .find(|(count, _)| *count > MAX_PROTECTED)
}

fn nat(doc: &mut Document, raw: &RawPbx, protected: &[IpAddr]) -> BTreeMap<IpAddr, IpAddr> {
    let mut nat = BTreeMap::new();
    for (private_text, public_text) in &raw.nat {
        let private = values::address(doc, private_text);
        let public = values::address(doc, public_text);
        let (Some(private), Some(public)) = (private, public) else {
            continue;
        };
        if private.is_ipv4() != public.is_ipv4() {
            doc.error(
                public_text.span(),
                format!("{private} and {public} are of different families"),
                "map an IPv4 address to an IPv4 address and an IPv6 address to an IPv6 address",
            );
        } else if private == public {
            doc.error(
                public_text.span(),
                format!("{private} is mapped to itself"),
                "remove the line: an address that stands for itself needs none",
            );
        } else if !protected.is_empty() && !protected.contains(&public) {
            doc.error(
                public_text.span(),
                format!("{public} is not one of pbx.addresses"),
                format!("the right side is the address that the outside sees: add \"{public}\" to pbx.addresses"),
            );
        } else {
            nat.insert(private, public);
        }
    }
    nat
}

/// RTP on a SIP port would be judged as signalling and dropped: better said now.
fn no_signalling_inside(
    doc: &mut Document,
    at: Option<&Text>,
    what: &str,
    range: &RangeInclusive<u16>,
    signalling: &SignallingPorts,
) {
    let Some(at) = at else { return };
    if let Some(port) = signalling.udp.iter().find(|port| range.contains(port)) {
        doc.error(
            at.span(),
            format!("the PBX's {what} range {}-{} contains its SIP port {port}", range.start(), range.end()),
            format!("narrow the range here and in the PBX so that it leaves out {port}, or name the SIP ports in signalling = {{ udp = […] }}"),
        );
    }
}
