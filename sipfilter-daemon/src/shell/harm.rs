//! The calls whose own ports were hit by what the rules call to drop: counted by the kernel, pinhole by pinhole, over the whole run.
//!
//! It keeps what closed pinholes had; of open ones the caller tells. Bounded by [`MAX_CALLS`]: of calls beyond that only their number is
//! kept. Who sent it, `ledger::hits` knows from samples.

use std::{collections::BTreeMap, net::SocketAddr};

use super::map_writer::Traffic;
use crate::engine::{
    CallNumber,
    pinhole::{Source, Stream},
};

/// Calls that are remembered.
const MAX_CALLS: usize = 2_048;
/// Pinholes of one call.
const MAX_PINHOLES: usize = 16;

/// All such calls.
#[derive(Debug, Default)]
pub struct Harm {
    calls: BTreeMap<CallNumber, Harmed>,
    more: u64,
    /// The last one that did not fit, so that its next pinhole does not count as another call.
    last_left_out: Option<CallNumber>,
}

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Harmed {
    /// Its Call-ID.
    pub call_id: Option<String>,
    /// Its provider's name.
    pub provider: String,
    /// Its ports that were hit.
    pub pinholes: Vec<Hit>,
}

/// A pinhole that was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Where it is or was.
    pub local: SocketAddr,
    /// What it is for.
    pub stream: Stream,
    /// Who may send.
    pub sources: Vec<Source>,
    /// Packets that came in and passed.
    pub ingress: u64,
    /// Packets that left.
    pub egress: u64,
    /// Packets to be dropped.
    pub dropped: u64,
}

impl Hit {
    /// What a pinhole had, if it was hit.
    pub fn new(
        local: SocketAddr,
        stream: Stream,
        sources: &[Source],
        traffic: &Traffic,
    ) -> Option<Self> {
        (traffic.dropped_packets > 0).then(|| Self {
            local,
            stream,
            sources: sources.to_vec(),
            ingress: traffic.ingress_packets,
            egress: traffic.egress_packets,
            dropped: traffic.dropped_packets,
        })
    }

    /// Nothing of a stream came through, and it was one.
    pub fn is_all_lost(&self) -> bool {
        self.stream != Stream::Rtcp && self.ingress == 0
    }
}

impl Harm {
    /// A pinhole that was hit closed. `call_id` is asked for once in a call.
    pub fn add(
        &mut self,
        call: CallNumber,
        provider: &str,
        hit: Hit,
        call_id: impl FnOnce() -> Option<String>,
    ) {
        if self.calls.len() >= MAX_CALLS && !self.calls.contains_key(&call) {
            if self.last_left_out.replace(call) != Some(call) {
                self.more += 1;
            }
            return;
        }
        let harmed = self.calls.entry(call).or_default();
        if harmed.pinholes.is_empty() {
            harmed.call_id = call_id();
            provider.clone_into(&mut harmed.provider);
        }
        if harmed.pinholes.len() < MAX_PINHOLES {
            harmed.pinholes.push(hit);
        }
    }

    /// All that are remembered.
    pub fn calls(&self) -> &BTreeMap<CallNumber, Harmed> {
        &self.calls
    }

    /// How many are not.
    pub fn more(&self) -> u64 {
        self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(stream: Stream, ingress_packets: u64, dropped_packets: u64) -> Option<Hit> {
        let traffic = Traffic {
            ingress_packets,
            dropped_packets,
            ..Traffic::default()
        };
        let local = SocketAddr::from(([203, 0, 113, 10], 10_000));
        Hit::new(local, stream, &[], &traffic)
    }

    #[test]
    fn what_was_not_hit_is_not_harmed() {
        assert_eq!(hit(Stream::Rtp, 10, 0), None);
        let lost = |stream, ingress| hit(stream, ingress, 3).map(|hit| hit.is_all_lost());
        assert_eq!(lost(Stream::Rtp, 0), Some(true));
        assert_eq!(lost(Stream::Udptl, 0), Some(true));
        assert_eq!(lost(Stream::Rtp, 1), Some(false));
        assert_eq!(lost(Stream::Rtcp, 0), Some(false));
    }

    #[test]
    fn calls_beyond_the_limit_are_counted_once_each() {
        let mut harm = Harm::default();
        let calls = MAX_CALLS as u64 + 3;
        for call in 0..calls {
            for _ in 0..2 {
                let hit = hit(Stream::Rtp, 0, 1).expect("a hit");
                harm.add(CallNumber(call), "lab", hit, || Some(call.to_string()));
            }
        }
        assert_eq!(harm.calls().len(), MAX_CALLS);
        assert_eq!(harm.more(), 3);
        let first = &harm.calls()[&CallNumber(0)];
        assert_eq!(first.pinholes.len(), 2);
        assert_eq!(first.call_id.as_deref(), Some("0"));
    }

    #[test]
    fn a_call_has_a_bounded_number_of_pinholes() {
        let mut harm = Harm::default();
        for _ in 0..=MAX_PINHOLES {
            let hit = hit(Stream::Rtp, 0, 1).expect("a hit");
            harm.add(CallNumber(1), "lab", hit, || None);
        }
        assert_eq!(harm.calls()[&CallNumber(1)].pinholes.len(), MAX_PINHOLES);
    }
}
