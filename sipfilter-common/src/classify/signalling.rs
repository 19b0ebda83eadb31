//! Rule 4: who may speak SIP to the PBX, and which of it the daemon gets to read.

use super::{FamilyTables, Finding, Tables};
use crate::{addr::Address, parse::Ip, reason::Reason, settings::Transport, value::ProviderRule};

#[inline(always)]
pub(super) fn judge_signalling<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
    transport: Transport,
) -> Finding {
    if allows(tables.provider(ip.source), transport) {
        signalling(ip, transport, Reason::Signalling)
    } else {
        Finding::plain(Reason::UnknownSource)
    }
}

#[inline(always)]
pub(super) fn allows(rule: Option<&ProviderRule>, transport: Transport) -> bool {
    rule.is_some_and(|rule| rule.allows(transport))
}

/// TLS passes without a copy: nobody here can read it.
#[inline(always)]
pub(super) fn signalling<A>(ip: &Ip<A>, transport: Transport, reason: Reason) -> Finding {
    match transport {
        Transport::Udp | Transport::Tcp => Finding::copied(reason, ip.start),
        Transport::Tls => Finding::plain(reason),
    }
}
