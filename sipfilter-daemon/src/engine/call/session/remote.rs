//! Whom the provider's SDP may let in: sources inside the provider's documented limits, by the way its profile says.
//!
//! It does not care where they may send to (`local`). An address in the SDP never widens what the operator's configuration allows;
//! it only chooses from it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Digest, Packets, canonical, extras_of, is_held, refuse, rtcp_of, rtp_ports, stream_of,
};
use crate::engine::{
    Refusal,
    pinhole::{Extras, MAX_SOURCES, Source},
    sdp::{Connection, MediaDescription},
    settings::{Media, MediaSource},
};

/// The most sources of one media description that are remembered, over both address families. The rest is refused and reported.
const MAX_REMEMBERED: usize = 2 * MAX_SOURCES;

/// One session description that the provider sent.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteSession {
    /// Of its body.
    pub digest: Digest,
    /// By index of the `m=` line.
    pub media: Box<[RemoteMedia]>,
}

/// One of its media descriptions: who may send.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteMedia {
    /// Whether there is a stream at all: not removed, and of a kind that pinholes serve.
    pub active: bool,
    /// On hold, in whatever form.
    pub held: bool,
    /// `a=rtcp-mux`.
    pub mux: bool,
    /// What else it asks for on its ports.
    pub extras: Extras,
    /// What it says of its packets.
    pub packets: Packets,
    /// Nothing is known of who of the sources it will be: the first one that sends.
    pub latched: bool,
    /// Where the provider says it receives: for the record, never for the policy.
    pub declared: Option<std::net::SocketAddr>,
    /// Sources of RTP (or UDPTL), the likeliest first.
    pub rtp: Box<[Source]>,
    /// Sources of RTCP unless it is multiplexed.
    pub rtcp: Box<[Source]>,
}

impl RemoteMedia {
    pub(super) fn read(
        described: &MediaDescription,
        before: Option<&Self>,
        limits: &Media,
        nets: &Nets,
        refusals: &mut Vec<Refusal>,
    ) -> Self {
        let active = stream_of(described).is_some();
        let mut held = is_held(described);
        let mut declared = None;
        let mut sources = Sources {
            limits,
            nets,
            refusals,
            latched: limits.source == MediaSource::Latch,
            rtp: Vec::new(),
            rtcp: Vec::new(),
        };
        if active {
            for connection in &described.connections {
                match connection {
                    Connection::Address(address) if canonical(*address).is_unspecified() => {
                        held = true;
                    }
                    Connection::Address(address) => {
                        let address = canonical(*address);
                        declared.get_or_insert((address, described.port).into());
                        sources.add(described, address);
                    }
                    Connection::Name(_) => sources.add_name(),
                }
            }
            sources.add_candidates(described);
            if held && let Some(before) = before {
                // A party on hold may still send from where it was (music, comfort noise, RTCP), and will again on resume.
                sources.keep(before);
                declared = declared.or(before.declared);
            }
        }
        Self {
            active,
            held,
            mux: described.rtcp.mux,
            extras: extras_of(described),
            packets: Packets::of(described),
            latched: sources.latched,
            declared,
            rtp: sources.rtp.into_boxed_slice(),
            rtcp: sources.rtcp.into_boxed_slice(),
        }
    }
}

/// The sources collected so far.
struct Sources<'a> {
    limits: &'a Media,
    nets: &'a Nets,
    refusals: &'a mut Vec<Refusal>,
    latched: bool,
    rtp: Vec<Source>,
    rtcp: Vec<Source>,
}

impl Sources<'_> {
    fn add(&mut self, described: &MediaDescription, address: IpAddr) {
        if !self.is_allowed(address) {
            refuse(self.refusals, Refusal::ForeignRemoteMedia);
            if !matches!(self.limits.source, MediaSource::Prefix | MediaSource::Latch) {
                return;
            }
        }
        match self.limits.source {
            MediaSource::Prefix => self.push_all(&self.nets.listed),
            MediaSource::Latch => self.push_all(&self.nets.limit),
            MediaSource::Signalled => {
                if !self.limits.ports.contains(&described.port) {
                    // Worth a report. The provider's documented range stays the limit: the SDP's port is where it receives,
                    // and says little about where it sends from.
                    refuse(self.refusals, Refusal::ForeignRemoteMedia);
                }
                self.push_rtp(Source::host(address, self.limits.ports.clone()));
                let rtcp = rtcp_of(described, (address, described.port).into());
                let rtcp = rtcp.map_or(address, |rtcp| rtcp.ip());
                if self.is_allowed(rtcp) {
                    self.push_rtcp(Source::host(rtcp, self.limits.ports.clone()));
                }
                self.push_rtcp(Source::host(address, self.limits.ports.clone()));
            }
            MediaSource::Exact => {
                for port in rtp_ports(described) {
                    self.push_exact(Component::Rtp, address, port);
                    if let Some(rtcp) = rtcp_of(described, (address, port).into())
                        && rtcp.port() != 0
                    {
                        self.push_exact(Component::Rtcp, rtcp.ip(), rtcp.port());
                    }
                }
            }
        }
    }

    /// A host name cannot be resolved here. The provider's own prefixes are the narrowest thing that is surely right; without any,
    /// whoever sends first is, which is worth a report.
    fn add_name(&mut self) {
        if self.nets.listed.is_empty() {
            refuse(self.refusals, Refusal::HostName);
            self.latched = true;
        }
        self.push_all(&self.nets.limit);
    }

    /// Unusable candidates are usual (private networks, loopback): they are skipped without a word.
    fn add_candidates(&mut self, described: &MediaDescription) {
        for candidate in &described.candidates {
            let address = canonical(candidate.address);
            if !self.is_allowed(address) {
                continue;
            }
            let source = match self.limits.source {
                MediaSource::Prefix | MediaSource::Latch => continue,
                MediaSource::Signalled => Source::host(address, self.limits.ports.clone()),
                MediaSource::Exact if self.limits.ports.contains(&candidate.port) => {
                    Source::host(address, candidate.port..=candidate.port)
                }
                MediaSource::Exact => continue,
            };
            match candidate.component {
                1 => self.push_rtp(source),
                2 => self.push_rtcp(source),
                _ => {}
            }
        }
    }

    fn keep(&mut self, before: &RemoteMedia) {
        self.latched |= before.latched;
        for source in &before.rtp {
            self.push_rtp(source.clone());
        }
        for source in &before.rtcp {
            self.push_rtcp(source.clone());
        }
    }

    /// Private addresses may be right (media relays on a private interconnect); addresses that no packet can come from are not.
    fn is_allowed(&self, address: IpAddr) -> bool {
        let possible = match address {
            IpAddr::V4(v4) => !v4.is_broadcast(),
            IpAddr::V6(_) => true,
        } && !address.is_loopback()
            && !address.is_multicast()
            && !address.is_unspecified();
        possible
            && (self.limits.prefixes.is_empty()
                || self
                    .limits
                    .prefixes
                    .iter()
                    .any(|net| net.contains(&address)))
    }

    fn push_exact(&mut self, component: Component, address: IpAddr, port: u16) {
        if !self.limits.ports.contains(&port) || !self.is_allowed(address) {
            refuse(self.refusals, Refusal::ForeignRemoteMedia);
            return;
        }
        let source = Source::host(address, port..=port);
        match component {
            Component::Rtp => self.push_rtp(source),
            Component::Rtcp => self.push_rtcp(source),
        }
    }

    fn push_all(&mut self, nets: &[Source]) {
        for source in nets {
            self.push_rtp(source.clone());
            self.push_rtcp(source.clone());
        }
    }

    fn push_rtp(&mut self, source: Source) {
        push(&mut self.rtp, source, self.refusals);
    }

    fn push_rtcp(&mut self, source: Source) {
        push(&mut self.rtcp, source, self.refusals);
    }
}

#[derive(Clone, Copy)]
enum Component {
    Rtp,
    Rtcp,
}

fn push(sources: &mut Vec<Source>, source: Source, refusals: &mut Vec<Refusal>) {
    if sources.contains(&source) {
        return;
    }
    if sources.len() == MAX_REMEMBERED {
        refuse(refusals, Refusal::TooManySources);
        return;
    }
    sources.push(source);
}

/// A provider's media prefixes, ready to be used as sources: at most [`MAX_SOURCES`] of each address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nets {
    /// The configured prefixes; empty where the provider publishes none.
    pub listed: Box<[Source]>,
    /// The outermost limit: the prefixes, or everybody where there are none.
    pub limit: Box<[Source]>,
}

impl Nets {
    /// From the provider's configuration. A list that is longer than a pinhole can name is widened, neighbours first, to the
    /// nearest common prefixes: the operator trusts all of them, and cutting some off would cut calls off.
    pub fn new(media: &Media) -> Self {
        let ports = (*media.ports.start(), *media.ports.end());
        let v4 = media.prefixes.iter().filter(|net| net.addr().is_ipv4());
        let v6 = media.prefixes.iter().filter(|net| net.addr().is_ipv6());
        let listed: Box<[Source]> = [widen(v4.copied().collect()), widen(v6.copied().collect())]
            .into_iter()
            .flatten()
            .map(|net| Source { net, ports })
            .collect();
        let limit = if listed.is_empty() {
            [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
                .map(|net| Source { net, ports })
                .into()
        } else {
            listed.clone()
        };
        Self { listed, limit }
    }
}

fn widen(nets: Vec<IpNet>) -> Vec<IpNet> {
    let mut nets = IpNet::aggregate(&nets);
    nets.sort_unstable();
    while nets.len() > MAX_SOURCES {
        let narrowest = nets
            .windows(2)
            .enumerate()
            .filter_map(|(index, pair)| match pair {
                [first, second] => Some((index, common(*first, *second)?)),
                _ => None,
            })
            .max_by_key(|(_, net)| net.prefix_len());
        let Some((index, net)) = narrowest else {
            break;
        };
        nets.splice(index..index + 2, [net]);
        nets = IpNet::aggregate(&nets);
        nets.sort_unstable();
    }
    nets
}

/// The longest prefix that holds both.
fn common(first: IpNet, second: IpNet) -> Option<IpNet> {
    let mut net = first;
    while !net.contains(&second) {
        net = net.supernet()?;
    }
    Some(net)
}
