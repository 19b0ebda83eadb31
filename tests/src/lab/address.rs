//! Who has which address: documentation ranges only (RFC 5737, RFC 3849), the same plan in every topology.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where SIP is taken.
pub const SIP_PORT: u16 = 5060;
/// The PBX's first RTP port; its range ends at [`PBX_RTP_LAST`].
pub const PBX_RTP_FIRST: u16 = 10_000;
/// The PBX's last RTP port.
pub const PBX_RTP_LAST: u16 = 20_000;
/// The provider's first RTP port; its range ends at [`PROVIDER_RTP_LAST`].
pub const PROVIDER_RTP_FIRST: u16 = 40_000;
/// The provider's last RTP port.
pub const PROVIDER_RTP_LAST: u16 = 60_000;
/// How many media addresses the provider uses.
pub const PROVIDER_MEDIA_COUNT: u16 = 4;

/// The IP version that a run's calls use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A place in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The provider's router-facing side of the edge.
    ProviderGateway,
    /// From where the provider calls the PBX.
    ProviderCaller,
    /// Where the provider is called by the PBX.
    ProviderCallee,
    /// One of the provider's media addresses, all of them other than its signalling addresses.
    ProviderMedia(u16),
    /// An address of the provider that no SDP ever names.
    ProviderOther,
    /// The stranger's router-facing side of the edge.
    StrangerGateway,
    /// Somebody on the Internet.
    Stranger,
    /// The PBX's side of the edge.
    PbxGateway,
    /// Where the PBX is called, as the outside sees it. Also its media address, for all calls.
    PbxCallee,
    /// From where the PBX calls, as the outside sees it.
    PbxCaller,
    /// The PBX's own gateway behind address translation.
    PrivateGateway,
    /// [`Place::PbxCallee`] behind address translation.
    PrivateCallee,
    /// [`Place::PbxCaller`] behind address translation.
    PrivateCaller,
}

impl Place {
    /// The place's address.
    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        let (net, host) = self.net_and_host();
        match (family, net) {
            (Family::V4, Net::Provider) => Ipv4Addr::new(198, 51, 100, host).into(),
            (Family::V4, Net::Stranger) => Ipv4Addr::new(192, 0, 2, host).into(),
            (Family::V4, Net::Pbx) => Ipv4Addr::new(203, 0, 113, host).into(),
            (Family::V6, net) => {
                let subnet = match net {
                    Net::Provider => 0x51,
                    Net::Stranger => 0x2,
                    Net::Pbx => 0x113,
                };
                Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, u16::from(host)).into()
            }
        }
    }

    fn net_and_host(self) -> (Net, u8) {
        match self {
            Self::ProviderGateway => (Net::Provider, 1),
            Self::ProviderCaller => (Net::Provider, 10),
            Self::ProviderCallee => (Net::Provider, 11),
            Self::ProviderMedia(index) => {
                (Net::Provider, 20 + (index % PROVIDER_MEDIA_COUNT) as u8)
            }
            Self::ProviderOther => (Net::Provider, 29),
            Self::StrangerGateway => (Net::Stranger, 1),
            Self::Stranger => (Net::Stranger, 66),
            Self::PbxGateway => (Net::Pbx, 1),
            Self::PbxCallee => (Net::Pbx, 10),
            Self::PbxCaller => (Net::Pbx, 11),
            Self::PrivateGateway => (Net::Pbx, 129),
            Self::PrivateCallee => (Net::Pbx, 130),
            Self::PrivateCaller => (Net::Pbx, 131),
        }
    }

    /// Every place that belongs to the provider itself.
    #[must_use]
    pub fn provider() -> Vec<Self> {
        [
            Self::ProviderCaller,
            Self::ProviderCallee,
            Self::ProviderOther,
        ]
        .into_iter()
        .chain((0..PROVIDER_MEDIA_COUNT).map(Self::ProviderMedia))
        .collect()
    }
}

enum Net {
    Provider,
    Stranger,
    Pbx,
}
