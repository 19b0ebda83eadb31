//! The short way: plain datagrams ([`crate::parse::Plain`]) that the rules decide by little. Media of calls and what floods consist of
//! are among them.
//!
//! It has no rules of its own; it asks those of [`super::ingress`] in their order. What would take more than a few look-ups it leaves to
//! them, so that it stays small: what a packet does not need would cost it nothing but registers, and these are few.
//!
//! Invariant: where it has a verdict, [`super::classify_ingress`] has the same, and would leave the same in the tables. Where it has none,
//! it has touched nothing.

use super::{
    FamilyTables, Finding, LocalEnd, Tables, Verdict,
    media::{Source, judge_met},
};
use crate::{
    addr::Address,
    parse::{Datagram, Plain, parse_plain},
    reader::Reader,
    settings::{Protects, Settings},
};

/// Judges a packet from outside, if that is quickly done.
#[inline(always)]
pub fn classify_plain<R: Reader, T: Tables>(reader: &R, tables: &T) -> Option<Verdict> {
    match parse_plain(reader)? {
        Plain::V4(datagram) => judge(reader, tables, &datagram),
        Plain::V6(datagram) => judge(reader, tables, &datagram),
    }
}

#[inline(always)]
fn judge<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    Datagram { ip, ports, payload }: &Datagram<A>,
) -> Option<Verdict>
where
    Settings: Protects<A>,
{
    let settings = tables.settings();
    let local = LocalEnd {
        address: ip.destination,
        at: settings.protected(ip.destination)?,
        port: ports.destination,
    };
    let place = tables.place(&local);
    if place.is_shut() != 0 {
        let may_signal = place.is_signalling() & tables.provider_hint(ip.source);
        return (may_signal == 0).then(|| Verdict::refusal(place, settings));
    }
    if !place.is_media() {
        return None;
    }
    let hole = tables.pinhole_of(place, &local)?;
    let reason = judge_met(reader, tables, &hole, Source::of(ip, ports), *payload);
    Some(Finding::plain(reason).under(settings))
}
