//! The packet that is asked about, as bytes on an Ethernet. The policy reads no checksum, so there are none.

use std::net::{IpAddr, SocketAddr};

use sipfilter_common::parse::{TCP, UDP};

const HOPS: u8 = 64;
/// A TCP header that asks for a connection, between the ports and the end.
const SYN: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
const RTP_HEADER: usize = 12;

/// An RTP packet with 20 ms of nothing in it.
pub(super) fn rtp(payload_type: u8) -> Vec<u8> {
    let mut payload = vec![0; RTP_HEADER + 160];
    payload[..2].copy_from_slice(&[0x80, payload_type & 0x7f]);
    payload
}

/// An RTCP sender report.
pub(super) fn rtcp() -> Vec<u8> {
    let mut payload = vec![0; 28];
    payload[..4].copy_from_slice(&[0x80, 200, 0, 6]);
    payload
}

/// A question that begins no call.
pub(super) fn sip() -> Vec<u8> {
    b"OPTIONS sip:pbx SIP/2.0\r\nContent-Length: 0\r\n\r\n".to_vec()
}

/// A datagram; `None` where the two are not of one family.
pub(super) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let mut segment = ports(source, destination);
    let length = u16::try_from(8 + payload.len()).ok()?;
    segment.extend_from_slice(&length.to_be_bytes());
    segment.extend_from_slice(&[0, 0]);
    segment.extend_from_slice(payload);
    frame(source.ip(), destination.ip(), UDP, &segment)
}

/// The first segment of a connection.
pub(super) fn tcp(source: SocketAddr, destination: SocketAddr) -> Option<Vec<u8>> {
    let mut segment = ports(source, destination);
    segment.extend_from_slice(&SYN);
    frame(source.ip(), destination.ip(), TCP, &segment)
}

fn ports(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    [
        source.port().to_be_bytes(),
        destination.port().to_be_bytes(),
    ]
    .concat()
}

fn frame(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> Option<Vec<u8>> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + segment.len()).ok()?;
            frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
            frame.extend_from_slice(&length.to_be_bytes());
            frame.extend_from_slice(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(segment.len()).ok()?;
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&length.to_be_bytes());
            frame.extend_from_slice(&[protocol, HOPS]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
        }
        _ => return None,
    }
    frame.extend_from_slice(segment);
    Some(frame)
}
