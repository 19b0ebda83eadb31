//! The contract of sipfilter's kernel and user space, and the whole packet policy as pure functions.
//!
//! The eBPF programs, the host tests and every simulation run [`classify`] over their own packets and tables; nothing here
//! touches a map, a socket or a clock. `unsafe` stands only in [`settings`] (volatile reads of load-time constants) and,
//! for user space, in the marker implementations of [`abi`].
#![no_std]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod abi;
pub mod addr;
pub mod budget;
pub mod classify;
pub mod gate;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod key;
pub mod parse;
pub mod place;
pub mod reader;
pub mod reason;
pub mod record;
pub mod sdp_scan;
pub mod settings;
pub mod slot;
pub mod value;
