//! Whose packet it is: the provider whose signalling addresses hold the outside end of a flow.
//!
//! The most specific prefix wins, then the configuration's order. It does not judge ports: the kernel chose the packet by them.

use std::net::IpAddr;

use super::{
    Direction, Flow,
    settings::{Provider, ProviderId, Transport},
};

/// The provider at the outside end, if it may use this transport.
pub fn provider_of(
    providers: &[Provider],
    flow: &Flow,
    transport: Transport,
) -> Option<ProviderId> {
    let outside = match flow.direction {
        Direction::Ingress => flow.source.ip(),
        Direction::Egress => flow.destination.ip(),
    }
    .to_canonical();
    let mut best: Option<(u8, u16)> = None;
    for (index, provider) in (0_u16..).zip(providers) {
        let Some(length) = longest_prefix(provider, outside, transport) else {
            continue;
        };
        if best.is_none_or(|(known, _)| length > known) {
            best = Some((length, index));
        }
    }
    best.map(|(_, index)| ProviderId(index))
}

fn longest_prefix(provider: &Provider, address: IpAddr, transport: Transport) -> Option<u8> {
    if !provider.transports.contains(&transport) {
        return None;
    }
    provider
        .signalling
        .iter()
        .filter(|net| net.contains(&address))
        .map(|net| net.prefix_len())
        .max()
}
