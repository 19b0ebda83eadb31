//! What only the running system can tell: the interfaces' own addresses, put in where the file names none.
//!
//! It does not ask the system itself; the caller brings the way to ask.

use std::{fmt, net::IpAddr};

use sipfilter_common::settings::MAX_PROTECTED;

use super::{Config, pbx};
use crate::engine::settings::Settings;

/// Why the protected addresses cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError<E: fmt::Debug + fmt::Display> {
    /// The system could not be asked.
    #[error(
        "cannot tell the addresses of interface {interface}: {source}; is it there (`ip link`)? Otherwise name the PBX's addresses: pbx.addresses = [\"203.0.113.10\"]"
    )]
    Interface {
        /// The interface.
        interface: String,
        /// The caller's error.
        source: E,
    },
    /// There are none.
    #[error(
        "{interfaces} has no address of its own to protect; name the PBX's addresses: pbx.addresses = [\"203.0.113.10\"]"
    )]
    NoAddress {
        /// The interfaces.
        interfaces: String,
    },
    /// More than the kernel holds.
    #[error(
        "{interfaces} has {count} {family} addresses, and at most {MAX_PROTECTED} fit into the kernel's policy; name those on which the PBX takes calls: pbx.addresses = [\"203.0.113.10\"]"
    )]
    TooMany {
        /// The interfaces.
        interfaces: String,
        /// How many.
        count: usize,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// A NAT mapping leads elsewhere.
    #[error(
        "pbx.nat maps {private} to {public}, which is not an address of {interfaces}; correct it, or list it: pbx.addresses = [\"{public}\"]"
    )]
    Nat {
        /// The left side.
        private: IpAddr,
        /// The right side.
        public: IpAddr,
        /// The interfaces.
        interfaces: String,
    },
}

impl Config {
    /// The engine's settings with the protected addresses filled in: those of the file, else all of the interfaces' own.
    ///
    /// IPv6 link-local addresses are left out: they mean nothing beyond their link, and no provider sits on it.
    pub fn resolve<E: fmt::Debug + fmt::Display>(
        &self,
        interface_addresses: impl FnMut(&str) -> Result<Vec<IpAddr>, E>,
    ) -> Result<Settings, ResolveError<E>> {
        self.resolve_beside(&[], interface_addresses)
    }

    /// The same with addresses that are protected already, whether an interface has them now or not. Where all of them are more than the
    /// kernel holds, only those that an interface has.
    pub fn resolve_beside<E: fmt::Debug + fmt::Display>(
        &self,
        protected: &[IpAddr],
        interface_addresses: impl FnMut(&str) -> Result<Vec<IpAddr>, E>,
    ) -> Result<Settings, ResolveError<E>> {
        let mut settings = self.settings.clone();
        if !settings.pbx.addresses.is_empty() {
            return Ok(settings);
        }
        let own = self.own_addresses(interface_addresses)?;
        let beside = sorted(own.iter().chain(protected).copied());
        let addresses = match pbx::too_many(&beside) {
            Some(_) => own,
            None => beside,
        };
        let interfaces = self.interfaces.join(", ");
        if addresses.is_empty() {
            return Err(ResolveError::NoAddress { interfaces });
        }
        if let Some((count, family)) = pbx::too_many(&addresses) {
            return Err(ResolveError::TooMany {
                interfaces,
                count,
                family,
            });
        }
        if let Some((private, public)) = settings
            .pbx
            .nat
            .iter()
            .find(|(_, public)| !addresses.contains(public))
        {
            return Err(ResolveError::Nat {
                private: *private,
                public: *public,
                interfaces,
            });
        }
        settings.pbx.addresses = addresses;
        Ok(settings)
    }

    /// The interfaces' own addresses, of which [`Self::resolve`] protects all where the file names none.
    pub fn own_addresses<E: fmt::Debug + fmt::Display>(
        &self,
        mut interface_addresses: impl FnMut(&str) -> Result<Vec<IpAddr>, E>,
    ) -> Result<Vec<IpAddr>, ResolveError<E>> {
        let mut addresses = Vec::new();
        for interface in &self.interfaces {
            let own = interface_addresses(interface).map_err(|source| ResolveError::Interface {
                interface: interface.clone(),
                source,
            })?;
            addresses.extend(own);
        }
        let lasting = addresses.into_iter().filter(|own| !is_link_local(*own));
        Ok(sorted(lasting))
    }
}

fn sorted(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
