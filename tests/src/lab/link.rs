//! Raw Ethernet on one named interface (packet(7)). The lab's only unsafe code: an address form that rustix does not offer.
//!
//! It moves frames and knows nothing of what is in them.

use std::{mem::size_of, num::NonZeroU32, time::Duration};

use anyhow::{Context as _, Result};
use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
        addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
        bind,
        netdevice::name_to_index,
        recv, send, socket_with,
        sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout},
    },
};

use super::namespace::Namespace;

/// `ETH_P_ALL`.
const EVERY_PROTOCOL: u16 = 3;
const RECEIVE_BUFFER: usize = 32 << 20;

/// A packet socket: a tap on every interface of a namespace, or a port on one.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Hears every interface of a namespace; cannot send.
    ///
    /// # Errors
    /// Without root's privileges.
    pub fn tap(namespace: &Namespace) -> Result<Self> {
        namespace.enter(open)?
    }

    /// Hears and sends on one interface. What this very socket sends it does not hear.
    ///
    /// # Errors
    /// Without root's privileges, or where there is no such interface.
    pub fn port(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.enter(|| {
            let this = open()?;
            let index = name_to_index(&this.0, interface)
                .with_context(|| format!("there is no interface {interface}"))?;
            bind(&this.0, &LinkAddress::of(index))?;
            Ok(this)
        })?
    }

    /// The next frame, or nothing for 50 ms.
    #[must_use]
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let (length, _) = recv(&self.0, &mut *buffer, RecvFlags::empty()).ok()?;
        buffer.get(..length)
    }

    /// Sends a frame; only on a port.
    ///
    /// # Errors
    /// Where the interface is down or the frame too long.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(&self.0, frame, SendFlags::empty())?;
        Ok(())
    }
}

fn open() -> Result<Link> {
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        NonZeroU32::new(u32::from(EVERY_PROTOCOL.to_be())).map(Protocol::from_raw),
    )
    .context("cannot open a packet socket: run as root")?;
    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(50)))?;
    Ok(Link(socket))
}

/// `struct sockaddr_ll`.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    interface: i32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

const _: () = assert!(size_of::<LinkAddress>() == 20);

impl LinkAddress {
    fn of(interface: u32) -> Self {
        Self {
            family: AddressFamily::PACKET.as_raw(),
            protocol: EVERY_PROTOCOL.to_be(),
            interface: interface.cast_signed(),
            hardware: 0,
            packet: 0,
            length: 0,
            address: [0; 8],
        }
    }
}

// SAFETY: `with_sockaddr` passes a pointer to a whole `sockaddr_ll`, laid out as the kernel defines it, alive for the call, and its size.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(
            std::ptr::from_ref(self).cast(),
            size_of::<Self>() as SocketAddrLen,
        )
    }
}
