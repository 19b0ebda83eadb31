//! The packet policy. One reading of a packet against one set of tables gives one [`Verdict`].
//!
//! The rules stand in the order in which they are tried. Nothing here counts verdicts or copies packets: the shell around it does,
//! from what the verdict says. What it does touch, through [`Tables`], is the state that the policy itself rests on: a pinhole's slot
//! and the memory of first fragments.

mod egress;
mod flow;
mod ingress;
mod media;
mod plain;
pub mod provisional;
mod scope;
mod signalling;

use core::num::NonZero;

use crate::{
    addr::{Address, Ipv4, Ipv6},
    budget::Class,
    gate::Hole,
    key::{FlowKey, FragmentKey, PortPlace, SourceKey},
    place::Place,
    reason::{Action, Reason},
    settings::{Protected, Settings},
    slot::Aside,
    value::{AllowList, Budget, MediaLimits, MediaPorts, ProviderRule, Provisional},
};

use self::provisional::Opening;

pub use self::{
    egress::classify_egress, flow::REPLY_LIFETIME, ingress::classify_ingress, media::is_expired,
    plain::classify_plain,
};

/// A protected address and a port of it.
#[derive(Debug, Clone, Copy)]
pub struct LocalEnd<A> {
    /// The address.
    pub address: A,
    /// Its place among the protected ones.
    pub at: Protected,
    /// The port.
    pub port: u16,
}

/// The tables of one address family.
pub trait FamilyTables<A: Address> {
    /// What is known of a port of a protected address.
    fn place(&self, local: &LocalEnd<A>) -> Place;

    /// The pinhole that the place on this address and port leads to.
    fn pinhole_of(&self, place: Place, local: &LocalEnd<A>) -> Option<impl Hole<A>>;

    /// The pinhole on a protected address and port.
    #[inline(always)]
    fn pinhole(&self, local: &LocalEnd<A>) -> Option<impl Hole<A>> {
        self.pinhole_of(self.place(local), local)
    }

    /// 0 where [`Self::provider`] has no rule for the address, and 1 where it may have one: a cheap answer.
    fn provider_hint(&self, address: A) -> u32;

    /// The rule of the longest signalling prefix that holds the address.
    fn provider(&self, address: A) -> Option<&ProviderRule>;

    /// What strict scope lets in from the longest prefix that holds the address.
    fn allowed(&self, address: A) -> Option<&AllowList>;

    /// Where media goes to and comes from, by the longest media prefix that holds the address.
    fn media_limits(&self, address: A) -> Option<&MediaLimits>;

    /// The ports that a provider's media comes from, if it comes from this address.
    fn provider_media(&self, provider: u16, address: A) -> Option<&MediaPorts>;

    /// When the protected host last sent on this flow, in nanoseconds of the monotonic clock.
    fn flow(&self, key: &FlowKey<A>) -> Option<u64>;

    /// Remembers that it sent now.
    fn remember_flow(&self, key: &FlowKey<A>, now: u64);
}

/// Everything that the policy looks up.
pub trait Tables: FamilyTables<Ipv4> + FamilyTables<Ipv6> {
    /// The load-time constants.
    fn settings(&self) -> &Settings;

    /// Nanoseconds of the monotonic clock; a few milliseconds of imprecision do no harm.
    fn now(&self) -> u64;

    /// Puts `new` into a latch if `stale` is still there, in one step for all CPUs. Tells what was there.
    fn exchange_latch(&self, aside: &Aside, stale: u64, new: u64) -> u64;

    /// What may come to a port before the daemon has read of it.
    fn provisional(&self, place: PortPlace) -> Provisional;

    /// Lets media in there.
    fn open_provisional(&self, place: PortPlace, provisional: Provisional);

    /// Takes note of what a port without a pinhole is for, and that nothing of its own lets a packet in, until [`Self::open_provisional`] is
    /// called or a pinhole is there: so that it need not be asked for every packet.
    fn shut(&self, place: PortPlace, known: Place);

    /// Puts `new` there if `stale` is still what is there, in one step for all CPUs. Tells what was there.
    fn exchange_provisional(
        &self,
        place: PortPlace,
        stale: Provisional,
        new: Provisional,
    ) -> Provisional;

    /// The same number, of which the verifier knows nothing any more: it would follow each value that it can have by itself to wherever
    /// the number is used.
    fn forget(&self, number: u32) -> u32;

    /// Takes one packet from a source's budget, or says that there is nothing left of it.
    fn spend(&self, source: &SourceKey, class: Class, budget: Budget) -> bool;

    /// Remembers what became of a datagram's first fragment.
    fn remember_fragment(&self, key: &FragmentKey, fate: FragmentFate);

    /// What became of the first fragment, if it was seen.
    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentFate>;
}

/// What later fragments inherit from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FragmentFate {
    /// Drop them.
    Drop = 0,
    /// Pass them.
    Pass = 1,
    /// Pass them and copy them to the daemon: parts of [`Class::Begins`].
    CopyBegins = 2,
    /// The same for [`Class::Continues`].
    CopyContinues = 3,
}

impl FragmentFate {
    /// From its number in the map; an unknown number is no fate at all.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Drop),
            1 => Some(Self::Pass),
            2 => Some(Self::CopyBegins),
            3 => Some(Self::CopyContinues),
            _ => None,
        }
    }
}

/// What to do with a packet, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that decided.
    pub reason: Reason,
    /// What the rule calls for, whether or not it is enforced: it follows from the reason, which shall not have to be asked.
    pub ruling: Action,
    /// What becomes of the packet. Where nothing is enforced it passes, whatever the rule calls for.
    pub action: Action,
    /// What the copy is worth where there is no room for all of them.
    pub class: Class,
    copy_from: Option<NonZero<usize>>,
}

impl Verdict {
    /// The offset of the IP header, if the packet is to be copied to the daemon.
    #[inline(always)]
    pub const fn copy_from(&self) -> Option<usize> {
        match self.copy_from {
            Some(start) => Some(start.get()),
            None => None,
        }
    }
}

/// What the rules say of a packet, before it is asked whether they are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Finding {
    reason: Reason,
    // An Ethernet header lies before every IP header, so that offset is never 0. With a plain number the compiler would carry a
    // tag and an undefined value about, and verifiers before 6.3 refuse to spill the latter.
    copy_from: Option<NonZero<usize>>,
    class: Class,
    opening: Opening,
}

impl Finding {
    #[inline(always)]
    const fn plain(reason: Reason) -> Self {
        Self {
            reason,
            copy_from: None,
            class: Class::Begins,
            opening: Opening::NONE,
        }
    }

    #[inline(always)]
    const fn copied(reason: Reason, start: usize, class: Class) -> Self {
        Self {
            reason,
            copy_from: NonZero::new(start),
            class,
            opening: Opening::NONE,
        }
    }

    #[inline(always)]
    const fn opening(self, opening: Opening) -> Self {
        Self { opening, ..self }
    }

    /// The only place where a reason becomes an action.
    #[inline(always)]
    fn under(self, settings: &Settings) -> Verdict {
        Verdict {
            reason: self.reason,
            ruling: self.reason.action(),
            action: settings.modes().action(self.reason),
            copy_from: self.copy_from,
            class: self.class,
        }
    }
}

impl Verdict {
    /// What becomes of a datagram that nobody awaits. Which of the two reasons it is, is not asked ([`Place`]).
    #[inline(always)]
    fn refusal(place: Place, settings: &Settings) -> Self {
        const _: () = {
            assert!(matches!(Reason::NoPinhole.action(), Action::Drop));
            assert!(matches!(Reason::UnknownSource.action(), Action::Drop));
        };
        Self {
            reason: place.refusal(),
            ..Finding::plain(Reason::NoPinhole).under(settings)
        }
    }
}
