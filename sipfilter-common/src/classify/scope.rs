//! Rule 6: what is no voice. Untouched by default; in strict scope only what the operator's allow-list names, and what must never
//! be cut off.
//!
//! Strict scope keeps no connections: it tells what goes on already by the packet alone. A TCP segment passes unless it asks for a
//! new connection, so an established session outlives every mistake in the allow-list, and a stray segment reaches a socket that
//! refuses it. Of UDP, answers pass to what the host itself sent. Neighbours, errors and addresses (ARP, ICMP, DHCP) always pass.

use super::{FamilyTables, Tables, flow::is_reply};
use crate::{
    addr::Address,
    parse::{Ip, Malformed, Ports},
    reader::Reader,
    reason::Reason,
    settings::Mode,
};

/// Protocols besides UDP and TCP that strict scope lets in: ICMP, IGMP, ESP, AH, ICMPv6, OSPF, VRRP. They keep the network itself and
/// its redundancy going, or prove their origin themselves.
const ALWAYS: [u8; 7] = [1, 2, 50, 51, 58, 89, 112];

/// From a DHCP server to its client (RFC 2131 §4.1, RFC 8415 §7.2).
const DHCP: [(u16, u16); 2] = [(67, 68), (547, 546)];

/// Judges a packet that is neither UDP nor TCP.
#[inline(always)]
pub(super) fn judge_other_protocol<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
) -> Reason {
    if !is_strict(tables) || ALWAYS.contains(&ip.protocol) || is_allowed(tables, ip, 0) {
        Reason::OtherProtocol
    } else {
        Reason::OutOfScope
    }
}

/// Judges a TCP segment that is no signalling.
#[inline(always)]
pub(super) fn judge_other_tcp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    ports: &Ports,
) -> Result<Reason, Malformed> {
    if is_strict(tables)
        && ip.opens_connection(reader)?
        && !is_allowed(tables, ip, ports.destination)
    {
        return Ok(Reason::OutOfScope);
    }
    Ok(Reason::OtherTraffic)
}

/// Judges a UDP datagram that is neither signalling nor to a media port.
#[inline(always)]
pub(super) fn judge_other_udp<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
    ports: &Ports,
) -> Reason {
    if !is_strict(tables)
        || DHCP.contains(&(ports.source, ports.destination))
        || is_allowed(tables, ip, ports.destination)
    {
        Reason::OtherTraffic
    } else if is_reply(tables, ip, ports) {
        Reason::Reply
    } else {
        Reason::OutOfScope
    }
}

#[inline(always)]
pub(super) fn is_strict<T: Tables>(tables: &T) -> bool {
    tables.settings().modes().has(Mode::Strict)
}

#[inline(always)]
fn is_allowed<A: Address, T: FamilyTables<A>>(tables: &T, ip: &Ip<A>, port: u16) -> bool {
    tables
        .allowed(ip.source)
        .is_some_and(|list| list.admits(ip.protocol, port))
}
