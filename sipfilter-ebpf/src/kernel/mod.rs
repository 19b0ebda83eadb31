//! The two programs' entry points.

mod copy;
mod maps;
mod packet;
mod sample;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action, xdp_md},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use sipfilter_common::{
    classify::{Verdict, classify_egress, classify_ingress, classify_plain},
    reader::Reader,
    reason::{Action, Counter},
    record::{EGRESS, INGRESS},
};

use crate::kernel::{
    copy::copy_packet,
    maps::{KernelTables, count},
    packet::{CopySource, SkbPacket, XdpPacket},
    sample::sample,
};

/// Judges every packet from outside before the kernel allocates anything for it. `frags`: without it, drivers refuse the program
/// on links whose frames do not fit into one buffer (jumbo frames).
#[xdp(frags)]
#[inline(always)]
pub fn sipfilter_ingress(context: XdpContext) -> u32 {
    let packet = XdpPacket::new(&context);
    let Some(verdict) = classify_plain(&packet, &KernelTables) else {
        return ingress(context.ctx);
    };
    // Media of calls. It is only counted: the short way copies nothing, and what passes is not sampled.
    if verdict.ruling == Action::Pass {
        count(Counter::Reason(verdict.reason), packet.length());
        return xdp_action::XDP_PASS;
    }
    finish(&packet, &verdict, INGRESS);
    xdp_code(verdict.action)
}

/// The long way, out of line: its many variables would have the short one's in memory. The context is handed over as it is, for the same
/// reason.
#[inline(never)]
fn ingress(context: *mut xdp_md) -> u32 {
    let context = XdpContext::new(context);
    let packet = XdpPacket::new(&context);
    let verdict = classify_ingress(&packet, &KernelTables);
    finish(&packet, &verdict, INGRESS);
    xdp_code(verdict.action)
}

#[inline(always)]
const fn xdp_code(action: Action) -> u32 {
    match action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// Reads every packet that leaves. `TC_ACT_UNSPEC` leaves the decision to whatever else is attached.
#[classifier]
pub fn sipfilter_egress(context: TcContext) -> i32 {
    let packet = SkbPacket::new(&context);
    let verdict = classify_egress(&packet, &KernelTables);
    finish(&packet, &verdict, EGRESS);
    match verdict.action {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn finish<P: Reader + CopySource>(packet: &P, verdict: &Verdict, direction: u8) {
    count(Counter::Reason(verdict.reason), packet.length());
    if let Some(start) = verdict.copy_from() {
        copy_packet(packet, start, direction, verdict.class);
    }
    sample(packet, verdict, direction);
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Without bounds checks that can fail no panic is reachable; the verifier refuses an object in which one is.
    loop {}
}

/// The kernel lends its GPL-only helpers to programs with this licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
