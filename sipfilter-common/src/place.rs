//! What is known of each port of the protected addresses, in a word that both sides write.
//!
//! It says nothing about a pinhole itself. Invariant: a word that is shut is right as long as nothing is written where it leads to or into the
//! port's provisional place; whoever writes there opens it afterwards, and whoever shuts it looks there again.

use crate::reason::Reason;

/// What is known of a port of a protected address: what datagrams to it are, whether anybody may be awaiting them, and where they find their
/// pinhole and slot. All in one word: nothing of it has to be read before the rest can be looked for, and user space changes it at once.
///
/// Each property is a bit that the programs go on with as a number. Asking which kind of port it is would be a branch, and in a flood of
/// several kinds one that the processor cannot foresee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Place(u64);

impl Place {
    /// A port that is none of our business, or of which nothing is known yet.
    pub const OTHER: Self = Self(0);
    /// A port for media without a pinhole, where there may be something else that lets a datagram in.
    pub const MEDIA: Self = Self(1 << Self::MEDIA_BIT);
    /// A port for SIP, where nothing but the sender does.
    pub const SIGNALLING: Self = Self(1 << Self::SIGNALLING_BIT | 1 << Self::SHUT_BIT);

    const SHUT_BIT: u32 = 63;
    const SIGNALLING_BIT: u32 = 62;
    const MEDIA_BIT: u32 = 61;
    const SLOT_BITS: u32 = 29;

    /// The same port, leading to these elements of the arrays.
    #[must_use]
    pub const fn leading_to(self, pinhole: u32, slot: u32) -> Self {
        let place = if self.is_media() { self.unshut() } else { self };
        Self(place.0 | (slot as u64) << 32 | (pinhole as u64 + 1))
    }

    /// The same port, where nothing of its own lets a datagram in.
    #[inline(always)]
    #[must_use]
    pub const fn shut(self) -> Self {
        Self(self.0 | 1 << Self::SHUT_BIT)
    }

    /// The same port, where something may.
    #[inline(always)]
    #[must_use]
    pub const fn unshut(self) -> Self {
        Self(self.0 & !(1 << Self::SHUT_BIT))
    }

    /// 1 where nothing of the port's own lets a datagram in, else 0.
    #[inline(always)]
    pub const fn is_shut(self) -> u32 {
        (self.0 >> Self::SHUT_BIT) as u32
    }

    /// 1 where datagrams are SIP, else 0.
    #[inline(always)]
    pub const fn is_signalling(self) -> u32 {
        (self.0 >> Self::SIGNALLING_BIT) as u32 & 1
    }

    /// Whether datagrams are media.
    #[inline(always)]
    pub const fn is_media(self) -> bool {
        self.0 >> Self::MEDIA_BIT & 1 != 0
    }

    /// Why a stranger's datagram is dropped here that nobody awaits.
    #[inline(always)]
    pub fn refusal(self) -> Reason {
        const REFUSALS: [Reason; 2] = [Reason::NoPinhole, Reason::UnknownSource];
        REFUSALS[self.is_signalling() as usize % REFUSALS.len()]
    }

    /// The pinhole's number, if there is one.
    #[inline(always)]
    pub const fn pinhole(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1)
    }

    /// The slot's.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> 32) as u32 & ((1 << Self::SLOT_BITS) - 1)
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_what_its_port_is_for() {
        for (place, reason, is_media, is_shut) in [
            (Place::MEDIA, Reason::NoPinhole, true, 0),
            (Place::SIGNALLING, Reason::UnknownSource, false, 1),
        ] {
            let changed = [
                (place, is_shut),
                (place.shut(), 1),
                (place.shut().unshut(), 0),
                (place.leading_to(7, 9), is_shut),
            ];
            for (place, is_shut) in changed {
                assert_eq!(place.refusal(), reason, "{place:?}");
                assert_eq!(place.is_media(), is_media, "{place:?}");
                assert_eq!(place.is_shut(), is_shut, "{place:?}");
            }
        }
    }

    #[test]
    fn a_place_leads_to_a_pinhole_and_its_slot_and_is_open_where_media_comes() {
        let last = (u32::MAX - 1, (1 << Place::SLOT_BITS) - 1);
        for (pinhole, slot) in [(0, 0), (7, 9), last] {
            for empty in [Place::MEDIA, Place::MEDIA.shut(), Place::SIGNALLING] {
                assert_eq!(empty.pinhole(), None);
                let place = empty.leading_to(pinhole, slot);
                assert_eq!((place.pinhole(), place.slot()), (Some(pinhole), slot));
                assert_eq!(place.is_signalling(), empty.is_signalling());
            }
            assert_eq!(Place::MEDIA.shut().leading_to(pinhole, slot).is_shut(), 0);
        }
    }
}
