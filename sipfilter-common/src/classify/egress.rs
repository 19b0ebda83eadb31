//! What leaves: which of it is signalling to copy, and whose media it is.

use super::{
    FamilyTables, Finding, Tables, Verdict,
    signalling::{allows, signalling},
};
use crate::{
    addr::Address,
    key::PinholeKey,
    parse::{Fragment, Ip, Malformed, Network, TCP, UDP, parse_ethernet, parse_ipv4, parse_ipv6},
    reader::Reader,
    reason::Reason,
    settings::{Protects, Settings, Transport},
};

/// Reads a packet that leaves: what to copy, and whose media it is. Nothing is dropped on the way out.
#[inline(always)]
pub fn classify_egress<R: Reader, T: Tables>(reader: &R, tables: &T) -> Verdict {
    judge_frame(reader, tables).under(tables.settings())
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
    if !tables.settings().is_protected(ip.source) {
        return Finding::plain(Reason::EgressOther);
    }
    if let Fragment::Later { .. } = ip.fragment {
        // Without ports, only the destination tells signalling from the rest.
        return match tables.provider(ip.destination) {
            Some(_) => Finding::copied(Reason::EgressSignalling, ip.start),
            None => Finding::plain(Reason::EgressOther),
        };
    }
    let judged = match ip.protocol {
        UDP => egress_udp(reader, tables, ip),
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
) -> Result<Finding, Malformed> {
    let ports = ip.ports(reader)?;
    let settings = tables.settings();
    if settings.is_media_port(ports.source) {
        let Some(slot) = tables
            .pinhole(&PinholeKey::new(ip.source, ports.source))
            .and_then(|pinhole| tables.slot(pinhole.slot))
        else {
            return Ok(Finding::plain(Reason::EgressOther));
        };
        slot.count_egress(ip.length(), tables.now());
        return Ok(Finding::plain(Reason::EgressMedia));
    }
    if (settings.pbx.is_udp(ports.source) || settings.providers.is_udp(ports.destination))
        && allows(tables.provider(ip.destination), Transport::Udp)
    {
        return Ok(signalling(ip, Transport::Udp, Reason::EgressSignalling));
    }
    Ok(Finding::plain(Reason::EgressOther))
}

#[inline(always)]
fn egress_tcp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Finding, Malformed> {
    let ports = ip.ports(reader)?;
    let settings = tables.settings();
    let transport = settings
        .pbx
        .over_tcp(ports.source)
        .or(settings.providers.over_tcp(ports.destination));
    Ok(match transport {
        Some(transport) if allows(tables.provider(ip.destination), transport) => {
            signalling(ip, transport, Reason::EgressSignalling)
        }
        _ => Finding::plain(Reason::EgressOther),
    })
}
