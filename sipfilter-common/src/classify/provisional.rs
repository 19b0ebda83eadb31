//! Provisional places: what the PBX's SDP names may receive media from the moment in which it leaves, until the daemon has read it.
//!
//! A provider that is near has the PBX's answer, and sends, before any program in user space can have opened a pinhole. So the program
//! that sees the answer leave notes its ports for a fifth of a second and a few packets, for that provider's media alone. It reads no
//! more of the message than that; the daemon does, and then opens a pinhole or takes the note back.
//!
//! Invariant: only a packet of the PBX's own, from a protected address to a provider's signalling address, opens a place; nothing
//! extends it, and where a pinhole is, a place says nothing.

use super::{FamilyTables, LocalEnd, Tables};
use crate::{
    addr::Address,
    key::PortPlace,
    parse::{Fragment, Ip, Malformed, Network, Ports, TCP, UDP, parse_ipv4, parse_ipv6, parse_raw},
    place::Place,
    reader::Reader,
    sdp_scan::{BLOCK, MAX_BLOCKS, Scan},
    settings::{Mode, Settings},
    value::{ProviderRule, Provisional, Shapes},
};

/// A message that leaves and may open places: what of it is to be scanned, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    /// Where the first block begins.
    from: u32,
    /// Blocks to scan; 0 if nothing may be opened.
    blocks: u32,
    /// The protected address's number.
    address: u32,
    provider: u32,
}

impl Opening {
    pub(super) const NONE: Self = Self {
        from: 0,
        blocks: 0,
        address: 0,
        provider: 0,
    };
}

/// Whether a message that leaves for a provider may open places.
#[inline(always)]
pub(super) fn opening<A: Address, R: Reader, T: Tables>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    rule: &ProviderRule,
) -> Opening {
    let settings = tables.settings();
    if !settings.modes().has(Mode::Provisional) {
        return Opening::NONE;
    }
    let (Some((from, blocks)), Some(address)) = (
        to_scan(reader, ip, rule.opens_on_offer()),
        ip.source.index_in(settings),
    ) else {
        return Opening::NONE;
    };
    Opening {
        from: from as u32,
        blocks: blocks as u32,
        address: tables.forget(address),
        provider: u32::from(rule.provider),
    }
}

/// Opens what a message names.
#[inline(always)]
pub(super) fn open<R: Reader, T: Tables>(reader: &R, tables: &T, opening: &Opening) {
    if opening.blocks == 0 {
        return;
    }
    let mut scan = Scan::default();
    reader.scan(opening.from as usize, opening.blocks as usize, &mut scan);
    let provisional = Provisional::new(tables.now(), opening.provider as u16);
    let rtp = &tables.settings().rtp;
    for port in scan.ports() {
        // RTCP goes to the next port (RFC 3550 §11).
        for port in [port, port.wrapping_add(1)] {
            if port > 1 && rtp.contains(port) {
                tables.open_provisional(PortPlace::new(opening.address, port), provisional);
            }
        }
    }
}

/// What of a message is to be scanned, if it is one that may carry SDP of its sender's that takes effect: where, and how many blocks.
///
/// In an answer, or in a response or acknowledgement that carries an offer, the sender is ready for media; in an INVITE or UPDATE it
/// is for early media alone.
#[inline(always)]
fn to_scan<A: Address, R: Reader>(
    reader: &R,
    ip: &Ip<A>,
    with_offers: bool,
) -> Option<(usize, usize)> {
    if ip.fragment != Fragment::Whole {
        return None;
    }
    let (start, end) = match ip.protocol {
        UDP => ip.udp_payload(reader).ok()?,
        TCP => ip.tcp_payload(reader).ok()?,
        _ => return None,
    };
    // What stands before the last whole blocks is the message's head. A head alone is longer than a block.
    if start + BLOCK > end {
        return None;
    }
    let [w0, w1, class]: [u32; 3] = reader.words(start)?;
    let is_response =
        w0 == word(b"SIP/") && w1 == word(b"2.0 ") && matches!(class.to_ne_bytes()[0], b'1' | b'2');
    let is_request = w0 == word(b"ACK ") || w0 == word(b"PRAC");
    let is_offer = with_offers && (w0 == word(b"INVI") || w0 == word(b"UPDA"));
    if !is_response && !is_request && !is_offer {
        return None;
    }
    let whole = (end - start) / BLOCK;
    let blocks = if whole > MAX_BLOCKS {
        MAX_BLOCKS
    } else {
        whole
    };
    Some((end - blocks * BLOCK, blocks))
}

#[inline(always)]
const fn word(text: &[u8; 4]) -> u32 {
    u32::from_ne_bytes(*text)
}

/// The kinds that may pass without knowing what was negotiated.
const SHAPES: Shapes = Shapes::RTP.with(Shapes::STUN).with(Shapes::DTLS);
/// The shortest of them: an RTCP header with a source (RFC 3550 §6.1).
const LEAST: usize = 8;
/// How often a place is looked at again after another CPU has changed it meanwhile.
const TRIES: usize = 4;

/// The number of a protected address's port.
#[inline(always)]
pub(super) fn place_of<A: Address, T: Tables>(tables: &T, local: &LocalEnd<A>) -> PortPlace {
    let address = tables.forget(A::number(tables.settings(), local.at));
    PortPlace::new(address, local.port)
}

/// What is there for a port.
#[inline(always)]
pub(super) fn found<A: Address, T: Tables>(tables: &T, local: &LocalEnd<A>) -> Provisional {
    let settings = tables.settings();
    match settings.modes().has(Mode::Provisional) && settings.rtp.contains(local.port) {
        true => tables.provisional(place_of(tables, local)),
        false => Provisional::CLOSED,
    }
}

/// Whether a packet to a media port without a pinhole may pass all the same, by what was [`found`] there. It is one of the few that do.
#[inline(always)]
pub(super) fn admits<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
    local: &LocalEnd<A>,
    mut found: Provisional,
    ports: &Ports,
    (start, end): (usize, usize),
) -> bool {
    let place = place_of(tables, local);
    if !found.is_open(tables.now()) {
        if !tables.settings().modes().has(Mode::Replies) {
            tables.shut(place, Place::MEDIA);
        }
        return false;
    }
    if start + LEAST > end {
        return false;
    }
    let has_shape = reader
        .byte(start)
        .is_some_and(|first| SHAPES.admits(Shapes::of(first)));
    let is_providers = tables
        .provider_media(found.provider(), ip.source)
        .is_some_and(|media| media.contains(ports.source));
    if !has_shape || !is_providers {
        return false;
    }
    let provider = found.provider();
    for _ in 0..TRIES {
        let Some(less) = found.less_one() else {
            return false;
        };
        let now_there = tables.exchange_provisional(place, found, less);
        // Revoked at this moment, with the pinhole in its place or not: the packet was here before.
        if now_there == found || now_there == Provisional::CLOSED {
            return true;
        }
        // Opened for somebody else meanwhile.
        if now_there.provider() != provider {
            return false;
        }
        found = now_there;
    }
    false
}

/// The places that an IP packet of the PBX's own may have opened: those that whoever has read it closes again. `opened` is called for
/// each.
pub fn for_each_place(packet: &[u8], settings: &Settings, opened: impl FnMut(PortPlace)) {
    if !settings.modes().has(Mode::Provisional) {
        return;
    }
    let network = parse_raw(&packet);
    let _: Result<(), Malformed> = match network {
        Ok(Network::Ipv4(start)) => {
            parse_ipv4(&packet, start).map(|ip| places_of(packet, settings, &ip, opened))
        }
        Ok(Network::Ipv6(start)) => {
            parse_ipv6(&packet, start).map(|ip| places_of(packet, settings, &ip, opened))
        }
        _ => Ok(()),
    };
}

fn places_of<A: Address>(
    packet: &[u8],
    settings: &Settings,
    ip: &Ip<A>,
    mut opened: impl FnMut(PortPlace),
) {
    let (Some((from, blocks)), Some(address)) =
        (to_scan(&packet, ip, true), ip.source.index_in(settings))
    else {
        return;
    };
    let mut scan = Scan::default();
    packet.scan(from, blocks, &mut scan);
    for port in scan.ports() {
        for port in [port, port.wrapping_add(1)] {
            if port > 1 && settings.rtp.contains(port) {
                opened(PortPlace::new(address, port));
            }
        }
    }
}
