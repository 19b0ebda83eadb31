//! Link-layer headers: every packet is given the Ethernet header that the policy begins with.
//!
//! Where a capture has another header, one is made up from the protocol number that it carries; VLAN tags behind it stay where
//! they are. Nothing here reads IP beyond its version.

/// What a packet in a capture begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkType {
    /// Ethernet, with or without VLAN tags.
    Ethernet,
    /// Linux cooked, version 1: what `tcpdump -i any` wrote for long.
    Cooked,
    /// Linux cooked, version 2: what it writes today.
    Cooked2,
    /// An IP packet, the version in its first bits.
    Raw,
    /// An IPv4 packet.
    Ipv4,
    /// An IPv6 packet.
    Ipv6,
    /// Four bytes of address family before the IP packet (BSD loopback and tunnels).
    Loopback,
}

const ETHERNET_HEADER: usize = 14;
const COOKED_HEADER: usize = 16;
const COOKED2_HEADER: usize = 20;
const LOOPBACK_HEADER: usize = 4;

/// Longer frames than any interface has are cut here: the longest IP packet, and room for the headers before it.
const MAX_FRAME: usize = 65_536 + 64;

impl LinkType {
    /// From the number that capture files carry (the tcpdump project's list of link-layer header types).
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Ethernet),
            113 => Some(Self::Cooked),
            276 => Some(Self::Cooked2),
            // 12 and 14 are raw IP in files of some systems.
            12 | 14 | 101 => Some(Self::Raw),
            228 => Some(Self::Ipv4),
            229 => Some(Self::Ipv6),
            0 | 108 => Some(Self::Loopback),
            _ => None,
        }
    }

    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Cooked => "linux_cooked",
            Self::Cooked2 => "linux_cooked_v2",
            Self::Raw => "raw_ip",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Loopback => "bsd_loopback",
        }
    }

    /// Writes the packet as an Ethernet frame into `frame`. Where only its beginning was captured, zeros take the place of the rest,
    /// so that the headers' lengths still agree with the packet's. Returns whether there were such, or `None` if not even the
    /// link-layer header is there.
    pub fn frame(self, data: &[u8], original: usize, frame: &mut Vec<u8>) -> Option<bool> {
        frame.clear();
        let (ethertype, header) = match self {
            Self::Ethernet => {
                data.get(..ETHERNET_HEADER)?;
                frame.extend_from_slice(data);
                (None, ETHERNET_HEADER)
            }
            Self::Cooked => (Some(two(data, COOKED_HEADER - 2)?), COOKED_HEADER),
            Self::Cooked2 => (Some(two(data, 0)?), COOKED2_HEADER),
            Self::Raw => (Some(of_version(data, 0)?), 0),
            Self::Ipv4 => (Some([0x08, 0x00]), 0),
            Self::Ipv6 => (Some([0x86, 0xdd]), 0),
            Self::Loopback => (Some(of_version(data, LOOPBACK_HEADER)?), LOOPBACK_HEADER),
        };
        if let Some(ethertype) = ethertype {
            frame.resize(ETHERNET_HEADER - 2, 0);
            frame.extend_from_slice(&ethertype);
            frame.extend_from_slice(data.get(header..)?);
        }
        let is_cut = original > data.len();
        if is_cut {
            let whole = (original - header + ETHERNET_HEADER).min(MAX_FRAME);
            frame.resize(whole.max(frame.len()), 0);
        }
        Some(is_cut)
    }
}

fn two(data: &[u8], offset: usize) -> Option<[u8; 2]> {
    data.get(offset..)?.first_chunk().copied()
}

/// The Ethernet type of an IP packet; one that has no meaning for what is none.
fn of_version(data: &[u8], offset: usize) -> Option<[u8; 2]> {
    Some(match data.get(offset)? >> 4 {
        4 => [0x08, 0x00],
        6 => [0x86, 0xdd],
        _ => [0, 0],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(link: LinkType, header: &[u8], payload: &[u8], ethertype: [u8; 2]) {
        let data = [header, payload].concat();
        let mut frame = Vec::new();
        assert_eq!(link.frame(&data, data.len(), &mut frame), Some(false));
        assert_eq!(frame[12..14], ethertype, "{link:?}");
        assert_eq!(&frame[14..], payload, "{link:?}");
        // The rest of a packet that was cut is there as zeros.
        assert_eq!(link.frame(&data, data.len() + 10, &mut frame), Some(true));
        assert_eq!(&frame[14..14 + payload.len()], payload);
        assert_eq!(frame[14 + payload.len()..], [0; 10]);
        for length in 0..header.len() {
            assert_eq!(
                link.frame(&data[..length], data.len(), &mut frame),
                None,
                "{link:?} of {length} bytes"
            );
        }
    }

    #[test]
    fn every_link_type_becomes_ethernet() {
        let (four, six) = ([0x45, 1, 2], [0x60, 1, 2]);
        check(
            LinkType::Ethernet,
            &[&[7; 12][..], &[8, 0]].concat(),
            &four,
            [8, 0],
        );
        check(
            LinkType::Ethernet,
            &[&[7; 12][..], &[0x81, 0]].concat(),
            &[0, 5, 8, 0, 0x45],
            [0x81, 0],
        );
        check(
            LinkType::Cooked,
            &[&[0; 14][..], &[0x86, 0xdd]].concat(),
            &six,
            [0x86, 0xdd],
        );
        check(
            LinkType::Cooked2,
            &[&[8, 0][..], &[9; 18]].concat(),
            &four,
            [8, 0],
        );
        check(LinkType::Raw, &[], &four, [8, 0]);
        check(LinkType::Raw, &[], &six, [0x86, 0xdd]);
        check(LinkType::Raw, &[], &[0x10], [0, 0]);
        check(LinkType::Ipv4, &[], &four, [8, 0]);
        check(LinkType::Ipv6, &[], &six, [0x86, 0xdd]);
        check(LinkType::Loopback, &[2, 0, 0, 0], &four, [8, 0]);
    }

    #[test]
    fn a_length_from_a_damaged_file_takes_no_memory() {
        let mut frame = Vec::new();
        LinkType::Raw.frame(&[0x45], usize::MAX / 2, &mut frame);
        assert_eq!(frame.len(), MAX_FRAME);
    }
}
