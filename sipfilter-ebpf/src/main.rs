//! sipfilter's kernel programs: XDP ingress and TC egress, thin shells over `sipfilter_common::classify`.
//!
//! They read packets, look up maps, count verdicts and copy signalling; every decision is the shared policy's.
//! Compiled for the host this is an empty program, so that workspace-wide commands work.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
