//! IP fragments of both families, put together again (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! It owns the table of unfinished datagrams with its caps and its clockless timeout. It does not read what a datagram carries.
//! Each fragment is kept as it came, so memory grows with what arrived and never with what an offset claims; a buffer laid out by
//! offset would let one fragment of eight bytes take 64 KiB.
//!
//! The rules, where the RFCs leave a choice or receivers differ:
//! - Overlapping fragments drop the datagram and all of its fragments still to come (RFC 5722 §3, here for both families). A fragment
//!   that is there already, byte for byte, changes nothing: networks duplicate packets, and an equal copy cannot smuggle anything.
//! - A first fragment holds at least [`MIN_FIRST`] bytes, so that no header is split (RFC 1858). The smallest IPv4 link (RFC 791: 68
//!   bytes) leaves that much. So does any other IPv6 fragment but the last, since only the sender cuts IPv6. A later IPv4 fragment may
//!   be as small as eight bytes: a router that forwards 1,480-byte fragments into a link of 1,492 bytes makes just such ones. What
//!   tiny fragments could still cost is bounded by [`MAX_PARTS`] and a flat charge for each.
//! - A full table gives up the oldest datagram of the source that holds the most (its own, if a source is at its own cap) for the
//!   newcomer. Fragments of one datagram come within milliseconds, so the oldest is the one least likely to become whole; shedding
//!   newcomers instead would let a flood of forged first fragments keep everybody's fragmented SIP out for the whole timeout.
//!
//! Invariant: the ledger's accounts are what a recount of the table gives, and never exceed the caps.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    super::{
        Direction, Instant,
        decode::{Part, TransportStart},
    },
    counts::{Count, Counts},
    ledger::{Full, Ledger, Quota, Usage},
};

/// The smallest first fragment: what the smallest IPv4 link carries behind a plain header.
pub const MIN_FIRST: usize = 48;
/// The most fragments of one datagram: 65,535 bytes over links of 576 bytes make 119.
pub const MAX_PARTS: usize = 128;
/// The longest datagram, from the transport header (or IPv6 extension header) on.
pub const MAX_DATAGRAM: usize = 65_535;
/// What one datagram is charged besides its bytes.
pub const DATAGRAM_CHARGE: usize = 512;
/// What one fragment is charged besides its bytes.
pub const PART_CHARGE: usize = 64;

/// Caps and patience of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentLimits {
    /// Datagrams and bytes, per source and in total.
    pub quota: Quota,
    /// How long fragments wait for the rest (RFC 791: 15 s; Linux: 30 s).
    pub timeout: Duration,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self {
            quota: Quota {
                entries_per_source: 256,
                bytes_per_source: 2 << 20,
                entries: 4_096,
                bytes: 16 << 20,
            },
            timeout: Duration::from_secs(30),
        }
    }
}

/// A datagram that is whole again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Protocol number of the transport header.
    pub protocol: u8,
    bytes: Vec<u8>,
    transport: usize,
}

impl Whole {
    /// The bytes from the transport header on.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.transport..).unwrap_or_default()
    }
}

/// What the fragments of one datagram have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
}

/// The far end: the source of what comes in, the destination of what goes out (whose source is always the PBX).
type Owner = (Direction, IpAddr);

impl Key {
    fn owner(&self) -> Owner {
        match self.direction {
            Direction::Ingress => (self.direction, self.source),
            Direction::Egress => (self.direction, self.destination),
        }
    }
}

/// The table of unfinished datagrams.
#[derive(Debug)]
pub struct FragmentTable {
    timeout: Duration,
    datagrams: BTreeMap<Key, Datagram>,
    /// By age, which is also the order of deadlines.
    by_age: BTreeMap<u64, Key>,
    by_owner: BTreeMap<(Owner, u64), Key>,
    ledger: Ledger<Owner>,
    born: u64,
}

#[derive(Debug)]
struct Datagram {
    age: u64,
    deadline: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Parts),
    /// Refused; remembered so that the fragments still to come are refused, too.
    Dropped,
}

#[derive(Debug, Default)]
struct Parts {
    by_offset: BTreeMap<usize, Box<[u8]>>,
    bytes: usize,
    end: Option<usize>,
    transport: Option<TransportStart>,
}

impl FragmentTable {
    /// An empty table.
    pub fn new(limits: FragmentLimits) -> Self {
        Self {
            timeout: limits.timeout,
            datagrams: BTreeMap::new(),
            by_age: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            ledger: Ledger::new(limits.quota),
            born: 0,
        }
    }

    /// Takes a fragment; returns the datagram if this one made it whole.
    pub fn add(
        &mut self,
        now: Instant,
        (direction, source, destination): (Direction, IpAddr, IpAddr),
        part: &Part<'_>,
        counts: &mut Counts,
    ) -> Option<Whole> {
        counts.one(Count::Fragment);
        let length = part.data.len();
        if length == 0
            || (part.more && !length.is_multiple_of(8))
            || part.offset + length > MAX_DATAGRAM
        {
            counts.one(Count::FragmentMalformed);
            return None;
        }
        let key = Key {
            direction,
            source,
            destination,
            id: part.id,
            protocol: part.protocol,
        };
        if !self.datagrams.contains_key(&key) && !self.open(now, key, counts) {
            return None;
        }
        let datagram = self.datagrams.get_mut(&key)?;
        let State::Waiting(parts) = &mut datagram.state else {
            counts.one(Count::FragmentOfDropped);
            return None;
        };
        match parts.judge(part) {
            Ok(Fit::There) => {
                counts.one(Count::FragmentDuplicate);
                return None;
            }
            Ok(Fit::New) => {}
            Err(count) => {
                counts.one(count);
                self.condemn(&key);
                return None;
            }
        }
        let age = datagram.age;
        if !self.make_room(key.owner(), Some(age), 0, length + PART_CHARGE, counts) {
            self.condemn(&key);
            return None;
        }
        self.store(&key, part, counts)
    }

    /// Gives up what has waited too long.
    pub fn handle_timeout(&mut self, now: Instant, counts: &mut Counts) {
        while let Some((&age, &key)) = self.by_age.first_key_value() {
            let datagram = self.datagrams.get(&key);
            if datagram.is_some_and(|datagram| datagram.deadline > now) {
                break;
            }
            self.by_age.remove(&age);
            if let Some(State::Waiting(_)) = self.remove(&key) {
                counts.one(Count::DatagramTimeout);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (_, key) = self.by_age.first_key_value()?;
        self.datagrams.get(key).map(|datagram| datagram.deadline)
    }

    /// What all unfinished datagrams hold.
    pub fn usage(&self) -> Usage {
        self.ledger.total()
    }

    fn open(&mut self, now: Instant, key: Key, counts: &mut Counts) -> bool {
        let owner = key.owner();
        if !self.make_room(owner, None, 1, DATAGRAM_CHARGE, counts) {
            return false;
        }
        let age = self.born;
        self.born += 1;
        let datagram = Datagram {
            age,
            deadline: Instant(now.0.saturating_add(self.timeout)),
            state: State::Waiting(Parts::default()),
        };
        self.ledger
            .change(owner, Usage::default(), datagram.usage());
        self.datagrams.insert(key, datagram);
        self.by_age.insert(age, key);
        self.by_owner.insert((owner, age), key);
        true
    }

    fn store(&mut self, key: &Key, part: &Part<'_>, counts: &mut Counts) -> Option<Whole> {
        let datagram = self.datagrams.get_mut(key)?;
        let before = datagram.usage();
        let State::Waiting(parts) = &mut datagram.state else {
            return None;
        };
        parts.insert(part);
        let whole = parts.assemble();
        self.ledger.change(key.owner(), before, datagram.usage());
        if whole.is_some() {
            self.remove(key);
            counts.one(Count::DatagramReassembled);
        }
        whole
    }

    /// Gives up datagrams until the owner may hold so much more. The datagram `keep` is not given up; where only that would help,
    /// there is no room.
    fn make_room(
        &mut self,
        owner: Owner,
        keep: Option<u64>,
        entries: usize,
        bytes: usize,
        counts: &mut Counts,
    ) -> bool {
        while let Some(full) = self.ledger.obstacle(owner, entries, bytes) {
            let (from, count) = match full {
                Full::SourceEntries => (Some(owner), Count::DatagramShedSourceCount),
                Full::SourceBytes => (Some(owner), Count::DatagramShedSourceBytes),
                Full::TotalEntries => (self.ledger.heaviest(), Count::DatagramShedTotalCount),
                Full::TotalBytes => (self.ledger.heaviest(), Count::DatagramShedTotalBytes),
            };
            counts.one(count);
            let victim = from.and_then(|from| {
                self.by_owner
                    .range((from, 0)..=(from, u64::MAX))
                    .find(|&(&(_, age), _)| Some(age) != keep)
                    .map(|(_, &key)| key)
            });
            let Some(victim) = victim else {
                return false;
            };
            self.remove(&victim);
        }
        true
    }

    fn condemn(&mut self, key: &Key) {
        if let Some(datagram) = self.datagrams.get_mut(key) {
            let before = datagram.usage();
            datagram.state = State::Dropped;
            self.ledger.change(key.owner(), before, datagram.usage());
        }
    }

    fn remove(&mut self, key: &Key) -> Option<State> {
        let datagram = self.datagrams.remove(key)?;
        let owner = key.owner();
        self.by_age.remove(&datagram.age);
        self.by_owner.remove(&(owner, datagram.age));
        self.ledger
            .change(owner, datagram.usage(), Usage::default());
        Some(datagram.state)
    }

    /// Compares the accounts and the indices with a recount.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let mut accounts = BTreeMap::<Owner, Usage>::new();
        for (key, datagram) in &self.datagrams {
            let usage = accounts.entry(key.owner()).or_default();
            usage.entries += 1;
            usage.bytes += DATAGRAM_CHARGE;
            if let State::Waiting(parts) = &datagram.state {
                let bytes: usize = parts.by_offset.values().map(|data| data.len()).sum();
                assert_eq!(bytes, parts.bytes, "bytes of {key:?}");
                usage.bytes += bytes + parts.by_offset.len() * PART_CHARGE;
            }
            assert_eq!(self.by_age.get(&datagram.age), Some(key));
            assert_eq!(self.by_owner.get(&(key.owner(), datagram.age)), Some(key));
        }
        assert_eq!(self.by_age.len(), self.datagrams.len());
        assert_eq!(self.by_owner.len(), self.datagrams.len());
        self.ledger.check_against(&accounts);
        let deadlines = self.datagrams.values().map(|datagram| datagram.deadline);
        assert_eq!(self.poll_timeout(), deadlines.min());
    }
}

impl Datagram {
    fn usage(&self) -> Usage {
        let parts = match &self.state {
            State::Waiting(parts) => parts.bytes + parts.by_offset.len() * PART_CHARGE,
            State::Dropped => 0,
        };
        Usage {
            entries: 1,
            bytes: DATAGRAM_CHARGE + parts,
        }
    }
}

/// How a fragment fits those that are there.
enum Fit {
    New,
    There,
}

impl Parts {
    /// # Errors
    /// The counter of the reason to drop the whole datagram.
    fn judge(&self, part: &Part<'_>) -> Result<Fit, Count> {
        let end = part.offset + part.data.len();
        if let Some(there) = self.by_offset.get(&part.offset)
            && **there == *part.data
            && part.more != (self.end == Some(end))
        {
            return Ok(Fit::There);
        }
        let must_be_large = part.offset == 0 || (part.is_ipv6 && part.more);
        if must_be_large && part.data.len() < MIN_FIRST {
            return Err(Count::DatagramTiny);
        }
        let before = self.by_offset.range(..end).next_back();
        if before.is_some_and(|(at, data)| at + data.len() > part.offset) {
            return Err(Count::DatagramOverlap);
        }
        let last = self.by_offset.last_key_value();
        let contradicts = match self.end {
            Some(known) => !part.more || end > known,
            None => !part.more && last.is_some_and(|(&at, _)| at >= end),
        };
        if contradicts {
            return Err(Count::DatagramEndConflict);
        }
        if self.by_offset.len() >= MAX_PARTS {
            return Err(Count::DatagramTooManyFragments);
        }
        Ok(Fit::New)
    }

    fn insert(&mut self, part: &Part<'_>) {
        self.by_offset.insert(part.offset, part.data.into());
        self.bytes += part.data.len();
        if !part.more {
            self.end = Some(part.offset + part.data.len());
        }
        if part.transport.is_some() {
            self.transport = part.transport;
        }
    }

    /// Nothing overlaps and nothing lies behind the end, so the bytes are all there once they are as many as the end says.
    fn assemble(&mut self) -> Option<Whole> {
        let transport = self.transport?;
        if self.end != Some(self.bytes) {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.bytes);
        for data in self.by_offset.values() {
            bytes.extend_from_slice(data);
        }
        Some(Whole {
            protocol: transport.protocol,
            bytes,
            transport: transport.offset,
        })
    }
}
