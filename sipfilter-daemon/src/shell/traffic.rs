//! What passed through pinholes, added up by provider, also of those that are closed by now.
//!
//! The kernel counts per slot, and a slot is used again; this ledger follows each pinhole's counts while it is open. It is told of every
//! pinhole and looks at a limited number of them at once, so that nobody waits for it however many there are.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    ops::Bound::{Excluded, Unbounded},
};

use super::map_writer::Traffic;
use crate::engine::{
    CallNumber, Instant,
    pinhole::{Pinhole, Source, Stream},
};

/// Pinholes that [`Ledger::sweep`] looks at: a millisecond of system calls.
const SLICE: usize = 1_000;
/// Closed pinholes that are remembered.
const CLOSED: usize = 1_024;
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
    closed: VecDeque<Closed>,
}

#[derive(Debug)]
struct Entry {
    call: CallNumber,
    provider: String,
    stream: Stream,
    sources: Vec<Source>,
    counted: Totals,
}

/// A pinhole that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Where.
    pub local: SocketAddr,
    /// Its call.
    pub call: CallNumber,
    /// Its provider's name.
    pub provider: String,
    /// What it was for.
    pub stream: Stream,
    /// Who was allowed to send.
    pub sources: Vec<Source>,
    /// When it closed.
    pub at: Instant,
}

impl Ledger {
    /// A pinhole was opened or changed.
    pub fn open(&mut self, pinhole: &Pinhole, provider: &str) {
        let entry = self.open.entry(pinhole.local).or_insert_with(|| Entry {
            call: pinhole.call,
            provider: String::new(),
            stream: pinhole.stream,
            sources: Vec::new(),
            counted: Totals::default(),
        });
        entry.call = pinhole.call;
        entry.stream = pinhole.stream;
        entry.sources.clone_from(&pinhole.sources);
        if entry.provider != provider {
            provider.clone_into(&mut entry.provider);
        }
    }

    /// A pinhole closes, and this is what it had; `None` where that cannot be told any more. Tells what it was.
    pub fn close(
        &mut self,
        local: &SocketAddr,
        last: Option<Traffic>,
        at: Instant,
    ) -> Option<&Closed> {
        if let Some(traffic) = last {
            self.count(local, &traffic);
        }
        let entry = self.open.remove(local)?;
        if self.closed.len() >= CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(Closed {
            local: *local,
            call: entry.call,
            provider: entry.provider,
            stream: entry.stream,
            sources: entry.sources,
            at,
        });
        self.closed.back()
    }

    /// Whose an open pinhole is, and whose provider's, if something came to it that was dropped, as far as it has been counted.
    pub fn hit(&self, local: &SocketAddr) -> Option<(CallNumber, &str)> {
        let entry = self.open.get(local)?;
        (entry.counted.dropped > 0).then_some((entry.call, entry.provider.as_str()))
    }

    /// What an open pinhole is for, and who may send.
    pub fn terms(&self, local: &SocketAddr) -> Option<(Stream, &[Source])> {
        let entry = self.open.get(local)?;
        Some((entry.stream, &entry.sources))
    }

    /// The pinholes that closed last, in that order.
    pub fn closed(&self) -> impl Iterator<Item = &Closed> {
        self.closed.iter()
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
    use std::time::Duration;

    use super::*;
    use crate::engine::{
        pinhole::{Extras, Label, Terms},
        settings::ProviderId,
    };

    const NOW: Instant = Instant(Duration::from_secs(9));

    fn pinhole(port: u16, stream: Stream) -> Pinhole {
        Pinhole {
            local: local(port),
            sources: Vec::new(),
            stream,
            extras: Extras::default(),
            terms: Terms::ANY,
            latch: None,
            idle: Duration::from_secs(60),
            provider: ProviderId(0),
            call: CallNumber(7),
            label: Label::NONE,
        }
    }

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
        ledger.open(&pinhole(1, Stream::Rtp), "lab");
        ledger.sweep(|_| Some(traffic(10, 5, 1)));
        ledger.open(&pinhole(1, Stream::Rtp), "lab");
        ledger.sweep(|_| Some(traffic(12, 5, 1)));
        ledger.close(&local(1), Some(traffic(20, 6, 2)), NOW);
        // The next one on this port begins at zero.
        ledger.open(&pinhole(1, Stream::Rtp), "lab");
        ledger.sweep(|_| Some(traffic(3, 0, 0)));
        ledger.close(&local(1), None, NOW);
        let expect = Totals {
            ingress: 23,
            egress: 6,
            dropped: 2,
        };
        assert_eq!(ledger.totals()["lab"], expect);
        assert!(ledger.open.is_empty());
    }

    #[test]
    fn the_pinholes_that_closed_last_are_remembered() {
        let mut ledger = Ledger::default();
        let last = u16::try_from(CLOSED).expect("small") + 2;
        for port in 1..=last {
            ledger.open(&pinhole(port, Stream::Rtp), "lab");
            ledger.close(&local(port), None, NOW);
        }
        ledger.close(&local(1), None, NOW);
        let closed: Vec<_> = ledger.closed().collect();
        assert_eq!(closed.len(), CLOSED);
        assert_eq!(closed[0].local, local(3));
        assert_eq!(closed[CLOSED - 1].local, local(last));
        assert_eq!((closed[0].call, closed[0].at), (CallNumber(7), NOW));
    }

    #[test]
    fn a_sweep_is_bounded_and_the_next_one_goes_on() {
        let mut ledger = Ledger::default();
        let pinholes = u16::try_from(SLICE).expect("small") + 10;
        for port in 1..=pinholes {
            ledger.open(&pinhole(port, Stream::Rtp), "lab");
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
            ledger.open(&pinhole(1, stream), "lab");
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
