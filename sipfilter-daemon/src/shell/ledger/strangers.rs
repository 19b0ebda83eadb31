//! Who knocks: SIP from addresses that are no provider's, by network, with what its messages claim.
//!
//! Nothing that they claim is believed; it is told, because a provider whose addresses have changed looks like this. Bounded in networks
//! and in what is remembered of each; those that claim a provider's domain have places of their own, so that no flood of others pushes
//! them out.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::SystemTime,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Seen, forget_least};
use crate::{
    engine::sip::claims::{Claims, read_claims},
    view,
};

/// Networks that claim a provider's domain.
const MAX_CLAIMING: usize = 512;
/// Networks that do not.
const MAX_OTHERS: usize = 1_536;
/// Texts of one kind that are remembered of a network.
const MAX_TEXTS: usize = 4;
/// Methods that are told apart.
const MAX_METHODS: usize = 8;

/// Domains by which the catalogue's providers sign, and the beginning of the provider's name.
const DOMAINS: [(&str, &str); 12] = [
    ("bland.ai", "bland"),
    ("didww.com", "didww"),
    ("elevenlabs.io", "elevenlabs"),
    ("flynumber.com", "flynumber"),
    ("livekit.cloud", "livekit"),
    ("nexmo.com", "vonage"),
    ("retellai.com", "retell"),
    ("tokbox.com", "vonage"),
    ("twilio.com", "twilio"),
    ("vapi.ai", "vapi"),
    ("vonage.com", "vonage"),
    ("vonagebusiness.com", "vonage"),
];

/// The networks.
#[derive(Debug)]
pub(super) struct Knocking {
    /// The trunks' providers.
    pub trunks: Vec<String>,
    claiming: HashMap<IpNet, Entry>,
    others: HashMap<IpNet, Entry>,
    forgotten: u64,
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// The provider whose domain is claimed, and whether it is a trunk's.
    claims: Option<(String, bool)>,
    methods: BTreeMap<String, u64>,
    user_agents: Vec<String>,
    domains: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Knocking {
    pub fn new(trunks: Vec<String>) -> Self {
        Self {
            trunks,
            claiming: HashMap::new(),
            others: HashMap::new(),
            forgotten: 0,
        }
    }

    pub fn handle(&mut self, source: IpAddr, payload: &[u8], packets: f64, wall: SystemTime) {
        let network = network(source);
        let claims = read_claims(payload);
        let domains = claims.iter().flat_map(|claims| &claims.domains);
        let claimed = domains
            .filter_map(|domain| self.provider(domain))
            .max_by_key(|(_, is_trunk)| *is_trunk);
        let is_claiming = claimed.is_some() || self.claiming.contains_key(&network);
        let (table, max, known) = if is_claiming {
            // One that begins to claim brings along what is known of it.
            let known = self.others.remove(&network);
            (&mut self.claiming, MAX_CLAIMING, known)
        } else {
            (&mut self.others, MAX_OTHERS, None)
        };
        if table.len() >= max && !table.contains_key(&network) {
            self.forgotten += forget_least(table, |entry| entry.seen.packets);
        }
        let entry = table
            .entry(network)
            .or_insert_with(|| known.unwrap_or_else(|| Entry::new(wall)));
        entry.seen.add(wall, packets);
        entry.note(source, claims, claimed);
    }

    /// At most so many, and how many there are besides.
    pub fn view(&self, limit: usize) -> (Vec<view::Stranger>, u64) {
        let mut all: Vec<_> = self
            .claiming
            .iter()
            .chain(&self.others)
            .map(|(network, entry)| entry.view(*network))
            .collect();
        let rank = |stranger: &view::Stranger| {
            (
                stranger.is_trunk,
                stranger.claims.is_some(),
                stranger.packets,
            )
        };
        all.sort_by(|a, b| {
            rank(b)
                .cmp(&rank(a))
                .then_with(|| a.network.cmp(&b.network))
        });
        let hidden = all.len().saturating_sub(limit) as u64;
        all.truncate(limit);
        (all, self.forgotten + hidden)
    }

    /// The provider that a domain belongs to, and whether it is a trunk's: by the catalogue's domains, or because one of the domain's
    /// labels is the name of a trunk's provider.
    fn provider(&self, domain: &str) -> Option<(String, bool)> {
        let known = DOMAINS.iter().find(|(suffix, _)| {
            let front = domain.strip_suffix(suffix);
            front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
        });
        if let Some((_, name)) = known {
            let trunk = self.trunks.iter().find(|trunk| trunk.starts_with(name));
            return Some(match trunk {
                Some(trunk) => (trunk.clone(), true),
                None => ((*name).to_owned(), false),
            });
        }
        let trunk = self
            .trunks
            .iter()
            .find(|trunk| domain.split('.').any(|label| label == *trunk))?;
        Some((trunk.clone(), true))
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.claiming.len(), self.others.len())
    }
}

impl Entry {
    fn new(wall: SystemTime) -> Self {
        Self {
            seen: Seen::at(wall),
            claims: None,
            methods: BTreeMap::new(),
            user_agents: Vec::new(),
            domains: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn note(&mut self, source: IpAddr, claims: Option<Claims>, claimed: Option<(String, bool)>) {
        remember(&mut self.addresses, source);
        let claims = claims.unwrap_or_else(|| Claims {
            method: "-".to_owned(),
            ..Claims::default()
        });
        let is_known = self.methods.contains_key(&claims.method);
        let method = if is_known || self.methods.len() < MAX_METHODS {
            claims.method
        } else {
            "other".to_owned()
        };
        *self.methods.entry(method).or_default() += 1;
        if let Some(agent) = claims.user_agent {
            remember(&mut self.user_agents, agent);
        }
        for domain in claims.domains {
            remember(&mut self.domains, domain);
        }
        let is_trunk = self.claims.as_ref().is_some_and(|(_, is_trunk)| *is_trunk);
        if let Some(claimed) = claimed
            && !is_trunk
        {
            self.claims = Some(claimed);
        }
    }

    fn view(&self, network: IpNet) -> view::Stranger {
        view::Stranger {
            network,
            claims: self.claims.as_ref().map(|(name, _)| name.clone()),
            is_trunk: self.claims.as_ref().is_some_and(|(_, is_trunk)| *is_trunk),
            advice: None,
            packets: self.seen.packets(),
            samples: self.seen.samples,
            methods: self.methods.clone(),
            user_agents: self.user_agents.clone(),
            domains: self.domains.clone(),
            addresses: self.addresses.clone(),
            first_seen: view::time(self.seen.first),
            last_seen: view::time(self.seen.last),
        }
    }
}

fn remember<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if list.len() < MAX_TEXTS && !list.contains(&item) {
        list.push(item);
    }
}

fn network(address: IpAddr) -> IpNet {
    let network = match address {
        IpAddr::V4(four) => Ipv4Net::new(four, 24).map(|net| net.trunc().into()),
        IpAddr::V6(six) => Ipv6Net::new(six, 48).map(|net| net.trunc().into()),
    };
    network.unwrap_or_else(|_| address.into())
}
