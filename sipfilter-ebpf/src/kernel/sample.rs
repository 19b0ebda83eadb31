//! Samples of what is dropped, for the daemon: a header and the packet's beginning, in a ring buffer of their own.
//!
//! User space grants them, a few at a time for each reason; a drop without a grant pays one load. Everything else stands out of line, so
//! that the programs stay as small as they were for packets that are not sampled. Nobody is woken: the daemon looks by itself.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::bpf_ktime_get_ns};
use sipfilter_common::{
    classify::Verdict,
    reason::Action,
    record::{MAX_SAMPLE, SAMPLE_HEADER, SampleHeader},
};

use super::{
    maps::{SAMPLES, take_grant},
    packet::CopySource,
};

/// What most dropped packets fit into: media.
const SMALL: usize = 232;

/// Samples the packet, if the rules call for its drop and a sample of that is granted.
#[inline(always)]
pub fn sample<P: CopySource>(packet: &P, verdict: &Verdict, direction: u8) {
    if verdict.ruling == Action::Drop && take_grant(verdict.reason) {
        let dropped = u32::from(verdict.action == Action::Drop);
        packet.sample(verdict.reason as u32 | dropped << 16 | u32::from(direction) << 24);
    }
}

/// Puts a sample into its ring buffer; a full one goes without. `facts` holds the reason, whether it was dropped, and the direction.
#[inline(always)]
pub fn copy_sample<P: CopySource>(packet: &P, facts: u32) {
    let original = packet.whole_length();
    if original as usize <= SMALL {
        reserve_and_fill::<SMALL, P>(packet, facts, original);
    } else {
        reserve_and_fill::<MAX_SAMPLE, P>(packet, facts, original);
    }
}

#[inline(always)]
fn reserve_and_fill<const N: usize, P: CopySource>(packet: &P, facts: u32, original: u32) {
    let Some(mut record) = SAMPLES.reserve_bytes(SAMPLE_HEADER + N, 0) else {
        return;
    };
    // Both bounds, as in `copy`.
    let captured = core::hint::black_box(original.wrapping_sub(1)).min(N as u32 - 1) + 1;
    let bytes = record.as_mut_ptr();
    // SAFETY: the record has room for the header and N bytes of packet, and records are aligned to 8 bytes.
    let filled = unsafe {
        bytes.cast::<SampleHeader>().write(SampleHeader {
            time: bpf_ktime_get_ns(),
            captured,
            original,
            interface: packet.interface(),
            reason: facts as u16,
            dropped: (facts >> 16) as u8,
            direction: (facts >> 24) as u8,
        });
        packet.copy_to(0, bytes.add(SAMPLE_HEADER), captured)
    };
    match filled {
        Ok(()) => record.submit(BPF_RB_NO_WAKEUP.into()),
        Err(()) => record.discard(BPF_RB_NO_WAKEUP.into()),
    }
}
