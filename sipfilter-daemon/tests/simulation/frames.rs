//! Ethernet frames with IP and UDP or TCP, and what of them a reader needs. Nobody here checks checksums.

use std::net::{IpAddr, SocketAddr};

/// How long the Ethernet header is.
pub const ETHERNET: usize = 14;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// The header fields of a TCP segment that matter here (RFC 9293 §3.1).
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpHeader {
    pub sequence: u32,
    pub acknowledgment: Option<u32>,
    pub syn: bool,
    pub rst: bool,
}

/// A UDP datagram.
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("a datagram");
    let mut transport = ports_of(source, destination);
    transport.extend(length.to_be_bytes());
    transport.extend([0, 0]);
    transport.extend_from_slice(payload);
    ip(source.ip(), destination.ip(), UDP, &transport)
}

/// A TCP segment.
pub fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    header: TcpHeader,
    payload: &[u8],
) -> Vec<u8> {
    let mut transport = ports_of(source, destination);
    transport.extend(header.sequence.to_be_bytes());
    transport.extend(header.acknowledgment.unwrap_or_default().to_be_bytes());
    let flags = u8::from(header.syn) << 1
        | u8::from(header.rst) << 2
        | u8::from(header.acknowledgment.is_some()) << 4;
    transport.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    transport.extend_from_slice(payload);
    ip(source.ip(), destination.ip(), TCP, &transport)
}

fn ports_of(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    [source.port(), destination.port()]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect()
}

fn ip(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let length = u16::try_from(transport.len()).expect("a packet");
    let mut frame = vec![0; 12];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("two address families in one packet"),
    }
    frame.extend_from_slice(transport);
    frame
}

/// Source and destination of a frame that the simulation made.
pub fn sockets(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let ip = |from: usize, length: usize| -> IpAddr {
        let bytes = &frame[ETHERNET + from..ETHERNET + from + length];
        match <[u8; 4]>::try_from(bytes) {
            Ok(four) => four.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).expect("an address").into(),
        }
    };
    let (from, to, transport) = if frame[12] == 0x08 {
        (ip(12, 4), ip(16, 4), ETHERNET + 20)
    } else {
        (ip(8, 16), ip(24, 16), ETHERNET + 40)
    };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (
        SocketAddr::new(from, port(transport)),
        SocketAddr::new(to, port(transport + 2)),
    )
}
