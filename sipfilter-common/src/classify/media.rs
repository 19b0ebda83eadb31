//! Rule 5: what comes to the PBX's media ports.
//!
//! It decides, and counts at the pinhole's slot; it neither opens nor closes one.

use super::{FamilyTables, LocalEnd, Tables, flow::judge_reply, provisional};
use crate::{
    addr::Address,
    gate::{Hole, Terms},
    parse::{Ip, Ports as TransportPorts},
    reader::Reader,
    reason::Reason,
    settings::Protected,
    slot::Latching,
    value::{Flags, Latch, Shapes},
};

/// Judges a packet to a media port, and counts it at the pinhole that it met.
#[inline(always)]
pub(super) fn judge_media<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    at: Protected,
    ports: &TransportPorts,
    payload: (usize, usize),
) -> Reason {
    let local = LocalEnd {
        address: ip.destination,
        at,
        port: ports.destination,
    };
    // Looked at before the pinhole, because it goes after the pinhole has come: in the other order a packet could find neither.
    let provisional = provisional::found(tables, &local);
    if let Some(hole) = tables.pinhole(&local) {
        judge_met(reader, tables, &hole, Source::of(ip, ports), payload)
    } else if provisional::admits(reader, tables, ip, &local, provisional, ports, payload) {
        Reason::Provisional
    } else {
        judge_reply(reader, tables, ip, ports, payload)
    }
}

/// Judges a packet to a pinhole, and counts it there.
#[inline(always)]
pub(super) fn judge_met<A: Address, R: Reader, T: Tables>(
    reader: &R,
    tables: &T,
    hole: &impl Hole<A>,
    source: Source<A>,
    payload: (usize, usize),
) -> Reason {
    let now = tables.now();
    let reason = judge_at_pinhole(reader, tables, hole, source, payload, now);
    if reason == Reason::Media {
        hole.slot().count_ingress(now);
    } else if let Some(aside) = hole.aside() {
        aside.count_dropped();
    }
    reason
}

/// Where a packet came from.
#[derive(Clone, Copy)]
pub(super) struct Source<A> {
    address: A,
    port: u16,
}

impl<A: Address> Source<A> {
    #[inline(always)]
    pub(super) const fn of(ip: &Ip<A>, ports: &TransportPorts) -> Self {
        Self {
            address: ip.source,
            port: ports.source,
        }
    }
}

/// A packet to a pinhole: is the pinhole alive, the source right, the packet what was negotiated, and not one too many? Only a packet
/// that has passed all of it moves the budget or sets the latch.
#[inline(always)]
fn judge_at_pinhole<A: Address, R: Reader, T: Tables>(
    reader: &R,
    tables: &T,
    hole: &impl Hole<A>,
    source: Source<A>,
    payload: (usize, usize),
    now: u64,
) -> Reason {
    let (gate, terms, slot) = (hole.gate(), hole.terms(), hole.slot());
    if is_expired(gate.opened, slot.last(), terms.idle, now) {
        return Reason::PinholeExpired;
    }
    if !hole.names(source.address, source.port) {
        return Reason::WrongSource;
    }
    // Before the budget: whoever is not latched to must not be able to use up what belongs to the one who is.
    let mut to_latch = None;
    if terms.flags.has(Flags::LATCH)
        && let Some(aside) = hole.aside()
    {
        let token = source
            .address
            .token(source.port, &tables.settings().latch_key);
        let mine = Latch::new(gate.generation, token);
        match aside.look_at_latch(mine) {
            Latching::Held => {}
            Latching::Refused => return Reason::WrongSource,
            Latching::Free { stale } => to_latch = Some((aside, stale, mine)),
        }
    }
    if let Err(reason) = judge_payload(reader, terms, payload) {
        return reason;
    }
    // What an earlier pinhole in this slot has spent, or this one before signalling renewed it, does not count.
    let due = if slot.ingress_last.get() < gate.opened {
        now
    } else {
        slot.due.get()
    };
    let Some(due) = terms.budget.spend(due, now) else {
        return Reason::RateLimited;
    };
    if let Some((aside, stale, mine)) = to_latch {
        let found = tables.exchange_latch(aside, stale, mine.0);
        // Another CPU may have been faster, with another source or with this one.
        if found != stale && found != mine.0 {
            return Reason::WrongSource;
        }
    }
    slot.due.set(due);
    Reason::Media
}

/// A fixed header and the first source (RFC 3550 §5.1).
const RTP_HEADER: usize = 12;
/// A header with a source (RFC 3550 §6.1).
const RTCP_HEADER: usize = 8;

/// Whether a datagram is what was negotiated: by its kind (RFC 7983 §7), and RTP by its payload type.
#[inline(always)]
fn judge_payload<R: Reader>(
    reader: &R,
    terms: &Terms,
    (start, end): (usize, usize),
) -> Result<(), Reason> {
    // Nothing that is meant has less than two bytes, and none of the second is padding of the link.
    if start + 2 > end {
        return Err(Reason::NotMedia);
    }
    let [first, second] = reader.bytes(start).ok_or(Reason::NotMedia)?;
    let shape = Shapes::of(first);
    if !terms.shapes.admits(shape) {
        return Err(Reason::NotMedia);
    }
    if !shape.admits(Shapes::RTP) || terms.shapes.is_any() {
        return Ok(());
    }
    // RTCP's packet types are RTP's 64 to 95 with the marker (RFC 5761 §4), which nobody should use but somebody may have listed.
    let (is_negotiated, least) = if second & 0xe0 == 0xc0 && terms.flags.has(Flags::RTCP) {
        (true, RTCP_HEADER)
    } else {
        (terms.payload_types.admits(second), RTP_HEADER)
    };
    match (is_negotiated, start + least <= end) {
        (false, _) => Err(Reason::PayloadType),
        (true, false) => Err(Reason::NotMedia),
        (true, true) => Ok(()),
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
