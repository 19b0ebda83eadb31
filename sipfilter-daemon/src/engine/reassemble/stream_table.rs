//! TCP connections that carry SIP, both directions, whoever dialled (RFC 3261 §18).
//!
//! It owns which connections are followed, their lifetimes and caps. The order of bytes is `tcp_stream`'s matter and the cut into
//! messages `stream_reader`'s. It answers nobody and sends nothing.
//!
//! The rules:
//! - A connection is followed from its handshake, or from its first data where the handshake was not seen.
//! - What a stranger can forge proves nothing: the PBX's own SYN, SYN+ACK, RST and acknowledgments are believed; from outside, RST
//!   counts only at the next sequence number (RFC 5961 §3.2), and SYN never restarts a connection that runs.
//! - A connection is proven once the far end acknowledged what the PBX sent. A full table gives up the oldest one that is not
//!   proven for the newcomer, and otherwise does not follow the newcomer. A connection that is not followed costs its calls their
//!   pinholes, so a proven one is never given up for a new one.
//!
//! Invariant: the ledger's accounts are what a recount gives, and never exceed the caps; no connection's deadline is earlier than
//! what is armed for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    super::{Direction, Flow, Instant, decode::Segment},
    connection::{Connection, Fate},
    counts::{Count, Counts},
    ledger::{Full, Ledger, Quota, Usage},
};

/// What one connection is charged besides its bytes.
pub const CONNECTION_CHARGE: usize = 1_024;

/// Caps and patience of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLimits {
    /// Connections and bytes, per far end and in total.
    pub quota: Quota,
    /// A connection without a packet for this long is forgotten. What comes later is followed from its middle, so little is lost.
    pub idle: Duration,
    /// The same before anybody sent data, and once both ends said FIN.
    pub bare: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            quota: Quota {
                entries_per_source: 2_048,
                bytes_per_source: 8 << 20,
                entries: 16_384,
                bytes: 64 << 20,
            },
            idle: Duration::from_secs(900),
            bare: Duration::from_secs(30),
        }
    }
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    remote: SocketAddr,
    local: SocketAddr,
}

impl Key {
    fn of(flow: &Flow) -> Self {
        let (remote, local) = match flow.direction {
            Direction::Ingress => (flow.source, flow.destination),
            Direction::Egress => (flow.destination, flow.source),
        };
        Self { remote, local }
    }

    fn flow(&self, direction: Direction) -> Flow {
        let (source, destination) = match direction {
            Direction::Ingress => (self.remote, self.local),
            Direction::Egress => (self.local, self.remote),
        };
        Flow {
            direction,
            source,
            destination,
        }
    }

    fn owner(&self) -> IpAddr {
        self.remote.ip()
    }
}

/// The table of followed connections.
#[derive(Debug)]
pub struct StreamTable {
    limits: StreamLimits,
    connections: BTreeMap<Key, Entry>,
    deadlines: BTreeSet<(Instant, Key)>,
    unproven: BTreeMap<u64, Key>,
    unproven_by_owner: BTreeMap<(IpAddr, u64), Key>,
    ledger: Ledger<IpAddr>,
    born: u64,
}

#[derive(Debug)]
struct Entry {
    age: u64,
    /// What stands in `deadlines`; never later than what is due.
    armed: Instant,
    booked: usize,
    connection: Connection,
}

impl Entry {
    fn usage(&self) -> Usage {
        Usage {
            entries: 1,
            bytes: self.booked,
        }
    }
}

impl StreamTable {
    /// An empty table.
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            ledger: Ledger::new(limits.quota.clone()),
            limits,
            connections: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unproven: BTreeMap::new(),
            unproven_by_owner: BTreeMap::new(),
            born: 0,
        }
    }

    /// Takes a segment and hands on each message that it completes.
    pub fn handle_segment(
        &mut self,
        now: Instant,
        flow: &Flow,
        segment: &Segment<'_>,
        counts: &mut Counts,
        deliver: &mut dyn FnMut(&Flow, &[u8]),
    ) {
        counts.one(Count::Segment);
        let key = Key::of(flow);
        if !self.connections.contains_key(&key) {
            // Without data or SYN there is nothing to follow: the remains of a connection that is over, or a scan.
            if segment.rst || (!segment.syn && segment.data.is_empty()) {
                return;
            }
            if !self.open(now, key, counts) {
                return;
            }
            counts.one(if segment.syn {
                Count::ConnectionOpened
            } else {
                Count::ConnectionMidStream
            });
        }
        let Some(entry) = self.connections.get_mut(&key) else {
            return;
        };
        let room = self.ledger.room(key.owner());
        let was_proven = entry.connection.is_proven();
        let fate = entry.connection.handle_segment(
            now,
            flow.direction,
            segment,
            room,
            counts,
            &mut |bytes| deliver(flow, bytes),
        );
        let is_proven = entry.connection.is_proven();
        if !was_proven && is_proven {
            self.unproven.remove(&entry.age);
            self.unproven_by_owner.remove(&(key.owner(), entry.age));
        }
        match fate {
            Fate::Over => self.remove(&key),
            Fate::Lives => self.settle(&key),
        }
    }

    /// Skips holes that stayed open too long, and forgets idle connections.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        counts: &mut Counts,
        deliver: &mut dyn FnMut(&Flow, &[u8]),
    ) {
        while let Some(&(armed, key)) = self.deadlines.first()
            && armed <= now
        {
            let Some(entry) = self.connections.get_mut(&key) else {
                self.deadlines.remove(&(armed, key));
                continue;
            };
            if entry.connection.idle_deadline(&self.limits) <= now {
                counts.one(Count::ConnectionIdle);
                self.remove(&key);
                continue;
            }
            let room = self.ledger.room(key.owner());
            entry
                .connection
                .handle_timeout(now, room, counts, &mut |direction, bytes| {
                    deliver(&key.flow(direction), bytes);
                });
            self.deadlines.remove(&(armed, key));
            entry.armed = entry.connection.deadline(&self.limits);
            self.deadlines.insert((entry.armed, key));
            self.settle(&key);
        }
    }

    /// When [`Self::handle_timeout`] is due; it may find nothing to do then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(armed, _)| armed)
    }

    /// How many connections are followed, and what they hold.
    pub fn usage(&self) -> Usage {
        self.ledger.total()
    }

    fn open(&mut self, now: Instant, key: Key, counts: &mut Counts) -> bool {
        let owner = key.owner();
        while let Some(full) = self.ledger.obstacle(owner, 1, CONNECTION_CHARGE) {
            let (victim, count) = match full {
                Full::SourceEntries | Full::SourceBytes => (
                    self.unproven_by_owner
                        .range((owner, 0)..=(owner, u64::MAX))
                        .next()
                        .map(|(_, &key)| key),
                    Count::ConnectionShedSource,
                ),
                Full::TotalEntries | Full::TotalBytes => (
                    self.unproven.first_key_value().map(|(_, &key)| key),
                    Count::ConnectionShedTotal,
                ),
            };
            let Some(victim) = victim else {
                counts.one(count);
                return false;
            };
            counts.one(Count::ConnectionEvicted);
            self.remove(&victim);
        }
        let connection = Connection::new(now);
        let entry = Entry {
            age: self.born,
            armed: connection.deadline(&self.limits),
            booked: CONNECTION_CHARGE,
            connection,
        };
        self.born += 1;
        self.ledger.change(owner, Usage::default(), entry.usage());
        self.deadlines.insert((entry.armed, key));
        self.unproven.insert(entry.age, key);
        self.unproven_by_owner.insert((owner, entry.age), key);
        self.connections.insert(key, entry);
        true
    }

    /// Books what the connection holds now, and arms an earlier deadline if it has one. A later one is found when the armed one
    /// passes, which spares the index a change for every packet.
    fn settle(&mut self, key: &Key) {
        let Some(entry) = self.connections.get_mut(key) else {
            return;
        };
        let before = entry.usage();
        entry.booked = CONNECTION_CHARGE + entry.connection.charge();
        self.ledger.change(key.owner(), before, entry.usage());
        let due = entry.connection.deadline(&self.limits);
        if due < entry.armed {
            self.deadlines.remove(&(entry.armed, *key));
            self.deadlines.insert((due, *key));
            entry.armed = due;
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.connections.remove(key) {
            let owner = key.owner();
            self.deadlines.remove(&(entry.armed, *key));
            self.unproven.remove(&entry.age);
            self.unproven_by_owner.remove(&(owner, entry.age));
            self.ledger.change(owner, entry.usage(), Usage::default());
        }
    }

    /// Compares the accounts and the indices with a recount.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let mut accounts = BTreeMap::<IpAddr, Usage>::new();
        let mut unproven = 0;
        for (key, entry) in &self.connections {
            entry.connection.check_invariants();
            let usage = accounts.entry(key.owner()).or_default();
            usage.entries += 1;
            usage.bytes += CONNECTION_CHARGE + entry.connection.charge();
            assert!(self.deadlines.contains(&(entry.armed, *key)));
            assert!(entry.armed <= entry.connection.deadline(&self.limits));
            let indexed = self.unproven.contains_key(&entry.age);
            assert_eq!(indexed, !entry.connection.is_proven());
            unproven += usize::from(indexed);
        }
        assert_eq!(self.deadlines.len(), self.connections.len());
        assert_eq!(self.unproven.len(), unproven);
        assert_eq!(self.unproven_by_owner.len(), unproven);
        self.ledger.check_against(&accounts);
    }
}
