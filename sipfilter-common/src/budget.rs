//! How much signalling one source may send: a rate and a burst for each kind of packet, and what of them is spent.
//!
//! The rate limit itself is [`Budget`]. Nothing here finds the source or reads the clock. The kernel writes what is spent, user space what there is to spend.

use core::cell::Cell;

use crate::value::Budget;

/// What kind of signalling a packet is, as far as its first bytes tell. Each kind has a budget of its own, so that a flood of one
/// leaves the others alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A datagram with a request that can begin something (INVITE, REGISTER, OPTIONS, …), or with anything unknown.
    Begins,
    /// A datagram with a response, or with a request that belongs to something begun (RFC 3261 §12.2, §9).
    Continues,
    /// A segment of a TCP connection, TLS included. Its messages come in order or not at all, so that there is nothing to prefer among
    /// them; and a limit only slows the connection down.
    Segment,
}

impl Class {
    /// What a datagram that begins with these bytes is. Four of them tell the methods apart.
    #[inline(always)]
    pub const fn of_datagram(first: Option<[u8; 4]>) -> Self {
        let Some(first) = first else {
            return Self::Begins;
        };
        match &first {
            b"SIP/" | b"ACK " | b"BYE " | b"CANC" | b"PRAC" | b"UPDA" | b"INFO" | b"NOTI"
            | b"REFE" => Self::Continues,
            _ => Self::Begins,
        }
    }
}

/// The budgets of one source, by [`Class`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Budgets {
    /// For [`Class::Begins`].
    pub begins: Budget,
    /// For [`Class::Continues`].
    pub continues: Budget,
    /// For [`Class::Segment`].
    pub segments: Budget,
}

impl Budgets {
    /// The budget of one class.
    #[inline(always)]
    pub const fn of(&self, class: Class) -> Budget {
        match class {
            Class::Begins => self.begins,
            Class::Continues => self.continues,
            Class::Segment => self.segments,
        }
    }
}

/// What a source has spent of one budget. User space reads a [`Spending`] in its place.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Spent {
    /// The theoretical arrival time of the next packet ([`Budget`]).
    pub due: Cell<u64>,
    /// Packets that it did not suffice for.
    pub refused: Cell<u64>,
}

impl Spent {
    /// Takes one packet from the budget, or counts it as refused. Where CPUs race for one source, each of them may take the same
    /// packet's worth: a few too many are let through, and no packet pays for a locked instruction.
    #[inline(always)]
    fn take(&self, budget: Budget, now: u64) -> bool {
        match budget.spend(self.due.get(), now) {
            Some(due) => {
                self.due.set(due);
                true
            }
            None => {
                self.refused.set(self.refused.get().wrapping_add(1));
                false
            }
        }
    }
}

/// What one source has spent, as the kernel writes it. User space reads a [`SourceSpending`] in its place.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct SourceSpent {
    begins: Spent,
    continues: Spent,
    segments: Spent,
}

impl SourceSpent {
    /// Whether the budget suffices for one more packet, which is taken from it.
    #[inline(always)]
    pub fn take(&self, class: Class, budget: Budget, now: u64) -> bool {
        match class {
            Class::Begins => self.begins.take(budget, now),
            Class::Continues => self.continues.take(budget, now),
            Class::Segment => self.segments.take(budget, now),
        }
    }

    /// The same by value.
    pub fn spending(&self) -> SourceSpending {
        let read = |spent: &Spent| Spending {
            due: spent.due.get(),
            refused: spent.refused.get(),
        };
        SourceSpending {
            begins: read(&self.begins),
            continues: read(&self.continues),
            segments: read(&self.segments),
        }
    }
}

/// A reading of a [`Spent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are Spent's, documented there")]
pub struct Spending {
    pub due: u64,
    pub refused: u64,
}

/// A reading of a [`SourceSpent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the fields are SourceSpent's, documented there"
)]
pub struct SourceSpending {
    pub begins: Spending,
    pub continues: Spending,
    pub segments: Spending,
}

impl SourceSpending {
    /// Packets refused, of all classes.
    pub const fn refused(&self) -> u64 {
        self.begins
            .refused
            .wrapping_add(self.continues.refused)
            .wrapping_add(self.segments.refused)
    }
}

const _: () = {
    assert!(size_of::<Budgets>() == 24);
    assert!(size_of::<SourceSpent>() == 48 && size_of::<SourceSpending>() == 48);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_budget_and_what_exceeds_it_is_counted() {
        let budget = Budget::new(1_000, 5_500_000);
        let source = SourceSpent::default();
        let passed = |class, now, packets: usize| {
            (0..packets)
                .filter(|_| source.take(class, budget, now))
                .count()
        };
        let start = 1_000_000_000;
        assert_eq!(passed(Class::Begins, start, 100), 6, "the burst");
        assert_eq!(passed(Class::Begins, start + 3_000_000, 100), 3, "the rate");
        assert_eq!(passed(Class::Continues, start, 2), 2, "untouched so far");
        assert_eq!(passed(Class::Segment, start, 100), 6);
        assert_eq!(source.begins.refused.get(), 94 + 97);
        assert_eq!(source.continues.refused.get(), 0);
        assert_eq!(source.segments.refused.get(), 94);
    }

    #[test]
    fn the_first_bytes_tell_what_a_datagram_is() {
        #[track_caller]
        fn check(datagram: &str, expect: Class) {
            let first = datagram.as_bytes().first_chunk().copied();
            assert_eq!(Class::of_datagram(first), expect, "{datagram:?}");
        }
        for method in [
            "INVITE",
            "REGISTER",
            "SUBSCRIBE",
            "OPTIONS",
            "MESSAGE",
            "PUBLISH",
            "invite",
            "ACKNOWLEDGE",
            "",
            "\r\n\r\n",
            "\0\0\0\0",
        ] {
            check(method, Class::Begins);
        }
        for message in [
            "SIP/2.0 200 OK",
            "ACK sip:",
            "BYE sip:",
            "CANCEL sip:",
            "PRACK sip:",
            "UPDATE sip:",
            "INFO sip:",
            "NOTIFY sip:",
            "REFER sip:",
        ] {
            check(message, Class::Continues);
        }
    }
}
