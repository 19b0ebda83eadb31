//! sipfilterd and sipfilterctl as a library, so that both binaries and the tests share every part.
//!
//! Data runs one way: `shell` feeds captured packets to `engine`, which decides; `shell` carries the decisions out.
//! `engine` does no I/O and reads no clock; `config` turns files into the settings of both; `ctl` is the operator's face.

pub mod arguments;
pub mod config;
pub mod ctl;
pub mod diagnosis;
pub mod doctor;
pub mod engine;
pub mod error_text;
pub mod explain;
mod printable;
mod ranges;
pub mod shell;
pub mod simulate;
pub mod view;
