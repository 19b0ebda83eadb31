//! What passed through pinholes, added up by provider, also of those that are closed by now.
//!
//! The kernel counts per slot, and a slot is used again; this ledger follows each pinhole's counts while it is open. It is told of every
//! pinhole and looks at a limited number of them at once, so that nobody waits for it however many there are.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::Bound::{Excluded, Unbounded},
};

use super::map_writer::Traffic;
use crate::engine::pinhole::Stream;

/// Pinholes that [`Ledger::sweep`] looks at: a millisecond or two of system calls.
const SLICE: usize = 4_000;
/// So many packets one way, a second of ordinary audio, and none the other way: that is no beginning any more.
const ONE_WAY: u64 = 50;

/// Packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// That came in and passed.
    pub ingress: u64,
    /// That left.
    pub egress: u64,
    /// That came to an open pinhole and were dropped.
    pub dropped: u64,
}

/// Who is not heard in a call that has audio one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silent {
    /// Nothing has come from the provider.
    Provider,
    /// Nothing has left the PBX.
    Pbx,
}

impl Silent {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Provider, Self::Pbx];

    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Pbx => "pbx",
        }
    }
}

/// Open pinholes and providers' totals.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<SocketAddr, Entry>,
    /// By provider's name, which outlives a change of the configuration.
    totals: BTreeMap<String, Totals>,
    /// Where the last look ended.
    seen: Option<SocketAddr>,
}

#[derive(Debug)]
struct Entry {
    provider: String,
    stream: Stream,
    counted: Totals,
}

impl Ledger {
    /// A pinhole was opened or changed.
    pub fn open(&mut self, local: SocketAddr, provider: &str, stream: Stream) {
        let entry = self.open.entry(local).or_insert_with(|| Entry {
            provider: String::new(),
            stream,
            counted: Totals::default(),
        });
        entry.stream = stream;
        if entry.provider != provider {
            provider.clone_into(&mut entry.provider);
        }
    }

    /// A pinhole closes, and this is what it had; `None` where that cannot be told any more.
    pub fn close(&mut self, local: &SocketAddr, last: Option<Traffic>) {
        if let Some(traffic) = last {
            self.count(local, &traffic);
        }
        self.open.remove(local);
    }

    /// Looks at the next pinholes in turn.
    pub fn sweep(&mut self, traffic: impl Fn(&SocketAddr) -> Option<Traffic>) {
        let from = self.seen.map_or(Unbounded, Excluded);
        let slice: Vec<SocketAddr> = self
            .open
            .range((from, Unbounded))
            .map(|(local, _)| *local)
            .take(SLICE)
            .collect();
        for local in &slice {
            if let Some(traffic) = traffic(local) {
                self.count(local, &traffic);
            }
        }
        self.seen = slice.last().copied().filter(|_| slice.len() == SLICE);
    }

    /// Every provider's packets that have been counted so far.
    pub fn totals(&self) -> &BTreeMap<String, Totals> {
        &self.totals
    }

    /// Whether the audio behind these pinholes goes one way only, as far as it has been counted.
    pub fn one_way(&self, pinholes: &[SocketAddr]) -> Option<Silent> {
        let audio = pinholes
            .iter()
            .filter_map(|local| self.open.get(local))
            .filter(|entry| entry.stream == Stream::Rtp);
        let (ingress, egress) = audio.fold((0, 0), |(ingress, egress), entry| {
            (
                ingress + entry.counted.ingress,
                egress + entry.counted.egress,
            )
        });
        match (ingress, egress) {
            (0, ONE_WAY..) => Some(Silent::Provider),
            (ONE_WAY.., 0) => Some(Silent::Pbx),
            _ => None,
        }
    }

    fn count(&mut self, local: &SocketAddr, traffic: &Traffic) {
        let Some(entry) = self.open.get_mut(local) else {
            return;
        };
        let now = Totals {
            ingress: traffic.ingress_packets,
            egress: traffic.egress_packets,
            dropped: traffic.dropped_packets,
        };
        let before = std::mem::replace(&mut entry.counted, now);
        if !self.totals.contains_key(&entry.provider) {
            self.totals
                .insert(entry.provider.clone(), Totals::default());
        }
        if let Some(totals) = self.totals.get_mut(&entry.provider) {
            totals.ingress += now.ingress.saturating_sub(before.ingress);
            totals.egress += now.egress.saturating_sub(before.egress);
            totals.dropped += now.dropped.saturating_sub(before.dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 10], port))
    }

    fn traffic(ingress_packets: u64, egress_packets: u64, dropped_packets: u64) -> Traffic {
        Traffic {
            ingress_packets,
            egress_packets,
            dropped_packets,
            ..Traffic::default()
        }
    }

    #[test]
    fn what_a_pinhole_had_is_counted_once_and_stays() {
        let mut ledger = Ledger::default();
        ledger.open(local(1), "lab", Stream::Rtp);
        ledger.sweep(|_| Some(traffic(10, 5, 1)));
        ledger.open(local(1), "lab", Stream::Rtp);
        ledger.sweep(|_| Some(traffic(12, 5, 1)));
        ledger.close(&local(1), Some(traffic(20, 6, 2)));
        // The next one on this port begins at zero.
        ledger.open(local(1), "lab", Stream::Rtp);
        ledger.sweep(|_| Some(traffic(3, 0, 0)));
        ledger.close(&local(1), None);
        let expect = Totals {
            ingress: 23,
            egress: 6,
            dropped: 2,
        };
        assert_eq!(ledger.totals()["lab"], expect);
        assert!(ledger.open.is_empty());
    }

    #[test]
    fn a_sweep_is_bounded_and_the_next_one_goes_on() {
        let mut ledger = Ledger::default();
        let pinholes = u16::try_from(SLICE).expect("small") + 10;
        for port in 1..=pinholes {
            ledger.open(local(port), "lab", Stream::Rtp);
        }
        let mut looked_at = Vec::new();
        for _ in 0..3 {
            let seen = std::cell::RefCell::new(Vec::new());
            ledger.sweep(|local| {
                seen.borrow_mut().push(local.port());
                Some(traffic(1, 0, 0))
            });
            looked_at.push(seen.into_inner());
        }
        let lengths: Vec<usize> = looked_at.iter().map(Vec::len).collect();
        assert_eq!(lengths, [SLICE, 10, SLICE]);
        assert_eq!(ledger.totals()["lab"].ingress, u64::from(pinholes));
    }

    #[test]
    fn one_way_is_a_second_of_audio_without_any_answer() {
        #[track_caller]
        fn check(ingress: u64, egress: u64, stream: Stream, expect: Option<Silent>) {
            let mut ledger = Ledger::default();
            ledger.open(local(1), "lab", stream);
            ledger.sweep(|_| Some(traffic(ingress, egress, 0)));
            let found = ledger.one_way(&[local(1), local(2)]);
            assert_eq!(found, expect, "{ingress} in, {egress} out, {stream:?}");
        }
        check(0, 0, Stream::Rtp, None);
        check(0, 49, Stream::Rtp, None);
        check(0, 50, Stream::Rtp, Some(Silent::Provider));
        check(50, 0, Stream::Rtp, Some(Silent::Pbx));
        check(500, 1, Stream::Rtp, None);
        check(0, 50, Stream::Rtcp, None);
    }
}
