//! IP packets around payloads, for targets that need some that are whole.

use std::net::{IpAddr, SocketAddr};

/// A UDP datagram in an IP packet; both ends are of one family. Nobody here checks checksums.
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    // A payload that does not fit is cut: the targets promise nothing about what cannot be sent.
    let payload = &payload[..payload.len().min(60_000)];
    let length = payload.len() as u16 + 8;
    let mut packet = Vec::with_capacity(payload.len() + 48);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend((length + 20).to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([17, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => unreachable!("the targets choose both addresses from one family"),
    }
    packet.extend(source.port().to_be_bytes());
    packet.extend(destination.port().to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend_from_slice(payload);
    packet
}

/// A part of an IP packet's payload, at its place; the whole one if it begins at 0 and there is no more.
pub fn part(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    offset: usize,
    more: bool,
    bytes: &[u8],
) -> Vec<u8> {
    let length = bytes.len() as u16;
    let is_whole = offset == 0 && !more;
    let mut packet = Vec::with_capacity(bytes.len() + 48);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let place = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            packet.extend([0x45, 0]);
            packet.extend((length + 20).to_be_bytes());
            packet.extend([0, 9]);
            packet.extend(place.to_be_bytes());
            packet.extend([64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = if is_whole { 0 } else { 8 };
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((length + header).to_be_bytes());
            packet.extend([if is_whole { protocol } else { 44 }, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            if !is_whole {
                packet.extend([protocol, 0]);
                packet.extend((offset as u16 | u16::from(more)).to_be_bytes());
                packet.extend([0, 0, 0, 9]);
            }
        }
        _ => unreachable!("the targets choose both addresses from one family"),
    }
    packet.extend_from_slice(bytes);
    packet
}
