//! What the kernel says of network interfaces. Nothing is changed here.
//!
//! Invariant: that an interface is not there is said only where the kernel says so, and not where it could not be asked.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with},
};

use super::datapath::DatapathError;

/// Whether an interface is there, and has the frames that the programs can read. The kernel is asked, not `/sys`, which in a network
/// namespace may show another one's interfaces.
///
/// # Errors
/// [`DatapathError::NoInterface`], [`DatapathError::NotEthernet`], or [`DatapathError::Unasked`].
pub fn check(name: &str) -> Result<Index, DatapathError> {
    let unasked = |source| DatapathError::Unasked {
        interface: name.to_owned(),
        source,
    };
    let index = Asker::new()
        .and_then(|asker| asker.index(name))
        .map_err(unasked)?;
    let index = index.ok_or_else(|| DatapathError::NoInterface(name.to_owned()))?;
    match link_type(name).map_err(unasked)? {
        Some(ARPHRD_ETHER | ARPHRD_LOOPBACK) => Ok(index),
        _ => Err(DatapathError::NotEthernet(name.to_owned())),
    }
}

/// Those of these that are there, and that the programs can be put on; the others can be waited for.
///
/// # Errors
/// As [`check`], where none is there, or one cannot be filtered.
pub fn present(names: &[String]) -> Result<Vec<String>, DatapathError> {
    let (mut present, mut absent) = (Vec::new(), None);
    for name in names {
        match check(name) {
            Ok(_) => present.push(name.clone()),
            Err(error @ DatapathError::NoInterface(_)) => absent = absent.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match (present.is_empty(), absent) {
        (true, Some(error)) => Err(error),
        _ => Ok(present),
    }
}

/// An interface's index: what it is known by under every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u32);

/// The index of the interface of this name, if there is one and the kernel can be asked.
pub fn index(name: &str) -> Option<Index> {
    Asker::new().ok()?.index(name).ok()?
}

/// The name of the interface of this index, if there is one and the kernel can be asked.
pub fn name(index: Index) -> Option<String> {
    Asker::new().ok()?.name(index).ok()?
}

/// Whoever has this can ask also where no descriptor is left for another question. It asks about the network namespace in which it was made.
#[derive(Debug)]
pub struct Asker(OwnedFd);

impl Asker {
    /// Takes a descriptor.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            flags,
            None,
        )?))
    }

    /// The index of the interface of this name.
    ///
    /// # Errors
    /// Where the kernel does not say whether there is one.
    pub fn index(&self, name: &str) -> io::Result<Option<Index>> {
        there(netdevice::name_to_index(&self.0, name)).map(|index| index.map(Index))
    }

    /// The name of the interface of this index.
    ///
    /// # Errors
    /// Where the kernel does not say whether there is one.
    pub fn name(&self, index: Index) -> io::Result<Option<String>> {
        there(netdevice::index_to_name(&self.0, index.0))
    }
}

fn there<T>(answer: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Those of these that are not among the present ones.
pub fn absent<'a>(names: &'a [String], present: &[String]) -> impl Iterator<Item = &'a String> {
    names.iter().filter(|name| !present.contains(name))
}

/// The addresses of an interface; none of one that is not there.
///
/// # Errors
/// What the system says.
pub fn addresses_if_there(interface: &str) -> io::Result<Vec<IpAddr>> {
    match addresses(interface) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        addresses => addresses,
    }
}

/// The addresses of an interface.
///
/// # Errors
/// What the system says, or that there is no such interface.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let entries: Vec<_> = getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .collect();
    match entries.is_empty() {
        false => Ok(entries.iter().filter_map(address).collect()),
        true => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no such interface",
        )),
    }
}

/// Every address of this machine, with the interface that has it.
///
/// # Errors
/// What the system says.
pub fn all_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let own = getifaddrs()?.filter_map(|entry| {
        let address = address(&entry)?;
        Some((entry.interface_name, address))
    });
    Ok(own.collect())
}

fn address(entry: &InterfaceAddress) -> Option<IpAddr> {
    let address = entry.address?;
    let four = address.as_sockaddr_in().map(|four| four.ip().into());
    four.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

/// Link types with an Ethernet header in front of each packet (`linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// The interface's link type; `None` where it has no link-layer address, which every Ethernet has.
fn link_type(interface: &str) -> io::Result<Option<u16>> {
    let mut entries = getifaddrs()?;
    Ok(entries.find_map(|entry| {
        let address = entry
            .address
            .filter(|_| entry.interface_name == interface)?;
        Some(address.as_link_addr()?.hatype())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_has_a_name() {
        let loopback = index("lo").unwrap();
        assert_eq!(name(loopback).as_deref(), Some("lo"));
        assert_eq!(name(Index(0x7fff_0000)), None);
        assert_eq!(index("there is none"), None);
        assert_eq!(index("a name that is longer than any can be"), None);
        let asker = Asker::new().unwrap();
        assert_eq!(asker.index("there is none").unwrap(), None);
        assert_eq!(asker.name(Index(0x7fff_0000)).unwrap(), None);
    }

    #[test]
    fn what_is_not_there_is_waited_for_beside_what_is() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(present(&names(&["nosuch0", "lo"])).unwrap(), ["lo"]);
        let none = present(&names(&["nosuch0", "nosuch1"])).unwrap_err();
        assert!(matches!(none, DatapathError::NoInterface(name) if name == "nosuch0"));
    }
}
