//! The edge: the packet policy over tables in memory, the engine behind it, and what stands between them in the daemon.
//!
//! It does to [`HostTables`] what the daemon's map writer does to the kernel's maps (slots, renewal, idle reports, adoption after a
//! restart), and loses captured packets when told to. It knows nothing of what agents think.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use sipfilter_common::{
    classify::{classify_egress, classify_ingress, is_expired},
    host::HostTables,
    key::PinholeKey,
    reason::{Action, Reason},
    value::{Latch, PROVISIONAL_LIFETIME},
};
use sipfilter_daemon::{
    engine::{
        Direction, Engine, Input, Instant, Output,
        pinhole::{Arming, Pinhole, PinholeAction, PinholeResult},
        settings::Settings,
    },
    shell::policy::{KernelPinhole, KernelPolicy, Place, next_generation},
};

use crate::frames::ETHERNET;

const SLOTS: usize = 1024;
/// The unit in which places count time, and one to spare.
const TICK: u64 = 2 << 20;

pub struct Edge {
    settings: Settings,
    engine: Engine,
    tables: HostTables,
    open: BTreeMap<SocketAddr, Open>,
    free: Vec<u32>,
    /// Captured packets that the engine has not been told are lost.
    lost: u64,
    /// Until when places may be open that nobody closes, because the message that opened them was lost on its way to the engine.
    unread_until: u64,
    /// What the engine wanted done, for the trace.
    pub actions: Vec<String>,
}

struct Open {
    slot: u32,
    generation: u16,
    arming: Option<Arming>,
    opened: u64,
    idle: u64,
    adopted: bool,
}

impl Edge {
    pub fn new(settings: Settings) -> Self {
        let tables = KernelPolicy::new(&settings).host_tables(SLOTS);
        Self {
            engine: Engine::new(settings.clone(), [3, 4]),
            settings,
            tables,
            open: BTreeMap::new(),
            free: (0..SLOTS as u32).rev().collect(),
            lost: 0,
            unread_until: 0,
            actions: Vec::new(),
        }
    }

    /// A frame crosses. `copied` is whether the copy for the engine, if there is one, reaches it.
    pub fn cross(
        &mut self,
        now: Duration,
        direction: Direction,
        frame: &[u8],
        copied: bool,
    ) -> Reason {
        self.tables.now.set(nanos(now));
        let verdict = match direction {
            Direction::Ingress => classify_ingress(&frame, &self.tables),
            Direction::Egress => classify_egress(&frame, &self.tables),
        };
        if let Some(start) = verdict.copy_from() {
            assert_eq!(start, ETHERNET);
            assert_eq!(verdict.action, Action::Pass);
            if copied {
                let bytes = &frame[start..];
                self.input(
                    now,
                    Input::Packet {
                        direction,
                        bytes,
                        truncated: false,
                    },
                );
                if direction == Direction::Egress {
                    self.tables.revoke_provisional(bytes);
                }
            } else {
                self.lost += 1;
                if direction == Direction::Egress {
                    self.unread_until = nanos(now) + PROVISIONAL_LIFETIME + TICK;
                }
            }
        }
        verdict.reason
    }

    /// Whether a provisional place may still be open that the engine does not know of.
    pub fn may_be_unread(&self) -> bool {
        self.tables.now.get() <= self.unread_until
    }

    /// What the daemon does now and then: losses, timers, idle pinholes.
    pub fn tick(&mut self, now: Duration) {
        if self.lost > 0 {
            let packets = std::mem::take(&mut self.lost);
            self.input(now, Input::CaptureLost { packets });
        }
        self.run_timers(now);
        let idle: Vec<SocketAddr> = self
            .open
            .iter()
            .filter(|(_, open)| {
                let last = self.tables.slots[open.slot as usize].slot.last();
                is_expired(open.opened, last, open.idle, nanos(now))
            })
            .map(|(local, _)| *local)
            .collect();
        for local in idle {
            match self.open.get(&local) {
                Some(open) if open.adopted => self.close(local),
                Some(_) => self.input(now, Input::PinholeIdle { local }),
                None => {}
            }
        }
    }

    /// The daemon dies and starts anew: the engine forgets everything, the kernel nothing.
    pub fn restart(&mut self) {
        self.engine = Engine::new(self.settings.clone(), [5, 6]);
        self.lost = 0;
        for open in self.open.values_mut() {
            open.adopted = true;
            open.arming = None;
        }
    }

    /// Where packets could pass.
    pub fn locals(&self) -> BTreeSet<SocketAddr> {
        self.open.keys().copied().collect()
    }

    /// What the engine still follows.
    pub fn calls(&self) -> Vec<String> {
        self.engine
            .calls()
            .map(|call| format!("{} ({})", call.call_id, call.state.name()))
            .collect()
    }

    fn run_timers(&mut self, now: Duration) {
        while let Some(due) = self.engine.poll_timeout().filter(|due| due.0 <= now) {
            self.engine.handle_timeout(due);
            self.drain(due.0);
        }
    }

    fn input(&mut self, now: Duration, input: Input<'_>) {
        self.run_timers(now);
        self.engine.handle(Instant(now), input);
        self.drain(now);
    }

    fn drain(&mut self, now: Duration) {
        while let Some(output) = self.engine.poll_output() {
            let Output::Pinhole(action) = output else {
                continue;
            };
            self.actions.push(match &action {
                PinholeAction::Open(pinhole) => format!("open {}", show(pinhole)),
                PinholeAction::Update(pinhole) => format!("update {}", show(pinhole)),
                PinholeAction::Close { local, .. } => format!("close {local}"),
            });
            match action {
                PinholeAction::Close { local, .. } => self.close(local),
                PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) => {
                    self.write(now, &pinhole);
                    let (local, result) = (pinhole.local, PinholeResult::Done);
                    self.engine
                        .handle(Instant(now), Input::PinholeResult { local, result });
                }
            }
        }
    }

    fn write(&mut self, now: Duration, pinhole: &Pinhole) {
        let known = self.open.get(&pinhole.local);
        let slot = match known {
            Some(open) => open.slot,
            None => self.free.pop().expect("a free slot"),
        };
        let latch = self
            .tables
            .slot(slot)
            .map_or(Latch::default(), |slot| Latch(slot.aside.latch.get()));
        let before = known.map(|open| (open.generation, open.arming));
        let generation = next_generation(before, pinhole.latch, latch);
        let (opened, idle) = (nanos(now), nanos(pinhole.idle));
        let place = Place {
            slot,
            generation,
            opened,
            idle,
            provider: 0,
        };
        match KernelPinhole::new(pinhole, place) {
            KernelPinhole::V4(key, value) => _ = self.tables.pinholes4.insert(key, value),
            KernelPinhole::V6(key, value) => _ = self.tables.pinholes6.insert(key, value),
        }
        self.open.insert(
            pinhole.local,
            Open {
                slot,
                generation,
                arming: pinhole.latch,
                opened,
                idle,
                adopted: false,
            },
        );
    }

    fn close(&mut self, local: SocketAddr) {
        let Some(open) = self.open.remove(&local) else {
            return;
        };
        self.free.push(open.slot);
        match local {
            SocketAddr::V4(local) => {
                _ = self
                    .tables
                    .pinholes4
                    .remove(&PinholeKey::new((*local.ip()).into(), local.port()))
            }
            SocketAddr::V6(local) => {
                _ = self
                    .tables
                    .pinholes6
                    .remove(&PinholeKey::new((*local.ip()).into(), local.port()))
            }
        }
    }
}

fn show(pinhole: &Pinhole) -> String {
    let sources: Vec<String> = pinhole
        .sources
        .iter()
        .map(|source| source.net.to_string())
        .collect();
    format!(
        "{} for {} ({})",
        pinhole.local,
        sources.join(" "),
        pinhole.call.0
    )
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
