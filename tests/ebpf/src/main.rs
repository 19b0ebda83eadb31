//! The kernel programs that the benchmarks measure with: programs that do nothing, and one that makes packets differ.
//!
//! They know sipfilter's packets only as bytes at offsets that user space names. Compiled for the host this is an empty program, so
//! that workspace-wide commands work.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
