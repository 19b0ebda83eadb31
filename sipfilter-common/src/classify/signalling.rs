//! Rule 4: who may speak SIP to the PBX, how much of it, and which of it the daemon gets to read.

use super::{FamilyTables, Finding, Tables};
use crate::{
    addr::Address,
    budget::Class,
    key::SourceKey,
    parse::Ip,
    reader::Reader,
    reason::Reason,
    settings::{Mode, Transport},
    value::ProviderRule,
};

/// A packet to one of the PBX's SIP ports.
#[inline(always)]
pub(super) fn judge_signalling<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
    transport: Transport,
    class: impl FnOnce() -> Class,
) -> Finding {
    match tables.provider(ip.source) {
        Some(rule) if rule.allows(transport) => judge_amount(tables, ip, rule, transport, class()),
        _ => Finding::plain(Reason::UnknownSource),
    }
}

/// Signalling from a provider: is it within the source's budget? Behind this, TLS passes without a copy: nobody here can read it.
#[inline(always)]
pub(super) fn judge_amount<A: Address, T: Tables>(
    tables: &T,
    ip: &Ip<A>,
    rule: &ProviderRule,
    transport: Transport,
    class: Class,
) -> Finding {
    if !is_affordable(tables, ip, rule, class) {
        return match transport {
            Transport::Udp | Transport::Tcp => beyond(tables, ip, Reason::SignallingLimited),
            Transport::Tls => Finding::plain(Reason::SignallingLimited),
        };
    }
    match transport {
        Transport::Udp | Transport::Tcp => Finding::copied(Reason::Signalling, ip.start, class),
        Transport::Tls => Finding::plain(Reason::Signalling),
    }
}

/// A later fragment of signalling, paid for like the first one.
#[inline(always)]
pub(super) fn judge_fragment<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
    class: Class,
) -> Finding {
    match tables.provider(ip.source) {
        Some(rule) if is_affordable(tables, ip, rule, class) => {
            Finding::copied(Reason::Fragment, ip.start, class)
        }
        Some(_) => beyond(tables, ip, Reason::SignallingLimited),
        None => Finding::plain(Reason::StrayFragment),
    }
}

/// A later fragment of a datagram whose first one was dropped, or would have been.
#[inline(always)]
pub(super) fn judge_rest<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
) -> Finding {
    if is_observing(tables) && tables.provider(ip.source).is_some() {
        beyond(tables, ip, Reason::StrayFragment)
    } else {
        Finding::plain(Reason::StrayFragment)
    }
}

/// A provider's signalling that is not let in. Where nothing is enforced it arrives all the same, and the daemon has to know of the calls
/// that it makes: as far as there is room, and whatever it is, behind everything that is let in.
#[inline(always)]
fn beyond<A: Address, T: Tables>(tables: &T, ip: &Ip<A>, reason: Reason) -> Finding {
    if is_observing(tables) {
        Finding::copied(reason, ip.start, Class::Begins)
    } else {
        Finding::plain(reason)
    }
}

#[inline(always)]
fn is_observing<T: Tables>(tables: &T) -> bool {
    tables.settings().modes().has(Mode::Observe)
}

/// What the datagram with this payload is.
#[inline(always)]
pub(super) fn class_of_datagram<R: Reader>(
    reader: &R,
    (payload, payload_end): (usize, usize),
) -> Class {
    let first = if payload + 4 <= payload_end {
        reader.bytes(payload)
    } else {
        None
    };
    Class::of_datagram(first)
}

#[inline(always)]
pub(super) fn allows(rule: Option<&ProviderRule>, transport: Transport) -> bool {
    rule.is_some_and(|rule| rule.allows(transport))
}

/// What the PBX sends, which nobody limits.
#[inline(always)]
pub(super) fn leaving<A>(ip: &Ip<A>, transport: Transport) -> Finding {
    match transport {
        Transport::Udp | Transport::Tcp => {
            Finding::copied(Reason::EgressSignalling, ip.start, Class::Continues)
        }
        Transport::Tls => Finding::plain(Reason::EgressSignalling),
    }
}

#[inline(always)]
fn is_affordable<A: Address, T: Tables>(
    tables: &T,
    ip: &Ip<A>,
    rule: &ProviderRule,
    class: Class,
) -> bool {
    let source = SourceKey {
        sender: ip.source.sender(),
        provider: u32::from(rule.provider),
    };
    tables.spend(&source, class, rule.budgets.of(class))
}
