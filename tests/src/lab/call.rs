//! The calls of a run: who calls whom, and which addresses and ports their audio uses, each its own.

use std::net::SocketAddr;

use super::{
    address::{PBX_RTP_FIRST, PROVIDER_RTP_FIRST, Place},
    topology::{Network, Topology},
};

/// RTP and RTCP, and two ports to spare, so that no call's ports touch another's.
const PORTS_PER_CALL: u16 = 4;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The provider calls the PBX.
    Inbound,
    /// The PBX calls the provider.
    Outbound,
}

/// Which of a call's two agents is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The one who sent the INVITE.
    Caller,
    /// The one who answers.
    Callee,
}

/// One planned call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its number in this run, from 0: the called user is `call-NNNN`.
    pub number: u16,
    /// Who calls.
    pub direction: Direction,
    /// The how-manieth of its direction it is, from 1; SIPp counts so.
    pub ordinal: u16,
    /// The provider's media address and port, which its SDP names and from which it sends.
    pub provider_media: SocketAddr,
    /// The PBX's media address and port as the outside sees it: where the provider sends to.
    pub pbx_media: SocketAddr,
    /// The same as its host knows it.
    pub pbx_media_inside: SocketAddr,
    /// The same as the PBX's SDP names it.
    pub pbx_media_in_sdp: SocketAddr,
}

impl Call {
    /// The plan for so many calls: the first half inbound, the rest outbound.
    #[must_use]
    pub fn plan(network: &Network, inbound: u16, outbound: u16) -> Vec<Self> {
        let family = network.family;
        (0..inbound + outbound)
            .map(|number| {
                let (direction, ordinal) = if number < inbound {
                    (Direction::Inbound, number + 1)
                } else {
                    (Direction::Outbound, number - inbound + 1)
                };
                let offset = number * PORTS_PER_CALL;
                let port = PBX_RTP_FIRST + offset;
                let outside = Place::PbxCallee.address(family);
                let inside = network.inside(Place::PbxCallee).address(family);
                let in_sdp = match network.topology {
                    Topology::NatPrivate => inside,
                    _ => outside,
                };
                Self {
                    number,
                    direction,
                    ordinal,
                    provider_media: SocketAddr::new(
                        Place::ProviderMedia(number).address(family),
                        PROVIDER_RTP_FIRST + offset,
                    ),
                    pbx_media: SocketAddr::new(outside, port),
                    pbx_media_inside: SocketAddr::new(inside, port),
                    pbx_media_in_sdp: SocketAddr::new(in_sdp, port),
                }
            })
            .collect()
    }

    /// Its Call-ID.
    #[must_use]
    pub fn call_id(&self) -> String {
        call_id(self.direction, self.ordinal)
    }

    /// The number as it is written into user names, files and logs.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{:04}", self.number)
    }

    /// Whether this call's BYE comes from the callee; every other call's does.
    #[must_use]
    pub fn ends_by(&self) -> Role {
        if self.number.is_multiple_of(2) {
            Role::Caller
        } else {
            Role::Callee
        }
    }
}

/// The Call-ID of a direction's n-th call; an `ordinal` of `%u` gives SIPp's own pattern.
pub fn call_id(direction: Direction, ordinal: impl std::fmt::Display) -> String {
    match direction {
        Direction::Inbound => format!("inbound-{ordinal}@lab"),
        Direction::Outbound => format!("outbound-{ordinal}@lab"),
    }
}
