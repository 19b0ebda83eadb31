//! Which interfaces nothing of the PBX's comes in on: what arrives there, claims to be the PBX's and is forwarded back out is forged,
//! and must not get to say what the PBX offers.
//!
//! A router that forwards such a frame (without `rp_filter`) shows it to the egress program like any of the PBX's own. It is told by
//! the interface it came in on, and that holds only where the PBX itself is never on that side. So it is asked of the routes, and in
//! any doubt nothing is told apart: a PBX behind the same interface as its providers must go on working. Addresses of this host need
//! no such care, because the kernel refuses packets from outside that claim to be its own (RFC 1812 §5.3.7, "martians").

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use sipfilter_common::settings::MAX_OUTER;

use super::{
    descriptors::is_out_of_descriptors,
    interface::{self, Asker, Index},
};

/// The discard port: nothing is ever sent there, the kernel is only asked for the route.
const NOWHERE: u16 = 9;

/// An address of this machine, and the interface that has it.
type Own = (String, IpAddr);

/// What the routes said when the programs were loaded: they hold on to it.
#[derive(Debug, Clone)]
pub struct Outer {
    protected: Vec<IpAddr>,
    interfaces: Vec<String>,
    indices: [u32; MAX_OUTER],
}

impl Outer {
    /// Asks the routes.
    pub fn find(protected: &[IpAddr], interfaces: &[String]) -> Self {
        Self {
            protected: protected.to_vec(),
            interfaces: interfaces.to_vec(),
            indices: indices(protected, interfaces).unwrap_or_default(),
        }
    }

    /// Indices of the outer interfaces, or none where the PBX may be on that side.
    pub fn indices(&self) -> [u32; MAX_OUTER] {
        self.indices
    }

    /// Whether frames are told apart by what the routes do not say any more: then the PBX's own may be taken for forged.
    pub fn is_outdated(&self) -> bool {
        let now = || indices(&self.protected, &self.interfaces);
        // Where they cannot be asked, nothing is known of them.
        self.indices != [0; MAX_OUTER] && now().is_ok_and(|now| now != self.indices)
    }
}

/// # Errors
/// Where there is no descriptor left to ask with.
fn indices(protected: &[IpAddr], interfaces: &[String]) -> io::Result<[u32; MAX_OUTER]> {
    let none = [0; MAX_OUTER];
    let own = match interface::all_addresses() {
        Ok(own) => own,
        Err(error) if is_out_of_descriptors(&error) => return Err(error),
        Err(_) => return Ok(none),
    };
    if interfaces.len() > MAX_OUTER {
        return Ok(none);
    }
    for pbx in protected {
        if !is_behind(*pbx, &own, interfaces, source_towards)? {
            return Ok(none);
        }
    }
    let mut indices = none;
    for (place, interface) in indices.iter_mut().zip(interfaces) {
        match Asker::new()?.index(interface)? {
            Some(Index(index)) => *place = index,
            // It was there a moment ago; without it, nothing will be attached either.
            None => return Ok(none),
        }
    }
    Ok(indices)
}

/// Whether the PBX is another host, on a side of its own. The address that the kernel would send from tells the side; that of an
/// outer interface, of the loopback one, or of none, leaves it in doubt.
fn is_behind(
    pbx: IpAddr,
    own: &[Own],
    interfaces: &[String],
    source_towards: impl Fn(IpAddr) -> io::Result<IpAddr>,
) -> io::Result<bool> {
    let holders = |address: IpAddr| own.iter().filter(move |(_, held)| *held == address);
    if holders(pbx).next().is_some() {
        return Ok(false);
    }
    let source = match source_towards(pbx) {
        Ok(source) => source,
        Err(error) if is_out_of_descriptors(&error) => return Err(error),
        Err(_) => return Ok(false),
    };
    let is_outside = |interface: &String| interface == "lo" || interfaces.contains(interface);
    Ok(holders(source).next().is_some()
        && !holders(source).any(|(interface, _)| is_outside(interface)))
}

fn source_towards(address: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, NOWHERE))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pbx_on_a_side_of_its_own_is_told_apart() {
        #[track_caller]
        fn check(what: &str, source: Option<&str>, expect: bool) {
            let own: Vec<Own> = [
                ("lo", "127.0.0.1"),
                ("lo", "192.0.2.1"),
                ("eth0", "198.51.100.1"),
                ("eth0", "203.0.113.5"),
                ("eth1", "203.0.113.1"),
                ("eth1", "192.0.2.77"),
                ("eth0", "192.0.2.77"),
            ]
            .map(|(interface, address)| (interface.to_owned(), address.parse().unwrap()))
            .into();
            let pbx = if what == "this host" {
                "203.0.113.5"
            } else {
                "203.0.113.10"
            };
            let route = |_| {
                source
                    .map(|text| text.parse().unwrap())
                    .ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
            };
            let found = is_behind(pbx.parse().unwrap(), &own, &["eth0".to_owned()], route);
            assert_eq!(found.unwrap(), expect, "{what}");
        }
        check("on the inner side", Some("203.0.113.1"), true);
        check("on the outer side", Some("198.51.100.1"), false);
        check("this host", Some("203.0.113.5"), false);
        check("no route", None, false);
        check(
            "an address of the loopback interface",
            Some("192.0.2.1"),
            false,
        );
        check("an address of both sides", Some("192.0.2.77"), false);
        check(
            "an address that no interface has",
            Some("192.0.2.99"),
            false,
        );
    }
}
