//! What a media packet needs of its pinhole, as the programs read it: small, because with many calls the processor's caches are what a packet
//! waits for.
//!
//! All of it follows from a [`Pinhole`], which remains what is true: these arrays are made anew for each load. Invariant: a packet that a gate
//! and its terms let pass is one that the pinhole names.

use crate::{
    addr::{Address, Ipv4, Ipv6},
    slot::{Aside, Slot},
    value::{Budget, Flags, MAX_SOURCES, PayloadTypes, Pinhole, Shapes, Source},
};

/// What differs from call to call: half a cache line for IPv4, one for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Gate<A: Address> {
    /// [`Pinhole::opened`].
    pub opened: u64,
    /// The first source.
    pub source: Source<A>,
    /// The number of its [`Terms`].
    pub terms: u32,
    /// [`Pinhole::slot`].
    pub slot: u32,
    /// [`Pinhole::generation`].
    pub generation: u16,
    /// 1 where the pinhole names more than one source, else 0.
    pub others: u16,
    /// Fills up to half a cache line, or one.
    pub filling: A::GateFilling,
}

/// What most calls have in common, so that all of them find it in the processor's nearest cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Terms {
    /// [`Pinhole::payload_types`].
    pub payload_types: PayloadTypes,
    /// [`Pinhole::idle`].
    pub idle: u64,
    /// [`Pinhole::budget`].
    pub budget: Budget,
    /// [`Pinhole::shapes`].
    pub shapes: Shapes,
    /// [`Pinhole::flags`].
    pub flags: Flags,
    /// Fills up to the alignment.
    pub zero: u32,
}

impl<A: Address> Pinhole<A> {
    /// What the pinhole shares with others.
    pub const fn terms(&self) -> Terms {
        Terms {
            payload_types: self.payload_types,
            idle: self.idle,
            budget: self.budget,
            shapes: self.shapes,
            flags: self.flags,
            zero: 0,
        }
    }

    /// The rest of what a packet needs. `terms`: the number of the other part.
    pub fn gate(&self, terms: u32) -> Gate<A> {
        let [source, others @ ..] = self.sources;
        Gate {
            opened: self.opened,
            source,
            terms,
            slot: self.slot,
            generation: self.generation,
            others: others.iter().any(Source::is_used).into(),
            filling: A::GateFilling::default(),
        }
    }
}

/// A pinhole that a packet has met, wherever its parts lie.
pub trait Hole<A: Address> {
    /// What differs.
    fn gate(&self) -> &Gate<A>;

    /// What it shares with others.
    fn terms(&self) -> &Terms;

    /// All of its sources: only asked where there is more than one.
    fn sources(&self) -> Option<&[Source<A>; MAX_SOURCES]>;

    /// Where its media is counted.
    fn slot(&self) -> &Slot;

    /// Where the rest is.
    fn aside(&self) -> Option<&Aside>;

    /// Whether one of the sources is meant. Media goes where it comes from, so this holds for what leaves, too.
    #[inline(always)]
    fn names(&self, address: A, port: u16) -> bool {
        let gate = self.gate();
        gate.source.contains(address, port)
            || gate.others != 0
                && self
                    .sources()
                    .is_some_and(|all| all.iter().any(|source| source.contains(address, port)))
    }
}

const _: () = {
    assert!(size_of::<Gate<Ipv4>>() == 32 && align_of::<Gate<Ipv4>>() == 8);
    assert!(size_of::<Gate<Ipv6>>() == 64 && align_of::<Gate<Ipv6>>() == 8);
    assert!(core::mem::offset_of!(Gate<Ipv4>, filling) == 32);
    assert!(core::mem::offset_of!(Gate<Ipv6>, filling) == 56);
    assert!(size_of::<Terms>() == 40);
};
