//! Why a packet was judged as it was, in words: `simulate` asks about captured packets, `sipfilterctl explain` about one that is named.
//!
//! It judges nothing: `sipfilter_common::classify` does. What is known of pinholes comes through [`Scene`], so that a rehearsal and the
//! kernel's own maps are explained alike.

pub mod nearest;
pub mod packet;

use std::net::SocketAddr;

use sipfilter_common::host::HostTables;

use crate::engine::{CallNumber, Instant, pinhole::Pinhole, settings::Settings};

/// What an explanation looks at.
pub trait Scene {
    /// Whom the filter protects and trusts.
    fn settings(&self) -> &Settings;

    /// The tables that the packet was judged by.
    fn tables(&self) -> &HostTables;

    /// The open pinhole here.
    fn pinhole(&self, local: &SocketAddr) -> Option<&Pinhole>;

    /// The source that the open pinhole here has latched to, where that can be told.
    fn latched(&self, local: &SocketAddr) -> Option<SocketAddr>;

    /// The last packet through the open pinhole here, or else its opening.
    fn last_packet(&self, local: &SocketAddr) -> Option<Instant>;

    /// A time in words.
    fn when(&self, at: Instant) -> String;

    /// What a call is called.
    fn call_name(&self, call: CallNumber) -> String {
        format!("call {}", call.0)
    }
}
