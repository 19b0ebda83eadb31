//! Copies of signalling for the daemon: a header and the packet from its IP header on, in a ring buffer for each direction.
//!
//! The verifier wants the size of a reservation to be a constant, so there are a few sizes; a packet takes the smallest that
//! holds it, and one that is longer than the largest loses its end, counted.
//!
//! Requests that begin something get one half of their ring at most, so that under a flood of them the daemon still hears what
//! becomes of calls.

use aya_ebpf::{bindings::BPF_RB_AVAIL_DATA, helpers::bpf_ktime_get_ns, maps::RingBuf};
use aya_log_ebpf::warn;
use sipfilter_common::{
    abi::RING_BYTES,
    budget::Class,
    reader::Reader,
    reason::{Counter, Note},
    record::{EGRESS, HEADER, MAX_COPY, RecordHeader},
};

use super::{
    maps::{SIGNALLING_IN, SIGNALLING_OUT, count},
    packet::CopySource,
};

/// Copies the packet from offset `start` on, if there is room for one of its class.
#[inline(always)]
pub fn copy_packet<P: Reader + CopySource>(packet: &P, start: usize, direction: u8, class: Class) {
    let original = packet.length().wrapping_sub(start);
    if original == 0 || original > u32::MAX as usize {
        return;
    }
    let (ring, when_lost) = match (direction, class) {
        (EGRESS, _) => (&SIGNALLING_OUT, Note::EgressCopyLost),
        (_, Class::Begins) => (&SIGNALLING_IN, Note::CopyShed),
        (_, Class::Continues | Class::Segment) => (&SIGNALLING_IN, Note::CopyLost),
    };
    let done = if when_lost == Note::CopyShed && is_half_full(ring) {
        Err(())
    } else if original <= 1_000 {
        reserve_and_fill::<1_000, P>(ring, packet, start, original, direction)
    } else if original <= 2_024 {
        reserve_and_fill::<2_024, P>(ring, packet, start, original, direction)
    } else if original <= 9_192 {
        reserve_and_fill::<9_192, P>(ring, packet, start, original, direction)
    } else {
        reserve_and_fill::<MAX_COPY, P>(ring, packet, start, original, direction)
    };
    let note = match done {
        Err(()) => when_lost,
        Ok(()) if original > MAX_COPY => Note::CopyTruncated,
        Ok(()) => Note::Copied,
    };
    count(Counter::Note(note), original);
}

#[inline(always)]
fn is_half_full(ring: &RingBuf) -> bool {
    ring.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(RING_BYTES / 2)
}

/// Reserves a record with room for `N` bytes of packet, and fills it.
#[inline(always)]
fn reserve_and_fill<const N: usize, P: Reader + CopySource>(
    ring: &RingBuf,
    packet: &P,
    start: usize,
    original: usize,
    direction: u8,
) -> Result<(), ()> {
    let mut record = ring.reserve_bytes(HEADER + N, 0).ok_or(())?;
    // The verifier wants to see both bounds. The lower one comes from an addition, because the compiler makes `== 0` of a test for
    // `< 1`, of which verifiers before 6.8 learn nothing; and the compiler, which knows the upper one from the caller, must not
    // leave its test out.
    let captured = (core::hint::black_box(original.wrapping_sub(1)).min(N - 1) + 1) as u32;
    let bytes = record.as_mut_ptr();
    // SAFETY: the record has room for the header and N bytes of packet, and records are aligned to 8 bytes.
    let filled = unsafe {
        bytes.cast::<RecordHeader>().write(RecordHeader {
            time: bpf_ktime_get_ns(),
            captured,
            original: original as u32,
            direction,
            zero: [0; 7],
        });
        packet.copy_to(start as u32, bytes.add(HEADER), captured)
    };
    match filled {
        Ok(()) => record.submit(0),
        Err(()) => {
            record.discard(0);
            // The lengths were checked, so this is a fault of ours or the kernel's, not of the packet.
            warn!(
                packet.context(),
                "a signalling packet of {} bytes could not be read", captured
            );
        }
    }
    filled
}
