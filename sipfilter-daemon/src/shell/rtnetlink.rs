//! The kernel's routing socket (rtnetlink(7)): when interfaces come, go, change their names and get addresses, and which XDP program is on
//! one.
//!
//! It only listens and asks; what follows is decided by `reload`. Of a message it reads the header and the attribute that it is about,
//! and nothing else: what a newer kernel says besides must not keep an interface from being told.

use std::{io, os::fd::OwnedFd, time::Duration};

use netlink_packet_core::{
    NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage, NlasIterator,
    Parseable as _,
};
use netlink_packet_route::{
    AddressFamily as LinkFamily, RouteNetlinkMessage,
    address::AddressHeader,
    link::{LinkHeader, LinkMessage, LinkXdp},
};
use nix::libc::{
    IFLA_XDP, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR,
    RTMGRP_LINK,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::SocketAddrNetlink,
    },
};
use tokio::io::unix::AsyncFd;

use super::{interface::Index, watch};

/// `struct ifinfomsg`, before the attributes.
const LINK_HEADER: usize = 16;
/// The kernel's largest message about one interface, and several.
const BUFFER: usize = 64 * 1024;
/// What [`LinkEvents`] tells of.
const GROUPS: i32 = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
/// How long an answer may take. It is there when the request has been sent.
const ANSWER: Duration = Duration::from_millis(200);

/// Tells when interfaces change.
pub struct LinkEvents {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

/// What has become of interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that are gone, whatever has their number now.
    pub gone: Vec<Index>,
    /// Those that have an address, which may be a new one.
    pub addressed: Vec<Index>,
    /// The kernel could not tell all of it.
    pub is_partial: bool,
}

impl LinkEvents {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            socket: watch::watch(socket(GROUPS as u32)?)?,
            buffer: vec![0; BUFFER],
        })
    }

    /// Waits until something happens, and takes all of it. Cancelling the wait loses nothing.
    pub async fn wait(&mut self) -> Changes {
        let Ok(mut ready) = self.socket.readable().await else {
            // Without the event queue the daemon has ended; looking once a second goes on.
            return std::future::pending().await;
        };
        let mut changes = Changes::default();
        loop {
            match net::recv(ready.get_inner(), &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => changes.read(self.buffer.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => changes.is_partial = true,
                Err(_) => {
                    ready.clear_ready();
                    return changes;
                }
            }
        }
    }
}

impl Changes {
    fn read(&mut self, bytes: &[u8]) {
        for (kind, body) in messages(bytes) {
            // A bridge tells of its ports under a family of its own.
            if kind == RTM_DELLINK
                && let Ok(link) = LinkHeader::parse(body)
                && link.interface_family == LinkFamily::Unspec
            {
                self.gone.push(Index(link.index));
            }
            if kind == RTM_NEWADDR
                && let Ok(address) = AddressHeader::parse(body)
            {
                self.addressed.push(Index(address.index));
            }
        }
    }
}

/// A program that XDP runs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpProgram {
    /// Its number in the kernel.
    pub id: u32,
    /// Where it is, as `ip link set dev … WORD off` calls it.
    pub place: &'static str,
}

/// The XDP program on an interface, whoever has put it there.
///
/// # Errors
/// What the system says.
pub fn xdp_program(index: Index) -> io::Result<Option<XdpProgram>> {
    let socket = socket(0)?;
    let mut asked = LinkMessage::default();
    asked.header.index = index.0;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(asked));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    net::send(&socket, &bytes, SendFlags::empty())?;
    let patience = Timespec::try_from(ANSWER).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&patience))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = vec![0; BUFFER];
    let (_, length) = net::recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
    for (kind, body) in messages(buffer.get(..length).unwrap_or_default()) {
        match kind {
            RTM_NEWLINK if LinkHeader::parse(body).is_ok_and(|link| link.index == index.0) => {
                return Ok(program_of(body.get(LINK_HEADER..).unwrap_or_default()));
            }
            NLMSG_ERROR => return Err(io::ErrorKind::NotFound.into()),
            _ => {}
        }
    }
    Ok(None)
}

fn socket(groups: u32) -> io::Result<OwnedFd> {
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        // `NETLINK_ROUTE`.
        None,
    )?;
    net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// The program that is told among an interface's attributes.
fn program_of(attributes: &[u8]) -> Option<XdpProgram> {
    let mut attributes = NlasIterator::new(attributes).flatten();
    let xdp = attributes.find(|attribute| attribute.kind() == IFLA_XDP)?;
    let told: Vec<LinkXdp> = NlasIterator::new(xdp.value())
        .flatten()
        .filter_map(|attribute| LinkXdp::parse(&attribute).ok())
        .collect();
    let place = |told: &LinkXdp| match *told {
        LinkXdp::DrvProgId(id) => Some((id, "xdpdrv")),
        LinkXdp::SkbProgId(id) => Some((id, "xdpgeneric")),
        LinkXdp::HwProgId(id) => Some((id, "xdpoffload")),
        _ => None,
    };
    // Where the place is told, the number alone is told besides.
    let anywhere = |told: &LinkXdp| match *told {
        LinkXdp::ProgId(id) => Some((id, "xdp")),
        _ => None,
    };
    let found = told.iter().filter_map(place);
    found
        .chain(told.iter().filter_map(anywhere))
        .find(|(id, _)| *id != 0)
        .map(|(id, place)| XdpProgram { id, place })
}

/// Messages by type, without their headers.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let next = (message.length() as usize).next_multiple_of(NLMSG_ALIGNTO.into());
        bytes = bytes.get(next..).unwrap_or_default();
        Some((message.message_type(), message.payload()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct nlmsghdr`.
    const HEADER: usize = 16;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, family: u8, index: u32, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = HEADER + LINK_HEADER + attributes.len();
        bytes.extend(u32::try_from(length).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn interfaces_that_go_are_told_from_those_that_change() {
        let all = [
            message(RTM_NEWLINK, 0, 3, &[]),
            message(RTM_DELLINK, 0, 4, &attribute(3, b"name")),
            // A port that leaves its bridge.
            message(RTM_DELLINK, 7, 5, &[]),
            // `struct ifaddrmsg` has the number where `struct ifinfomsg` has it.
            message(RTM_NEWADDR, 2, 7, &[]),
            message(RTM_DELLINK, 0, 6, &[]),
        ]
        .concat();
        let mut changes = Changes::default();
        changes.read(&all);
        assert_eq!(changes.gone, [Index(4), Index(6)]);
        assert_eq!(changes.addressed, [Index(7)]);
        for length in 0..all.len() {
            let mut changes = Changes::default();
            changes.read(&all[..length]);
            assert!(changes.gone.len() < 2, "{length} bytes told all");
        }
    }

    #[test]
    fn a_program_is_told_with_its_place() {
        let program = |inner: &[Vec<u8>]| {
            let name = attribute(3, b"outer0\0");
            let xdp = attribute(IFLA_XDP | 0x8000, &inner.concat());
            program_of(&[name, xdp].concat())
        };
        let id = |kind: u16, id: u32| attribute(kind, &id.to_ne_bytes());
        let found = |id, place| Some(XdpProgram { id, place });
        assert_eq!(program(&[attribute(2, &[0])]), None);
        assert_eq!(program(&[id(4, 0)]), None);
        for (kind, place) in [(5, "xdpdrv"), (6, "xdpgeneric"), (7, "xdpoffload")] {
            assert_eq!(
                program(&[attribute(2, &[1]), id(4, 7), id(kind, 7)]),
                found(7, place)
            );
        }
        assert_eq!(program(&[id(4, 9)]), found(9, "xdp"));
        assert_eq!(program_of(&[0xff; 40]), None);
    }
}
