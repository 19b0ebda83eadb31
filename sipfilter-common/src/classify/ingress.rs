//! What comes from outside: protected or not, which fragment, which transport, and which rule decides.
//!
//! What the rules for signalling and media say stands in their own files; here is only who is asked, and in which order.

use super::{
    FamilyTables, Finding, FragmentFate, LocalEnd, Tables, Verdict,
    media::judge_media,
    provisional::place_of,
    scope,
    signalling::{class_of_datagram, judge_amount, judge_fragment, judge_rest, judge_signalling},
};
use crate::{
    addr::Address,
    budget::Class,
    key::FragmentKey,
    parse::{Fragment, Ip, Malformed, Network, TCP, UDP, parse_ethernet, parse_ipv4, parse_ipv6},
    place::Place,
    reader::Reader,
    reason::{Action, Reason},
    settings::{Protected, Protects, Settings, Transport},
};

/// Judges a packet from outside.
#[inline(always)]
pub fn classify_ingress<R: Reader, T: Tables>(reader: &R, tables: &T) -> Verdict {
    judge_frame(reader, tables).under(tables.settings())
}

#[inline(always)]
fn judge_frame<R: Reader, T: Tables>(reader: &R, tables: &T) -> Finding {
    let judged = match parse_ethernet(reader) {
        // A frame too short for an Ethernet header is no IP packet; drivers do not deliver such.
        Err(Malformed) | Ok(Network::Other) => return Finding::plain(Reason::NotIp),
        Ok(Network::Ipv4(start)) => {
            parse_ipv4(reader, start).map(|ip| judge_ingress(reader, tables, &ip))
        }
        Ok(Network::Ipv6(start)) => {
            parse_ipv6(reader, start).map(|ip| judge_ingress(reader, tables, &ip))
        }
    };
    judged.unwrap_or(Finding::plain(Reason::Malformed))
}

#[inline(always)]
fn judge_ingress<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Finding
where
    Settings: Protects<A>,
{
    let Some(at) = tables.settings().protected(ip.destination) else {
        return Finding::plain(Reason::NotProtected);
    };
    match ip.fragment {
        Fragment::Whole => judge_transport(reader, tables, ip, at),
        Fragment::First { id } => {
            let finding = judge_transport(reader, tables, ip, at);
            // The rule's word, not what is done: an observer counts the whole datagram as one that would be gone.
            let fate = match (finding.reason.action(), finding.copy_from) {
                (Action::Drop, _) => FragmentFate::Drop,
                (Action::Pass, None) => FragmentFate::Pass,
                (Action::Pass, Some(_)) => match finding.class {
                    Class::Begins => FragmentFate::CopyBegins,
                    Class::Continues | Class::Segment => FragmentFate::CopyContinues,
                },
            };
            tables.remember_fragment(&fragment_key(ip, id), fate);
            finding
        }
        Fragment::Later { id } => match tables.recall_fragment(&fragment_key(ip, id)) {
            Some(FragmentFate::Drop) => judge_rest(tables, ip),
            Some(FragmentFate::Pass) => Finding::plain(Reason::Fragment),
            Some(FragmentFate::CopyContinues) => judge_fragment(tables, ip, Class::Continues),
            // A provider's fragments may overtake the first one; anybody else's may not.
            Some(FragmentFate::CopyBegins) | None => judge_fragment(tables, ip, Class::Begins),
        },
    }
}

#[inline(always)]
fn fragment_key<A: Address>(ip: &Ip<A>, id: u32) -> FragmentKey {
    FragmentKey {
        source: ip.source.mapped(),
        destination: ip.destination.mapped(),
        id,
        protocol: u32::from(ip.protocol),
    }
}

#[inline(always)]
fn judge_transport<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    at: Protected,
) -> Finding {
    let judged = match ip.protocol {
        UDP => judge_udp(reader, tables, ip, at),
        TCP => judge_tcp(reader, tables, ip),
        _ => Ok(Finding::plain(scope::judge_other_protocol(tables, ip))),
    };
    judged.unwrap_or(Finding::plain(Reason::Malformed))
}

#[inline(always)]
fn judge_tcp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Finding, Malformed> {
    let ports = ip.ports(reader)?;
    if let Some(transport) = tables.settings().pbx.over_tcp(ports.destination) {
        return Ok(judge_signalling(tables, ip, transport, || Class::Segment));
    }
    // The PBX may have dialled out: then the provider's port is the source, and the rest of the world's traffic from such
    // ports is no signalling of ours.
    if let Some(transport) = tables.settings().providers.over_tcp(ports.source)
        && let Some(rule) = tables.provider(ip.source)
        && rule.allows(transport)
    {
        return Ok(judge_amount(tables, ip, rule, transport, Class::Segment));
    }
    scope::judge_other_tcp(reader, tables, ip, &ports).map(Finding::plain)
}

#[inline(always)]
fn judge_udp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    at: Protected,
) -> Result<Finding, Malformed> {
    let ports = ip.ports(reader)?;
    let (payload, payload_end) = ip.udp_payload(reader)?;
    if tables.settings().pbx.is_udp(ports.destination) {
        let finding = judge_signalling(tables, ip, Transport::Udp, || {
            class_of_datagram(reader, (payload, payload_end))
        });
        if finding.reason == Reason::UnknownSource {
            let local = LocalEnd {
                address: ip.destination,
                at,
                port: ports.destination,
            };
            tables.shut(place_of(tables, &local), Place::SIGNALLING);
        }
        return Ok(finding);
    }
    if !tables.settings().is_media_port(ports.destination) {
        return Ok(Finding::plain(scope::judge_other_udp(tables, ip, &ports)));
    }
    Ok(Finding::plain(judge_media(
        reader,
        tables,
        ip,
        at,
        &ports,
        (payload, payload_end),
    )))
}
