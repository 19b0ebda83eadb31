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
