//! What comes from outside: protected or not, which fragment, which transport, and which rule decides.
//!
//! What the rules for signalling and media say stands in their own files; here is only who is asked, and in which order.

use super::{
    FamilyTables, FragmentFate, Tables, Verdict,
    media::judge_media,
    signalling::{allows, judge_signalling, signalling},
};
use crate::{
    addr::Address,
    key::FragmentKey,
    parse::{Fragment, Ip, Malformed, Network, TCP, UDP, parse_ethernet, parse_ipv4, parse_ipv6},
    reader::Reader,
    reason::{Action, Reason},
    settings::{Protects, Settings, Transport},
};

/// Judges a packet from outside.
#[inline(always)]
pub fn classify_ingress<R: Reader, T: Tables>(reader: &R, tables: &T) -> Verdict {
    let judged = match parse_ethernet(reader) {
        // A frame too short for an Ethernet header is no IP packet; drivers do not deliver such.
        Err(Malformed) | Ok(Network::Other) => return Verdict::plain(Reason::NotIp),
        Ok(Network::Ipv4(start)) => {
            parse_ipv4(reader, start).map(|ip| judge_ingress(reader, tables, &ip))
        }
        Ok(Network::Ipv6(start)) => {
            parse_ipv6(reader, start).map(|ip| judge_ingress(reader, tables, &ip))
        }
    };
    judged.unwrap_or(Verdict::plain(Reason::Malformed))
}

#[inline(always)]
fn judge_ingress<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Verdict
where
    Settings: Protects<A>,
{
    if !tables.settings().is_protected(ip.destination) {
        return Verdict::plain(Reason::NotProtected);
    }
    match ip.fragment {
        Fragment::Whole => judge_transport(reader, tables, ip),
        Fragment::First { id } => {
            let verdict = judge_transport(reader, tables, ip);
            let fate = match (verdict.action(), verdict.copy_from) {
                (Action::Drop, _) => FragmentFate::Drop,
                (Action::Pass, None) => FragmentFate::Pass,
                (Action::Pass, Some(_)) => FragmentFate::PassAndCopy,
            };
            tables.remember_fragment(&fragment_key(ip, id), fate);
            verdict
        }
        Fragment::Later { id } => match tables.recall_fragment(&fragment_key(ip, id)) {
            Some(FragmentFate::Drop) => Verdict::plain(Reason::StrayFragment),
            Some(FragmentFate::Pass) => Verdict::plain(Reason::Fragment),
            Some(FragmentFate::PassAndCopy) => Verdict::copied(Reason::Fragment, ip.start),
            // A provider's fragments may overtake the first one; anybody else's may not.
            None if tables.provider(ip.source).is_some() => {
                Verdict::copied(Reason::Fragment, ip.start)
            }
            None => Verdict::plain(Reason::StrayFragment),
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
) -> Verdict {
    let judged = match ip.protocol {
        UDP => judge_udp(reader, tables, ip),
        TCP => judge_tcp(reader, tables, ip),
        _ => Ok(Verdict::plain(Reason::OtherProtocol)),
    };
    judged.unwrap_or(Verdict::plain(Reason::Malformed))
}

#[inline(always)]
fn judge_tcp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Verdict, Malformed> {
    let ports = ip.ports(reader)?;
    if let Some(transport) = tables.settings().pbx.over_tcp(ports.destination) {
        return Ok(judge_signalling(tables, ip, transport));
    }
    // The PBX may have dialled out: then the provider's port is the source, and the rest of the world's traffic from such
    // ports is no signalling of ours.
    if let Some(transport) = tables.settings().providers.over_tcp(ports.source)
        && allows(tables.provider(ip.source), transport)
    {
        return Ok(signalling(ip, transport, Reason::Signalling));
    }
    Ok(Verdict::plain(Reason::OtherTraffic))
}

#[inline(always)]
fn judge_udp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Verdict, Malformed> {
    let ports = ip.ports(reader)?;
    let (payload, payload_end) = ip.udp_payload(reader)?;
    if tables.settings().pbx.is_udp(ports.destination) {
        return Ok(judge_signalling(tables, ip, Transport::Udp));
    }
    if !tables.settings().is_media_port(ports.destination) {
        return Ok(Verdict::plain(Reason::OtherTraffic));
    }
    Ok(Verdict::plain(judge_media(
        reader,
        tables,
        ip,
        &ports,
        (payload, payload_end),
    )))
}
