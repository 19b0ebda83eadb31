//! What leaves: which of it is signalling to copy, whose media it is, and what goes to nobody that a trunk names.
//!
//! A reason that calls for a drop is carried out only where egress is enforced ([`Mode::EnforceEgress`]); else it is counted.

use super::{
    FamilyTables, Finding, LocalEnd, Tables, Verdict, flow,
    provisional::{self, Opening},
    scope::is_strict,
    signalling::{allows, leaving},
};
use crate::{
    addr::Address,
    gate::Hole as _,
    parse::{
        Fragment, Ip, Malformed, Network, Ports, TCP, UDP, parse_ethernet, parse_ipv4, parse_ipv6,
    },
    reader::Reader,
    reason::{Action, Reason},
    settings::{Mode, Protected, Protects, Settings, Transport},
};

/// Judges a packet that leaves: what to copy, whose media it is, and whether it goes to anybody that it should.
#[inline(always)]
pub fn classify_egress<R: Reader, T: Tables>(reader: &R, tables: &T) -> Verdict {
    let finding = judge_frame(reader, tables);
    provisional::open(reader, tables, &finding.opening);
    finding.under(tables.settings())
}

#[inline(always)]
fn judge_frame<R: Reader, T: Tables>(reader: &R, tables: &T) -> Finding {
    let judged = match parse_ethernet(reader) {
        Err(Malformed) | Ok(Network::Other) => return Finding::plain(Reason::EgressOther),
        Ok(Network::Ipv4(start)) => {
            parse_ipv4(reader, start).map(|ip| judge_egress(reader, tables, &ip))
        }
        Ok(Network::Ipv6(start)) => {
            parse_ipv6(reader, start).map(|ip| judge_egress(reader, tables, &ip))
        }
    };
    judged.unwrap_or(Finding::plain(Reason::EgressOther))
}

#[inline(always)]
fn judge_egress<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Finding
where
    Settings: Protects<A>,
{
    let Some(at) = tables.settings().protected(ip.source) else {
        return Finding::plain(Reason::EgressOther);
    };
    if tables.settings().knows_outer() && tables.settings().is_outer(reader.arrived_on()) {
        // Whoever forges the PBX's address must not get to say what the PBX offers.
        return Finding::plain(Reason::EgressForged);
    }
    if let Fragment::Later { .. } = ip.fragment {
        // Without ports, only the destination tells signalling from the rest. Where the first fragment is dropped, nobody can put
        // the datagram together.
        return match tables.provider(ip.destination) {
            Some(_) => leaving(ip, Transport::Udp),
            None => Finding::plain(Reason::EgressOther),
        };
    }
    let judged = match ip.protocol {
        UDP => egress_udp(reader, tables, ip, at),
        TCP => egress_tcp(reader, tables, ip),
        _ => Err(Malformed),
    };
    judged.unwrap_or(Finding::plain(Reason::EgressOther))
}

#[inline(always)]
fn egress_udp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    at: Protected,
) -> Result<Finding, Malformed> {
    let ports = ip.ports(reader)?;
    let settings = tables.settings();
    if settings.is_media_port(ports.source) {
        return Ok(Finding::plain(egress_media(tables, ip, at, &ports)));
    }
    let is_from_sip = settings.pbx.is_udp(ports.source);
    if (is_from_sip || settings.providers.is_udp(ports.destination))
        && let Some(rule) = tables.provider(ip.destination)
        && rule.allows(Transport::Udp)
    {
        let opening = provisional::opening(reader, tables, ip, rule);
        return Ok(leaving(ip, Transport::Udp).opening(opening));
    }
    if is_from_sip || is_sip(ports.destination) {
        return Ok(Finding::plain(Reason::EgressForeignSignalling));
    }
    if is_strict(tables) {
        flow::note(tables, ip, &ports);
    }
    Ok(Finding::plain(Reason::EgressOther))
}

/// A packet from a media port: a call's, one that a provider's limits cover, or neither.
#[inline(always)]
fn egress_media<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
    at: Protected,
    ports: &Ports,
) -> Reason {
    let settings = tables.settings();
    let local = LocalEnd {
        address: ip.source,
        at,
        port: ports.source,
    };
    if let Some(hole) = tables.pinhole(&local) {
        // Another address of the provider's is where the next answer may move the call to before the daemon has read it.
        let is_known = hole.names(ip.destination, ports.destination)
            || tables
                .media_limits(ip.destination)
                .is_some_and(|limits| limits.contains(ports.destination));
        let reason = if is_known {
            Reason::EgressMedia
        } else {
            Reason::EgressForeignMedia
        };
        if settings.modes().action(reason) == Action::Pass {
            hole.slot().count_egress(hole.aside(), tables.now());
        }
        return reason;
    }
    if let Some(limits) = tables.media_limits(ip.destination)
        && limits.contains(ports.destination)
    {
        if settings.modes().has(Mode::Replies) && limits.takes_replies(ports.destination) {
            flow::note(tables, ip, ports);
        }
        return Reason::EgressOther;
    }
    // A client's port may lie among the media ports, where the host's ephemeral ports do.
    if settings.providers.is_udp(ports.destination)
        && allows(tables.provider(ip.destination), Transport::Udp)
    {
        return Reason::EgressOther;
    }
    if is_sip(ports.destination) {
        Reason::EgressForeignSignalling
    } else {
        Reason::EgressForeignMedia
    }
}

#[inline(always)]
fn egress_tcp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Finding, Malformed> {
    let ports = ip.ports(reader)?;
    let settings = tables.settings();
    let from_sip = settings.pbx.over_tcp(ports.source);
    let transport = from_sip.or(settings.providers.over_tcp(ports.destination));
    if let Some(transport) = transport
        && let Some(rule) = tables.provider(ip.destination)
        && rule.allows(transport)
    {
        let opening = match transport {
            Transport::Tcp => provisional::opening(reader, tables, ip, rule),
            Transport::Udp | Transport::Tls => Opening::NONE,
        };
        return Ok(leaving(ip, transport).opening(opening));
    }
    Ok(if from_sip.is_some() || is_sip(ports.destination) {
        Finding::plain(Reason::EgressForeignSignalling)
    } else {
        Finding::plain(Reason::EgressOther)
    })
}

/// SIP's own ports (RFC 3261 §19.1.2), whoever listens there. Ports that only some provider uses are not among them: one may take
/// its SIP on 443.
#[inline(always)]
const fn is_sip(port: u16) -> bool {
    port == 5060 || port == 5061
}
