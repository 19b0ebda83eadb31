//! Flows that the protected host began: what it sent to somebody may be answered, by exactly them, for a while.
//!
//! For media of providers whose signalling cannot be read and of WebRTC users, where a provider's limits say so; and in strict scope
//! for the host's other UDP (DNS, NTP). What leaves is noted, what comes in only looks: no stranger can keep a flow alive.
//!
//! Invariant: on a media port a flow is noted only where no pinhole is, so that a call's media ends with the call.

use super::{FamilyTables, Tables};
use crate::{
    addr::Address,
    key::FlowKey,
    parse::{Ip, Ports},
    reader::Reader,
    reason::Reason,
    settings::Mode,
};

/// How long after the host's last packet an answer may come, in nanoseconds.
pub const REPLY_LIFETIME: u64 = 30_000_000_000;
/// A flow is noted anew only when it is this old: a write for each packet would cost more than the precision is worth.
const REFRESH: u64 = 1_000_000_000;

/// A packet to a media port without a pinhole: the answer to one of the host's own, and media at that?
#[inline(always)]
pub(super) fn judge_reply<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    ports: &Ports,
    (payload, payload_end): (usize, usize),
) -> Reason {
    if !tables.settings().modes().has(Mode::Replies) || !is_reply(tables, ip, ports) {
        return Reason::NoPinhole;
    }
    let first = if payload < payload_end {
        reader.byte(payload)
    } else {
        None
    };
    match first {
        Some(byte) if is_media_or_turn(byte) => Reason::Reply,
        _ => Reason::NotMedia,
    }
}

/// Whether the host sent to where this comes from, from where it goes to, a short while ago.
#[inline(always)]
pub(super) fn is_reply<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
    ports: &Ports,
) -> bool {
    let key = FlowKey {
        local: ip.destination,
        remote: ip.source,
        local_port: ports.destination,
        remote_port: ports.source,
    };
    tables
        .flow(&key)
        .is_some_and(|sent| tables.now().saturating_sub(sent) <= REPLY_LIFETIME)
}

/// Notes that the host sent.
#[inline(always)]
pub(super) fn note<A: Address, T: Tables + FamilyTables<A>>(tables: &T, ip: &Ip<A>, ports: &Ports) {
    let key = FlowKey {
        local: ip.source,
        remote: ip.destination,
        local_port: ports.source,
        remote_port: ports.destination,
    };
    let now = tables.now();
    let is_fresh = tables
        .flow(&key)
        .is_some_and(|sent| now.saturating_sub(sent) < REFRESH);
    if !is_fresh {
        tables.remember_flow(&key, now);
    }
}

/// STUN, ZRTP, DTLS, TURN channels and RTP share a port (RFC 7983 §7); nothing else does.
#[inline(always)]
const fn is_media_or_turn(first: u8) -> bool {
    matches!(first, 0..=3 | 16..=79 | 128..=191)
}
