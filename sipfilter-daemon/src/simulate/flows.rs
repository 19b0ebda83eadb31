//! Every flow of the capture that concerns the PBX: packets by verdict, and what the dropped ones missed.
//!
//! A flow is one direction of one conversation: source, destination, protocol, and what its packets are, so that RTP and RTCP on one port
//! are two. Bounds: [`MAX_FLOWS`] flows, [`MAX_MISSES`] explanations each, [`MAX_CALLS`] calls each; what exceeds them is counted together.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use sipfilter_common::reason::{Action, Reason};

use super::report::{Clock, FlowReport, LeftOut, NearestReport};
use crate::{
    engine::{CallNumber, Direction, Instant},
    explain::{
        nearest::{History, Miss, Why},
        packet::{Kind, Packet, Protocol},
    },
};

/// Flows that are told one by one.
pub const MAX_FLOWS: usize = 65_536;
/// Explanations of one flow.
const MAX_MISSES: usize = 4;
/// Calls of one flow.
const MAX_CALLS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    direction: Direction,
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
    kind: Kind,
}

#[derive(Debug)]
struct Flow {
    key: Key,
    passed: u64,
    dropped: BTreeMap<Reason, u64>,
    first: Instant,
    last: Instant,
    calls: Vec<CallNumber>,
    misses: Vec<Missed>,
}

#[derive(Debug)]
struct Missed {
    miss: Miss,
    text: String,
    packets: u64,
    last: Instant,
}

/// One judged packet.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// When.
    pub now: Instant,
    /// Which way it went.
    pub direction: Direction,
    /// Its ends.
    pub packet: Packet<'a>,
    /// What it is.
    pub kind: Kind,
    /// The verdict.
    pub reason: Reason,
    /// What it calls for.
    pub ruling: Action,
    /// Whose pinhole it passed.
    pub call: Option<CallNumber>,
    /// What it missed.
    pub miss: Option<Miss>,
}

/// All flows.
#[derive(Debug, Default)]
pub struct Flows {
    index: HashMap<Key, usize>,
    flows: Vec<Flow>,
    left_out: LeftOut,
}

impl Flows {
    /// Counts a packet; `explain` puts what it missed into words, and is asked once for each explanation.
    pub fn count(&mut self, judged: &Judged<'_>, explain: impl FnOnce(&Miss) -> String) {
        let key = Key {
            direction: judged.direction,
            source: judged.packet.source,
            destination: judged.packet.destination,
            protocol: judged.packet.protocol,
            kind: judged.kind,
        };
        let is_passed = judged.ruling == Action::Pass;
        let index = match self.index.get(&key) {
            Some(index) => *index,
            None if self.flows.len() < MAX_FLOWS => {
                let index = self.flows.len();
                self.flows.push(Flow::new(key, judged.now));
                self.index.insert(key, index);
                index
            }
            None => {
                self.left_out.packets += 1;
                self.left_out.passed += u64::from(is_passed);
                return;
            }
        };
        let Some(flow) = self.flows.get_mut(index) else {
            return;
        };
        flow.last = judged.now;
        if let Some(call) = judged.call
            && !flow.calls.contains(&call)
            && flow.calls.len() < MAX_CALLS
        {
            flow.calls.push(call);
        }
        if is_passed {
            flow.passed += 1;
            return;
        }
        *flow.dropped.entry(judged.reason).or_default() += 1;
        if let Some(miss) = judged.miss {
            flow.miss(miss, judged.now, explain);
        }
    }

    /// The report, in order of appearance.
    pub fn report(self, history: &History, clock: &Clock) -> (Vec<FlowReport>, LeftOut) {
        let flows = self
            .flows
            .into_iter()
            .map(|flow| flow.report(history, clock))
            .collect();
        (flows, self.left_out)
    }
}

impl Flow {
    fn new(key: Key, now: Instant) -> Self {
        Self {
            key,
            passed: 0,
            dropped: BTreeMap::new(),
            first: now,
            last: now,
            calls: Vec::new(),
            misses: Vec::new(),
        }
    }

    fn miss(&mut self, miss: Miss, now: Instant, explain: impl FnOnce(&Miss) -> String) {
        let is_full = self.misses.len() >= MAX_MISSES;
        let known = self.misses.iter_mut().find(|known| known.miss == miss);
        match known {
            Some(known) => {
                known.packets += 1;
                known.last = now;
            }
            None if is_full => {}
            None => self.misses.push(Missed {
                miss,
                text: explain(&miss),
                packets: 1,
                last: now,
            }),
        }
    }

    fn report(self, history: &History, clock: &Clock) -> FlowReport {
        let ends = (self.key.source, self.key.destination);
        let nearest = self
            .misses
            .into_iter()
            .map(|missed| missed.report(history, clock, ends))
            .collect();
        let dropped: u64 = self.dropped.values().sum();
        FlowReport {
            src: self.key.source,
            dst: self.key.destination,
            protocol: self.key.protocol.name(),
            direction: match self.key.direction {
                Direction::Ingress => "ingress",
                Direction::Egress => "egress",
            },
            kind: self.key.kind.name(),
            packets: self.passed + dropped,
            passed: self.passed,
            dropped: by_name(&self.dropped),
            first_seconds: clock.seconds(self.first),
            last_seconds: clock.seconds(self.last),
            calls: self.calls.iter().map(|call| call.0).collect(),
            nearest,
        }
    }
}

impl Missed {
    /// What came later is known only now: media that was ahead of its signalling.
    fn report(
        self,
        history: &History,
        clock: &Clock,
        ends: (SocketAddr, SocketAddr),
    ) -> NearestReport {
        let is_open_question = matches!(
            self.miss.why,
            Why::Unnamed | Why::NextPort | Why::OtherAddress | Why::OtherPort
        );
        let later = is_open_question
            .then(|| history.opened_later(ends, self.last))
            .flatten();
        match later {
            Some((call, opened)) => NearestReport {
                why: Why::NotYet.name(),
                packets: self.packets,
                call: Some(call.0),
                text: format!(
                    "call {} opened this port for it at {}, {:.3} s after the last of these",
                    call.0,
                    clock.text(opened),
                    clock.seconds(opened) - clock.seconds(self.last),
                ),
            },
            None => NearestReport {
                why: self.miss.why.name(),
                packets: self.packets,
                call: self.miss.call.map(|call| call.0),
                text: self.text,
            },
        }
    }
}

/// Counts by reason under the reasons' names.
pub fn by_name(counts: &BTreeMap<Reason, u64>) -> BTreeMap<&'static str, u64> {
    counts
        .iter()
        .map(|(reason, count)| (reason.name(), *count))
        .collect()
}
