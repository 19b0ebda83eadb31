//! The filter without a kernel: the policy over tables in memory, and the engine that fills them.
//!
//! What the daemon's shell does with kernel maps and a clock is done here with [`HostTables`] and the capture's times: copies of
//! signalling go to the engine, its pinhole actions take effect at once, silence is reported, deadlines are kept in their order.
//! It decides nothing and keeps no history.
//!
//! Invariant: the tables hold exactly the pinholes in `open`, each with a slot of its own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use sipfilter_common::{
    classify::{Verdict, classify_egress, classify_ingress, is_expired},
    host::{HostSlot, HostTables},
    key::PinholeKey,
    value::Latch,
};

use crate::{
    engine::{
        Counters, Direction, Engine, Event, Input, Instant, Output,
        pinhole::{Pinhole, PinholeAction, PinholeResult},
        settings::Settings,
    },
    shell::policy::{KernelPinhole, KernelPolicy, Place, next_generation},
};

/// Something that the engine said or did.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A pinhole was opened or changed; the place in the tables has this content now.
    Opened(Pinhole),
    /// A pinhole was closed.
    Closed(SocketAddr),
    /// An event.
    Event(Event),
}

/// Tables, engine and clock.
pub struct World {
    tables: HostTables,
    engine: Engine,
    open: BTreeMap<SocketAddr, Open>,
    /// When each open pinhole must be looked at again: not before its idle limit can have passed.
    deadlines: BTreeSet<(Instant, SocketAddr)>,
    free: Vec<u32>,
    capacity: usize,
    now: Instant,
    happenings: VecDeque<(Instant, Happening)>,
}

struct Open {
    pinhole: Pinhole,
    slot: u32,
    generation: u16,
    opened: Instant,
    deadline: Instant,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(settings: &Settings, hash_key: [u64; 2]) -> Self {
        Self {
            tables: KernelPolicy::new(settings).host_tables(0),
            engine: Engine::new(settings.clone(), hash_key),
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            free: Vec::new(),
            capacity: settings.limits.pinholes,
            now: Instant::default(),
            happenings: VecDeque::new(),
        }
    }

    /// Lets time pass. Deadlines on the way are kept, each at its own time; a time before the last one counts as the last one.
    pub fn advance(&mut self, to: Instant) {
        while let Some(due) = self.next_deadline().filter(|due| *due <= to) {
            self.set_clock(due);
            self.engine.handle_timeout(self.now);
            self.drain();
            self.report_idle();
            if self.next_deadline().is_some_and(|next| next <= due) {
                // Nobody may stop time: what is still due is asked again at the end of the step.
                break;
            }
        }
        self.set_clock(to);
        self.engine.handle_timeout(self.now);
        self.drain();
    }

    /// Judges one frame, and does what follows from it. `is_cut`: the end of it was not captured.
    pub fn packet(&mut self, direction: Direction, frame: &[u8], is_cut: bool) -> Verdict {
        let verdict = match direction {
            Direction::Ingress => classify_ingress(&frame, &self.tables),
            Direction::Egress => classify_egress(&frame, &self.tables),
        };
        if let Some(bytes) = verdict.copy_from().and_then(|start| frame.get(start..)) {
            let input = Input::Packet {
                direction,
                bytes,
                truncated: is_cut,
            };
            self.engine.handle(self.now, input);
            self.drain();
            if direction == Direction::Egress {
                self.tables.revoke_provisional(bytes);
            }
        }
        verdict
    }

    /// What has happened since the last question, in order.
    pub fn poll_happening(&mut self) -> Option<(Instant, Happening)> {
        self.happenings.pop_front()
    }

    /// The tables, to look at.
    pub fn tables(&self) -> &HostTables {
        &self.tables
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine's counters.
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// The open pinhole here.
    pub fn pinhole(&self, local: &SocketAddr) -> Option<&Pinhole> {
        self.open.get(local).map(|open| &open.pinhole)
    }

    /// The source that the open pinhole here has latched to, where that can be told.
    pub fn latched(&self, local: &SocketAddr) -> Option<SocketAddr> {
        let open = self.open.get(local)?;
        let latch = self.latch_in_slot(open.slot);
        let is_told = open.pinhole.latch.is_some() && local.is_ipv4();
        (is_told && latch.generation() == open.generation).then(|| latch.source4().into())
    }

    /// The last packet through the open pinhole here, or else its opening.
    pub fn last_packet(&self, local: &SocketAddr) -> Option<Instant> {
        let open = self.open.get(local)?;
        Some(open.opened.max(self.last_in_slot(open.slot)))
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    fn set_clock(&mut self, to: Instant) {
        self.now = self.now.max(to);
        self.tables.now.set(nanoseconds(self.now.0));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let idle = self.deadlines.first().map(|(deadline, _)| *deadline);
        [idle, self.engine.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn last_in_slot(&self, slot: u32) -> Instant {
        let last = self.tables.slot(slot).map_or(0, |slot| slot.slot.last());
        Instant(Duration::from_nanos(last))
    }

    fn latch_in_slot(&self, slot: u32) -> Latch {
        Latch(
            self.tables
                .slot(slot)
                .map_or(0, |slot| slot.aside.latch.get()),
        )
    }

    /// Tells the engine of pinholes whose idle limit has passed.
    fn report_idle(&mut self) {
        let mut idle = Vec::new();
        while let Some(&(deadline, local)) = self.deadlines.first() {
            if deadline > self.now {
                break;
            }
            self.deadlines.pop_first();
            let Some(open) = self.open.get(&local) else {
                continue;
            };
            let last = self.last_in_slot(open.slot);
            let limit = open.pinhole.idle;
            let expired = is_expired(
                nanoseconds(open.opened.0),
                nanoseconds(last.0),
                nanoseconds(limit),
                nanoseconds(self.now.0),
            );
            // An idle one is asked about again after a while, should the engine want to keep it.
            let from = if expired {
                self.now
            } else {
                open.opened.max(last)
            };
            self.arm(local, from + limit);
            if expired {
                idle.push(local);
            }
        }
        for local in idle {
            self.engine.handle(self.now, Input::PinholeIdle { local });
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Event(event) => self
                    .happenings
                    .push_back((self.now, Happening::Event(event))),
                Output::Pinhole(action) => {
                    let (local, result) = match action {
                        PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) => {
                            (pinhole.local, self.write(pinhole))
                        }
                        PinholeAction::Close { local, .. } => {
                            self.close(local);
                            continue;
                        }
                    };
                    self.engine
                        .handle(self.now, Input::PinholeResult { local, result });
                }
            }
        }
    }

    fn write(&mut self, pinhole: Pinhole) -> PinholeResult {
        let local = pinhole.local;
        let known = self.open.get(&local);
        let before = known.map(|open| (open.generation, open.pinhole.latch));
        let Some(slot) = known.map(|open| open.slot).or_else(|| self.take_slot()) else {
            return PinholeResult::Full;
        };
        let generation = next_generation(before, pinhole.latch, self.latch_in_slot(slot));
        let place = Place {
            slot,
            generation,
            opened: nanoseconds(self.now.0),
            idle: nanoseconds(pinhole.idle),
            provider: 0,
        };
        match KernelPinhole::new(&pinhole, place) {
            KernelPinhole::V4(key, value) => {
                self.tables.pinholes4.insert(key, value);
            }
            KernelPinhole::V6(key, value) => {
                self.tables.pinholes6.insert(key, value);
            }
        }
        self.happenings
            .push_back((self.now, Happening::Opened(pinhole.clone())));
        let deadline = self.now + pinhole.idle;
        if let Some(before) = self.open.insert(
            local,
            Open {
                pinhole,
                slot,
                generation,
                opened: self.now,
                deadline: Instant::default(),
            },
        ) {
            self.deadlines.remove(&(before.deadline, local));
        }
        self.arm(local, deadline);
        PinholeResult::Done
    }

    /// The kernel closes a pinhole once its limit has passed, not when it is reached.
    fn arm(&mut self, local: SocketAddr, limit: Instant) {
        if let Some(open) = self.open.get_mut(&local) {
            open.deadline = limit + Duration::from_nanos(1);
            self.deadlines.insert((open.deadline, local));
        }
    }

    fn take_slot(&mut self) -> Option<u32> {
        let fresh = self.tables.slots.len();
        match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.tables.slots.get_mut(slot as usize) {
                    *place = HostSlot::default();
                }
                Some(slot)
            }
            None if fresh < self.capacity => {
                self.tables.slots.push(HostSlot::default());
                u32::try_from(fresh).ok()
            }
            None => None,
        }
    }

    fn close(&mut self, local: SocketAddr) {
        let Some(open) = self.open.remove(&local) else {
            return;
        };
        match local {
            SocketAddr::V4(local) => {
                let key = PinholeKey::new((*local.ip()).into(), local.port());
                self.tables.pinholes4.remove(&key);
            }
            SocketAddr::V6(local) => {
                let key = PinholeKey::new((*local.ip()).into(), local.port());
                self.tables.pinholes6.remove(&key);
            }
        }
        self.deadlines.remove(&(open.deadline, local));
        self.free.push(open.slot);
        self.happenings
            .push_back((self.now, Happening::Closed(local)));
    }
}

/// The kernel's unit of time; it lasts for centuries.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
