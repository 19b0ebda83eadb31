//! What takes long where there are many calls, cut into slices that are done between inputs: questions about all calls and pinholes, and the
//! look at what pinholes carried.
//!
//! Invariant: a slice looks at so few calls or pinholes that whoever waits for a pinhole waits a millisecond or so for it. What comes and
//! goes between two slices is in the answer or not; whatever is there all the time is in it once.

use tokio::sync::oneshot;

use super::{Core, metrics::Count, report::Gathering};
use crate::shell::{api::QUEUE, clock, core::report::Gathered, metrics::Snapshot};

/// Slices of [`crate::shell::traffic::Ledger::sweep`] that belong together.
const SWEEPS: usize = 4;

/// Something that is not done yet.
pub(super) enum Work {
    Metrics(Box<Count>, oneshot::Sender<Snapshot>),
    Report(Box<Gathering>, oneshot::Sender<Box<Gathered>>),
    /// So many slices more.
    Sweep(usize),
}

impl Core {
    /// Whether something waits to be done when there is nothing else.
    pub fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// Whether another question can be taken.
    pub fn has_room(&self) -> bool {
        self.work.len() < QUEUE
    }

    /// Does a slice of it.
    pub fn work(&mut self) {
        let now = clock::now();
        let Some(work) = self.work.pop_front() else {
            return;
        };
        let rest = match work {
            // Whoever has gone need not be told.
            Work::Metrics(_, asker) if asker.is_closed() => None,
            Work::Report(_, asker) if asker.is_closed() => None,
            Work::Metrics(mut count, asker) => match count.look(self, now) {
                true => Some(Work::Metrics(count, asker)),
                false => {
                    let _ = asker.send(self.metrics(*count, now));
                    None
                }
            },
            Work::Report(mut gathering, asker) => match gathering.look(self) {
                true => Some(Work::Report(gathering, asker)),
                false => {
                    let _ = asker.send(Box::new(self.gathered(*gathering, now)));
                    None
                }
            },
            Work::Sweep(slices) => {
                let writer = &self.writer;
                self.ledger.sweep(|local| writer.traffic(local));
                (slices > 1).then(|| Work::Sweep(slices - 1))
            }
        };
        if let Some(rest) = rest {
            self.work.push_front(rest);
        }
    }

    /// Providers have other numbers by now: what was counted by number is counted anew.
    pub(super) fn renumber_work(&mut self) {
        for work in std::mem::take(&mut self.work) {
            let work = match work {
                Work::Metrics(_, asker) => Work::Metrics(Box::new(Count::new(self)), asker),
                other => other,
            };
            self.work.push_back(work);
        }
    }

    pub(super) fn begin_sweep(&mut self) {
        let is_sweeping = |work: &Work| matches!(work, Work::Sweep(_));
        if !self.work.iter().any(is_sweeping) {
            self.work.push_back(Work::Sweep(SWEEPS));
        }
    }
}
