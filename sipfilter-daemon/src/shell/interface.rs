//! What the kernel says of network interfaces. Nothing is changed here.

use std::{io, net::IpAddr};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use super::datapath::DatapathError;

/// Whether an interface is there, and has the frames that the programs can read. The kernel is asked, not `/sys`, which in a network
/// namespace may show another one's interfaces.
///
/// # Errors
/// [`DatapathError::NoInterface`] or [`DatapathError::NotEthernet`].
pub fn check(name: &str) -> Result<Index, DatapathError> {
    let index = index(name).ok_or_else(|| DatapathError::NoInterface(name.to_owned()))?;
    match link_type(name) {
        Some(ARPHRD_ETHER | ARPHRD_LOOPBACK) => Ok(index),
        _ => Err(DatapathError::NotEthernet(name.to_owned())),
    }
}

/// An interface's index: what it is known by under every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u32);

/// The index of the interface of this name, if there is one.
pub fn index(name: &str) -> Option<Index> {
    nix::net::if_::if_nametoindex(name).ok().map(Index)
}

/// The name of the interface of this index, if there is one.
pub fn name(index: Index) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index.0).ok()?;
    // Where there is none, nix 0.30 takes the null pointer for a name and gives an empty one.
    name.into_string().ok().filter(|name| !name.is_empty())
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
fn link_type(interface: &str) -> Option<u16> {
    let mut entries = getifaddrs().ok()?;
    entries.find_map(|entry| {
        let address = entry
            .address
            .filter(|_| entry.interface_name == interface)?;
        Some(address.as_link_addr()?.hatype())
    })
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
    }
}
