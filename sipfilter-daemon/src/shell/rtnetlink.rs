//! The kernel's routing socket (rtnetlink(7)): when interfaces come, go and change their names, and which XDP program is on one.
//!
//! It only listens and asks; what follows is decided by `reload`. Everything is read as bytes of a stated length: a message that is
//! shorter than it says ends the reading.

use std::{io, os::fd::OwnedFd, time::Duration};

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

/// `RTMGRP_LINK`: whatever happens to interfaces.
const LINKS: u32 = 1;
/// Message types (`linux/rtnetlink.h`).
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
/// `NLMSG_ERROR`, `NLM_F_REQUEST`.
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
/// Attributes of an interface (`linux/if_link.h`): what XDP has there, and in it the number of the program for each place.
const XDP: u16 = 43;
const XDP_PROGRAM: u16 = 4;
const XDP_PROGRAM_NATIVE: u16 = 5;
const XDP_PROGRAM_GENERIC: u16 = 6;
const XDP_PROGRAM_OFFLOADED: u16 = 7;
/// An attribute's type without its flags.
const TYPE: u16 = 0x3fff;

/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
/// The kernel's largest message about one interface, and several.
const BUFFER: usize = 64 * 1024;
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
            socket: watch::watch(socket(LINKS)?)?,
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
            if kind == DELLINK
                && body.first() == Some(&0)
                && let Some(index) = link_index(body)
            {
                self.gone.push(index);
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
    let mut request = Vec::with_capacity(HEADER + LINK_HEADER);
    let length = u32::try_from(HEADER + LINK_HEADER).map_err(io::Error::other)?;
    request.extend(length.to_ne_bytes());
    request.extend(GETLINK.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; 4]);
    request.extend(index.0.to_ne_bytes());
    request.extend([0; 8]);
    net::send(&socket, &request, SendFlags::empty())?;
    let patience = Timespec::try_from(ANSWER).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&patience))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = vec![0; BUFFER];
    let (_, length) = net::recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
    for (kind, body) in messages(buffer.get(..length).unwrap_or_default()) {
        match kind {
            NEWLINK if link_index(body) == Some(index) => {
                return Ok(program_of(body.get(LINK_HEADER..).unwrap_or_default()));
            }
            ERROR => return Err(io::ErrorKind::NotFound.into()),
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

fn program_of(attributes: &[u8]) -> Option<XdpProgram> {
    let (_, xdp) = parts(attributes, 4).find(|(kind, _)| kind & TYPE == XDP)?;
    let number = |wanted: u16| {
        let (_, value) = parts(xdp, 4).find(|(kind, _)| kind & TYPE == wanted)?;
        let id = u32::from_ne_bytes(value.try_into().ok()?);
        Some(id).filter(|id| *id != 0)
    };
    [
        (XDP_PROGRAM_NATIVE, "xdpdrv"),
        (XDP_PROGRAM_GENERIC, "xdpgeneric"),
        (XDP_PROGRAM_OFFLOADED, "xdpoffload"),
        (XDP_PROGRAM, "xdp"),
    ]
    .into_iter()
    .find_map(|(attribute, place)| {
        let id = number(attribute)?;
        Some(XdpProgram { id, place })
    })
}

fn link_index(body: &[u8]) -> Option<Index> {
    let index = body.get(4..8)?.try_into().ok()?;
    Some(Index(u32::from_ne_bytes(index)))
}

/// Messages by type, without their headers.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    Parts {
        rest: bytes,
        length_bytes: 4,
        header: HEADER,
    }
}

/// Attributes by type.
fn parts(bytes: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    Parts {
        rest: bytes,
        length_bytes: 2,
        header,
    }
}

/// What begins with its length, which counts the header, and its type; the next one begins at a multiple of four.
struct Parts<'a> {
    rest: &'a [u8],
    length_bytes: usize,
    header: usize,
}

impl<'a> Iterator for Parts<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = match self.length_bytes {
            2 => usize::from(u16::from_ne_bytes(self.rest.get(..2)?.try_into().ok()?)),
            _ => u32::from_ne_bytes(self.rest.get(..4)?.try_into().ok()?) as usize,
        };
        let kind = self.rest.get(self.length_bytes..self.length_bytes + 2)?;
        let kind = u16::from_ne_bytes(kind.try_into().ok()?);
        let body = self.rest.get(self.header..length)?;
        let next = length.next_multiple_of(4).min(self.rest.len());
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some((kind, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            message(NEWLINK, 0, 3, &[]),
            message(DELLINK, 0, 4, &attribute(3, b"name")),
            // A port that leaves its bridge.
            message(DELLINK, 7, 5, &[]),
            message(DELLINK, 0, 6, &[]),
        ]
        .concat();
        let mut changes = Changes::default();
        changes.read(&all);
        assert_eq!(changes.gone, [Index(4), Index(6)]);
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
            let xdp = attribute(XDP | 0x8000, &inner.concat());
            program_of(&[name, xdp].concat())
        };
        let id = |kind: u16, id: u32| attribute(kind, &id.to_ne_bytes());
        let found = |id, place| Some(XdpProgram { id, place });
        assert_eq!(program(&[attribute(2, &[0])]), None);
        assert_eq!(program(&[id(XDP_PROGRAM, 0)]), None);
        for (kind, place) in [
            (XDP_PROGRAM_NATIVE, "xdpdrv"),
            (XDP_PROGRAM_GENERIC, "xdpgeneric"),
            (XDP_PROGRAM_OFFLOADED, "xdpoffload"),
        ] {
            assert_eq!(
                program(&[attribute(2, &[1]), id(XDP_PROGRAM, 7), id(kind, 7)]),
                found(7, place)
            );
        }
        assert_eq!(program(&[id(XDP_PROGRAM, 9)]), found(9, "xdp"));
        assert_eq!(program_of(&[0xff; 40]), None);
    }
}
