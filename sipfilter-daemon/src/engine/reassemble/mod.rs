//! The place of what SIP needs before it is whole: IP fragments and TCP segments.
//!
//! Two tables will stand here, each behind its own file: `ip_frag` (fragments by source, destination, identification and protocol,
//! capped in bytes and count per source and in total, overlaps refused, given up after 15 to 30 seconds) and `tcp_stream` (segments by
//! flow, in both directions, cut into messages by Content-Length). Until then such packets are refused and counted, never guessed
//! at: a part of a message opens nothing.

use super::{Refusal, decode::Captured};

/// What becomes of a captured packet: a whole message's bytes, or a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole<'a> {
    /// Bytes that should be one SIP message.
    Message {
        /// Where they were seen.
        flow: super::Flow,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Nothing for this engine, and no news.
    Nothing,
    /// Not readable yet.
    Refused(Refusal),
}

/// Completes a packet's payload. `is_tls` tells streams that nobody here can read from those that will be reassembled.
pub fn complete<'a>(
    captured: Captured<'a>,
    is_tls: impl FnOnce(&super::Flow) -> bool,
) -> Whole<'a> {
    match captured {
        Captured::Datagram { flow, payload } => Whole::Message {
            flow,
            bytes: payload,
        },
        Captured::Fragment => Whole::Refused(Refusal::Fragment),
        Captured::Segment { flow } if is_tls(&flow) => Whole::Refused(Refusal::Tls),
        Captured::Segment { .. } => Whole::Refused(Refusal::Tcp),
        Captured::Other => Whole::Nothing,
    }
}
