//! Why a packet passed or was dropped: one enum whose number is the counter's index, the metric's label and the text.

/// The outcome for one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// On to the network stack.
    Pass,
    /// Gone.
    Drop,
}

macro_rules! reasons {
    ($($(#[doc = $text:literal])* $variant:ident = $number:literal, $name:literal, $action:ident;)*) => {
        /// The rule of the packet policy that decided. Numbers are part of the ABI: append, never reorder.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $text])* $variant = $number,)*
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name: metric label, JSON value and table text.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the rule says, in a sentence.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => concat!($($text),*).trim_ascii(),)* }
            }

            /// The reason of a number.
            pub fn from_number(number: u16) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }

            /// What the rule calls for; [`crate::settings::Modes`] says whether it is done.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)* }
            }
        }
    };
}

reasons! {
    /// Not an IP packet (ARP, LLDP, …): none of our business.
    NotIp = 0, "not_ip", Pass;
    /// An IP packet that is cut short or contradicts itself.
    Malformed = 1, "malformed", Drop;
    /// To an address that is not protected.
    NotProtected = 2, "not_protected", Pass;
    /// Neither UDP nor TCP (ICMP, ESP, …) to a protected address.
    OtherProtocol = 3, "other_protocol", Pass;
    /// UDP or TCP to a protected address, outside signalling and media.
    OtherTraffic = 4, "other_traffic", Pass;
    /// A later fragment of a datagram whose first fragment passed, or from a provider's signalling address.
    Fragment = 5, "fragment", Pass;
    /// A later fragment of a datagram whose first fragment was dropped or never seen.
    StrayFragment = 6, "stray_fragment", Drop;
    /// SIP from a provider's signalling address.
    Signalling = 7, "signalling", Pass;
    /// SIP from anybody else, or over a transport that the provider does not use.
    UnknownSource = 8, "unknown_source", Drop;
    /// Media of a live call.
    Media = 9, "media", Pass;
    /// To a media port that no live call has negotiated.
    NoPinhole = 10, "no_pinhole", Drop;
    /// To a pinhole that was idle for too long.
    PinholeExpired = 11, "pinhole_expired", Drop;
    /// To a pinhole, from an address or port that was not negotiated.
    WrongSource = 12, "wrong_source", Drop;
    /// To a pinhole, from the right source, but not what was negotiated (RTP version 2; STUN, DTLS, UDPTL where they were).
    NotMedia = 13, "not_media", Drop;
    /// Leaving: SIP to a provider.
    EgressSignalling = 14, "egress_signalling", Pass;
    /// Leaving: media from a pinhole's address and port.
    EgressMedia = 15, "egress_media", Pass;
    /// Leaving: everything else.
    EgressOther = 16, "egress_other", Pass;
    /// In strict scope: neither voice, nor on the allow-list, nor part of what goes on already.
    OutOfScope = 17, "out_of_scope", Drop;
    /// To a pinhole, from the right source, but RTP of a payload type that was not negotiated, or RTCP where none belongs.
    PayloadType = 18, "payload_type", Drop;
    /// To a pinhole, and more than its stream can need.
    RateLimited = 19, "rate_limited", Drop;
    /// The answer to a packet that the protected host sent, where no pinhole covers it: from exactly where that went, soon after.
    Reply = 20, "reply", Pass;
    /// Leaving: SIP to somebody who is no provider, or over a transport that the provider does not use. Dropped only where egress is
    /// enforced.
    EgressForeignSignalling = 21, "egress_foreign_signalling", Drop;
    /// Leaving: from a media port to where neither its pinhole nor any provider's media limits reach. Dropped only where egress is enforced.
    EgressForeignMedia = 22, "egress_foreign_media", Drop;
    /// Leaving: claims to be the PBX's, but came in from outside. Dropped only where egress is enforced.
    EgressForged = 23, "egress_forged", Drop;
    /// SIP from a provider's signalling address that sends more than its budget.
    SignallingLimited = 24, "signalling_limited", Drop;
    /// Media to a port that the PBX's SDP named a moment ago, before the daemon has read it: from within that provider's media limits.
    Provisional = 25, "provisional", Pass;
}

macro_rules! notes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// What happened besides the verdict, counted behind the reasons.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Note {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Note {
            /// Every note, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

notes! {
    /// A signalling packet was copied to the daemon.
    Copied = 0, "copied";
    /// A copy was longer than the ring buffer takes and lost its end.
    CopyTruncated = 1, "copy_truncated";
    /// A copy of a response, of a request within a dialog or of a TCP segment did not fit into the ring buffer.
    CopyLost = 2, "copy_lost";
    /// A copy of a request that begins something was left out, because the ring buffer was more than half full.
    CopyShed = 3, "copy_shed";
    /// A copy of what the PBX sent did not fit into the ring buffer.
    EgressCopyLost = 4, "egress_copy_lost";
}

impl Reason {
    /// Whether the rule decided by a pinhole that was where the packet went to, or came from on its way out.
    pub const fn met_pinhole(self) -> bool {
        matches!(
            self,
            Self::Media
                | Self::PinholeExpired
                | Self::WrongSource
                | Self::NotMedia
                | Self::PayloadType
                | Self::RateLimited
                | Self::EgressMedia
        )
    }
}

/// An index into the counter array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Packets by verdict: each packet is counted in exactly one of these.
    Reason(Reason),
    /// Anything else.
    Note(Note),
}

/// Places reserved for reasons, so that a new one moves no note.
pub const REASONS: u32 = 48;

/// The length of the counter array.
pub const COUNTERS: u32 = 64;

impl Counter {
    /// Every counter.
    pub fn all() -> impl Iterator<Item = Self> {
        Reason::ALL
            .iter()
            .map(|&reason| Self::Reason(reason))
            .chain(Note::ALL.iter().map(|&note| Self::Note(note)))
    }

    /// Its place in the array.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Reason(reason) => reason as u32,
            Self::Note(note) => REASONS + note as u32,
        }
    }

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reason(reason) => reason.name(),
            Self::Note(note) => note.name(),
        }
    }
}

const _: () = {
    assert!(Reason::ALL.len() <= REASONS as usize);
    assert!(REASONS as usize + Note::ALL.len() <= COUNTERS as usize);
    assert!(COUNTERS.is_power_of_two());
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_dense_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
        let names: BTreeSet<_> = Counter::all().map(Counter::name).collect();
        let places: BTreeSet<_> = Counter::all().map(Counter::index).collect();
        assert_eq!(
            (names.len(), places.len()),
            (Counter::all().count(), Counter::all().count())
        );
    }
}
