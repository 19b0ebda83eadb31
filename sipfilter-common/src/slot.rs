//! What the kernel knows of a pinhole's traffic. The kernel alone writes it; a slot that is used again keeps its counts, so that readers take a
//! baseline when they open a pinhole.
//!
//! It lies in two arrays, because with many calls the processor's caches are what a packet waits for: what every media packet reads or writes is
//! half a cache line ([`Slot`]), what only some do is beside it ([`Aside`]). User space reads both as [`SlotCounts`].

use core::cell::Cell;

use crate::value::Latch;

/// What every media packet needs. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Slot {
    /// The theoretical arrival time of the next packet ([`crate::value::Budget`]).
    pub due: Cell<u64>,
    /// When the last one came in and passed.
    pub ingress_last: Cell<u64>,
    /// When the last one left from the pinhole's address and port.
    pub egress_last: Cell<u64>,
    /// Packets that came in and passed.
    pub ingress_packets: Cell<u64>,
}

/// What the others need.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Aside {
    /// The [`Latch`].
    pub latch: Cell<u64>,
    /// Packets that left.
    pub egress_packets: Cell<u64>,
    /// Packets to the pinhole that were dropped.
    pub dropped_packets: Cell<u64>,
}

/// A [`Slot`] as user space reads it.
pub type SlotWords = [u64; 4];
/// An [`Aside`] as user space reads it.
pub type AsideWords = [u64; 3];

impl Slot {
    /// The last sign of life in either direction.
    #[inline(always)]
    pub fn last(&self) -> u64 {
        let (ingress, egress) = (self.ingress_last.get(), self.egress_last.get());
        if ingress > egress { ingress } else { egress }
    }

    /// One packet came in and passed.
    #[inline(always)]
    pub fn count_ingress(&self, now: u64) {
        count(&self.ingress_packets);
        self.ingress_last.set(now);
    }

    /// One packet left.
    #[inline(always)]
    pub fn count_egress(&self, aside: Option<&Aside>, now: u64) {
        self.egress_last.set(now);
        if let Some(aside) = aside {
            count(&aside.egress_packets);
        }
    }
}

/// What a latch says to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latching {
    /// It is the one.
    Held,
    /// Nobody is yet.
    Free {
        /// What the slot holds instead: a latch of another generation.
        stale: u64,
    },
    /// It is another one.
    Refused,
}

impl Aside {
    /// One packet was dropped.
    #[inline(always)]
    pub fn count_dropped(&self) {
        count(&self.dropped_packets);
    }

    /// What the latch says to the source that `mine` stands for.
    #[inline(always)]
    pub fn look_at_latch(&self, mine: Latch) -> Latching {
        let found = self.latch.get();
        if found == mine.0 {
            Latching::Held
        } else if Latch(found).generation() == mine.generation() {
            Latching::Refused
        } else {
            Latching::Free { stale: found }
        }
    }
}

/// A plain read and write, not one atomic instruction: network cards keep a flow on one CPU, and where one does not, a lost count is
/// cheaper than a locked instruction for every packet.
#[inline(always)]
fn count(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

/// A reading of both halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields are documented in Slot and Aside")]
pub struct SlotCounts {
    pub ingress_packets: u64,
    pub egress_packets: u64,
    pub dropped_packets: u64,
    pub ingress_last: u64,
    pub egress_last: u64,
    pub due: u64,
    pub latch: u64,
}

impl SlotCounts {
    /// What lies in the two arrays.
    pub const fn of_words(slot: SlotWords, aside: AsideWords) -> Self {
        let [due, ingress_last, egress_last, ingress_packets] = slot;
        let [latch, egress_packets, dropped_packets] = aside;
        Self {
            ingress_packets,
            egress_packets,
            dropped_packets,
            ingress_last,
            egress_last,
            due,
            latch,
        }
    }

    /// What is to lie there.
    pub const fn words(&self) -> (SlotWords, AsideWords) {
        (
            [
                self.due,
                self.ingress_last,
                self.egress_last,
                self.ingress_packets,
            ],
            [self.latch, self.egress_packets, self.dropped_packets],
        )
    }
}

const _: () = {
    assert!(size_of::<Slot>() == size_of::<SlotWords>() && size_of::<Slot>() == 32);
    assert!(size_of::<Aside>() == size_of::<AsideWords>());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latch_is_its_generations() {
        let slot = Aside::default();
        let latch = |generation, token| Latch::new(generation, token);
        assert_eq!(slot.look_at_latch(latch(1, 0)), Latching::Free { stale: 0 });
        slot.latch.set(latch(1, 77).0);
        assert_eq!(slot.look_at_latch(latch(1, 77)), Latching::Held);
        assert_eq!(slot.look_at_latch(latch(1, 78)), Latching::Refused);
        let stale = latch(1, 77).0;
        assert_eq!(slot.look_at_latch(latch(2, 77)), Latching::Free { stale });
        assert_eq!(Latch::next_generation(u16::MAX), 1);
        assert_eq!(latch(9, u64::MAX).generation(), 9);
    }

    #[test]
    fn counts_are_read_as_they_are_written() {
        let slot = Slot::default();
        let aside = Aside::default();
        slot.count_ingress(5);
        slot.count_egress(Some(&aside), 7);
        slot.count_egress(Some(&aside), 8);
        slot.due.set(9);
        aside.count_dropped();
        aside.latch.set(11);
        assert_eq!(slot.last(), 8);
        // SAFETY: the halves are words, and the arrays of words have their size and alignment.
        let (words, others) = unsafe {
            (
                (&raw const slot).cast::<SlotWords>().read(),
                (&raw const aside).cast::<AsideWords>().read(),
            )
        };
        let counts = SlotCounts::of_words(words, others);
        assert_eq!(
            counts,
            SlotCounts {
                ingress_packets: 1,
                egress_packets: 2,
                dropped_packets: 1,
                ingress_last: 5,
                egress_last: 8,
                due: 9,
                latch: 11,
            }
        );
        assert_eq!(counts.words(), (words, others));
    }
}
