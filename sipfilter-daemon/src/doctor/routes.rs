//! Which way packets take: to the PBX, to the providers, and whether every way out is filtered.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use super::{Findings, links};
use crate::{
    config::Config,
    engine::settings::{Provider, Settings},
    view::Check,
};

/// The discard port: nothing is ever sent there, the kernel is only asked for the route.
const NOWHERE: u16 = 9;
/// Providers' addresses that are asked for each.
const TRIED: usize = 8;

pub(super) fn checks(config: &Config, settings: &Settings) -> Vec<Check> {
    let mut found = Findings::of("pbx");
    for address in &settings.pbx.addresses {
        protected(&mut found, *address, config);
    }
    private(&mut found, settings);
    let mut checks = found.checks;
    let mut found = Findings::of("routing");
    rp_filter(&mut found, &config.interfaces);
    checks.extend(found.checks);
    for provider in &settings.providers {
        let mut found = Findings::of(format!("provider {}", provider.name));
        reachable(&mut found, provider, &config.interfaces);
        checks.extend(found.checks);
    }
    checks
}

/// Where a protected address is: on this host, behind it, or nowhere.
fn protected(found: &mut Findings, address: IpAddr, config: &Config) {
    if let Some(holder) = links::holder(address) {
        return found.ok(
            "protected_addresses",
            format!("{address} is this host's, on {holder}"),
        );
    }
    let family = if address.is_ipv4() {
        "ipv4/ip_forward"
    } else {
        "ipv6/conf/all/forwarding"
    };
    let forwards = fs::read_to_string(format!("/proc/sys/net/{family}"))
        .is_ok_and(|value| value.trim() != "0");
    match source_towards(address) {
        Err(error) => found.problem(
            "protected_addresses",
            format!("{address} is not this host's, and there is no route to it ({error})"),
            "correct `pbx.addresses`: the addresses that packets from outside carry as their destination",
        ),
        Ok(source) => {
            let way = links::holder(source).unwrap_or_else(|| "?".to_owned());
            if config.interfaces.contains(&way) {
                found.problem(
                    "protected_addresses",
                    format!("{address} is not this host's, and its route leads out of {way}, which is an outer interface: no packet for it comes here"),
                    "correct `pbx.addresses`, or route the PBX's address to its inner interface; only a bridge is right like this",
                );
            } else if forwards {
                found.ok("protected_addresses", format!("{address} is behind this host, by {way}"));
            } else {
                found.problem(
                    "protected_addresses",
                    format!("{address} is behind this host, by {way}, and this host does not forward ({family} is 0)"),
                    format!("sysctl -w net.{}=1", family.replace('/', ".")),
                );
            }
        }
    }
}

/// Protected addresses that no provider can write into a packet: something in front of this host translates.
fn private(found: &mut Findings, settings: &Settings) {
    let pbx = &settings.pbx;
    let own: Vec<String> = pbx
        .addresses
        .iter()
        .filter(|address| is_private(**address))
        .map(IpAddr::to_string)
        .collect();
    let Some(first) = own.first() else {
        return;
    };
    let providers_are_private = settings
        .providers
        .iter()
        .flat_map(|provider| &provider.signalling)
        .all(|net| is_private(net.addr()));
    let is_translated = pbx
        .nat
        .values()
        .any(|public| pbx.addresses.contains(public));
    if !providers_are_private && !is_translated {
        found.warning(
            "nat",
            format!("{} private, and the providers are not: a translator in front of this host is in between, and the PBX's SDP must name the public address", match own.len() {
                1 => format!("{first} is"),
                _ => format!("{} are", own.join(", ")),
            }),
            format!("say what the PBX's SDP names and where it leads: [pbx.nat] \"PUBLIC ADDRESS\" = \"{first}\""),
        );
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        // RFC 6598 is between providers and their customers.
        IpAddr::V4(four) => {
            four.is_private()
                || four.is_link_local()
                || (four.octets()[0] == 100 && four.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(six) => six.is_unique_local(),
    }
}

/// Whether there is a route to each of a provider's prefixes, and by which interface.
fn reachable(found: &mut Findings, provider: &Provider, interfaces: &[String]) {
    let mut ways = Vec::new();
    for net in provider.signalling.iter().take(TRIED) {
        let address = net.hosts().next().unwrap_or_else(|| net.addr());
        match source_towards(address) {
            Ok(source) => ways.push((net, links::holder(source))),
            // Where this host has no IPv6 at all, the provider's IPv6 is of no use, and of no harm.
            Err(error) if address.is_ipv6() => found.ok(
                "route",
                format!("{net}: no IPv6 route ({error}), so it is not used"),
            ),
            Err(error) => found.problem(
                "route",
                format!("there is no route to {net} ({error})"),
                "give this host a default route, or a route to the provider",
            ),
        }
    }
    let unfiltered: Vec<String> = ways
        .iter()
        .filter_map(|(net, way)| {
            let way = way.as_ref()?;
            (!interfaces.contains(way)).then(|| format!("{net} by {way}"))
        })
        .collect();
    if let Some(first) = unfiltered.first() {
        found.warning(
            "way_out",
            format!("packets to {first} leave by an interface that is not filtered; the PBX's side of calls may not be seen there"),
            "list every interface that leads to providers under `interfaces` (a VLAN's or bridge's own, not its parts)",
        );
    } else if !ways.is_empty() {
        let names: Vec<&str> = ways.iter().filter_map(|(_, way)| way.as_deref()).collect();
        found.ok(
            "route",
            format!(
                "{} of its prefixes are routed, by {}",
                ways.len(),
                names.first().unwrap_or(&"?")
            ),
        );
    }
}

/// The address that the kernel would send from.
fn source_towards(address: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, NOWHERE))?;
    Ok(socket.local_addr()?.ip())
}

/// Strict reverse-path filtering (RFC 3704) and more than one way out.
fn rp_filter(found: &mut Findings, interfaces: &[String]) {
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"))
            .ok()
            .and_then(|text| text.trim().parse::<u8>().ok())
    };
    let Some(all) = read("all") else {
        return found.unknown(
            "rp_filter",
            "net.ipv4.conf.all.rp_filter cannot be read",
            "where there are several outer interfaces, see that `sysctl -a -r rp_filter` shows 0 or 2",
        );
    };
    let strict: Vec<&str> = interfaces
        .iter()
        .filter(|name| links::exists(name) && read(name).unwrap_or(all).max(all) == 1)
        .map(String::as_str)
        .collect();
    if strict.is_empty() || interfaces.len() < 2 {
        found.ok(
            "rp_filter",
            "strict reverse-path filtering is off, or there is one way out only",
        );
    } else {
        found.warning(
            "rp_filter",
            format!("{} outer interfaces, and strict reverse-path filtering on {}: what comes in by one while its route leads out by another is dropped", interfaces.len(), strict.join(", ")),
            format!("sysctl -w net.ipv4.conf.{}.rp_filter=2, and the same for `all`, if routes are not symmetric", strict[0]),
        );
    }
}
