//! sipfilterd and sipfilterctl as a library, so that both binaries and the tests share every part.
//!
//! Data runs one way: `shell` feeds captured packets to `engine`, which decides; `shell` carries the decisions out.
//! `engine` does no I/O and reads no clock, and is all that is left without the feature `daemon`; `config` turns files into the settings
//! of both; `ctl` is the operator's face.

pub mod engine;

#[cfg(feature = "daemon")]
pub mod arguments;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod ctl;
#[cfg(feature = "daemon")]
pub mod diagnosis;
#[cfg(feature = "daemon")]
pub mod doctor;
#[cfg(feature = "daemon")]
pub mod error_text;
#[cfg(feature = "daemon")]
pub mod explain;
#[cfg(feature = "daemon")]
mod printable;
#[cfg(feature = "daemon")]
mod ranges;
#[cfg(feature = "daemon")]
pub mod shell;
#[cfg(feature = "daemon")]
pub mod simulate;
#[cfg(feature = "daemon")]
pub mod view;
