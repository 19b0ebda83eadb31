//! The short way: plain datagrams ([`crate::parse::Plain`]) that the rules decide by little. Media of calls and what floods consist of
//! are among them.
//!
//! It has no rules of its own; it asks those of [`super::ingress`] in their order. What would take more than a few look-ups it leaves to
//! them, so that it stays small: what a packet does not need would cost it nothing but registers, and these are few.
//!
//! Invariant: where it has a verdict, [`super::classify_ingress`] has the same, and would leave the same in the tables. Where it has none,
//! it has touched nothing.

use super::{FamilyTables, Finding, Tables, Verdict, media::judge_known_media};
use crate::{
    addr::Address,
    parse::{Datagram, Plain, parse_plain},
    reader::Reader,
    reason::Reason,
    settings::{Protects, Settings},
};

/// Judges a packet from outside, if that is quickly done.
#[inline(always)]
pub fn classify_plain<R: Reader, T: Tables>(reader: &R, tables: &T) -> Option<Verdict> {
    let reason = match parse_plain(reader)? {
        Plain::V4(datagram) => judge(reader, tables, &datagram),
        Plain::V6(datagram) => judge(reader, tables, &datagram),
    }?;
    Some(Finding::plain(reason).under(tables.settings()))
}

#[inline(always)]
fn judge<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    Datagram { ip, ports, payload }: &Datagram<A>,
) -> Option<Reason>
where
    Settings: Protects<A>,
{
    let settings = tables.settings();
    let at = settings.protected(ip.destination)?;
    if settings.pbx.is_udp(ports.destination) {
        return (!tables.may_be_provider(ip.source)).then_some(Reason::UnknownSource);
    }
    if !settings.is_media_port(ports.destination) {
        return None;
    }
    judge_known_media(reader, tables, ip, at, ports, *payload)
}
