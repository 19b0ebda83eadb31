//! Rule 5: what comes to the PBX's media ports.
//!
//! It decides, and counts at the pinhole's slot; it neither opens nor closes one.

use super::{FamilyTables, Tables};
use crate::{
    addr::Address,
    key::PinholeKey,
    parse::{Ip, Ports as TransportPorts},
    reader::Reader,
    reason::Reason,
    value::{Pinhole, Shapes, Slot},
};

/// Judges a packet to a media port, and counts it at the pinhole that it met.
#[inline(always)]
pub(super) fn judge_media<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    ports: &TransportPorts,
    payload: (usize, usize),
) -> Reason {
    let Some(pinhole) = tables.pinhole(&PinholeKey::new(ip.destination, ports.destination)) else {
        return Reason::NoPinhole;
    };
    let Some(slot) = tables.slot(pinhole.slot) else {
        return Reason::NoPinhole;
    };
    let now = tables.now();
    let reason = judge_at_pinhole(reader, pinhole, slot, ip.source, ports.source, payload, now);
    match reason {
        Reason::Media => slot.count_ingress(ip.length(), now),
        _ => slot.count_dropped(now),
    }
    reason
}

/// A packet to a pinhole: is the pinhole alive, the source right, and the packet what was negotiated?
#[inline(always)]
fn judge_at_pinhole<A: Address, R: Reader>(
    reader: &R,
    pinhole: &Pinhole<A>,
    slot: &Slot,
    source: A,
    source_port: u16,
    (payload, payload_end): (usize, usize),
    now: u64,
) -> Reason {
    if is_expired(pinhole.opened, slot.last(), pinhole.idle, now) {
        return Reason::PinholeExpired;
    }
    if !pinhole
        .sources
        .iter()
        .any(|allowed| allowed.contains(source, source_port))
    {
        return Reason::WrongSource;
    }
    // An empty datagram is nothing at all.
    let first = if payload < payload_end {
        reader.byte(payload)
    } else {
        None
    };
    match first {
        Some(byte) if pinhole.shapes.admits(Shapes::of(byte)) => Reason::Media,
        _ => Reason::NotMedia,
    }
}

/// Whether a pinhole has been without a packet for longer than its limit. Times that lie in the future count as now: user space
/// may stamp a pinhole a tick ahead of the kernel's coarse clock.
#[inline(always)]
pub const fn is_expired(opened: u64, last_packet: u64, idle: u64, now: u64) -> bool {
    let last = if last_packet > opened {
        last_packet
    } else {
        opened
    };
    now > last && now - last > idle
}
