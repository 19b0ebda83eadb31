//! Who listens: the PBX's SIP ports, other programs in the middle of the media ports, and helpers of the kernel that rewrite SIP.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::Findings;
use crate::{engine::settings::Settings, view::Check};

const LISTENING: &str = "0A";
/// Programs that media ports are for.
const PBX: [&str; 12] = [
    "asterisk",
    "freeswitch",
    "3cxphonesystem",
    "3cxmediaserver",
    "rtpengine",
    "rtpproxy",
    "kamailio",
    "opensips",
    "baresip",
    "sipp",
    "yate",
    "sems",
];

/// A socket of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    inode: u64,
}

pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let mut found = Findings::of("sockets");
    let udp: Vec<Socket> = table(&["udp", "udp6"], None);
    let tcp: Vec<Socket> = table(&["tcp", "tcp6"], Some(LISTENING));
    let owners = owners();
    let is_here = settings
        .pbx
        .addresses
        .iter()
        .any(|address| super::links::holder(*address).is_some());
    listeners(&mut found, settings, is_here, (&udp, &tcp), &owners);
    if is_here {
        intruders(&mut found, settings, &udp, &owners);
    }
    alg(
        &mut found,
        &fs::read_to_string("/proc/modules").unwrap_or_default(),
        fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_helper")
            .ok()
            .as_deref(),
    );
    found.checks
}

/// The PBX's own SIP sockets, where it is on this host.
fn listeners(
    found: &mut Findings,
    settings: &Settings,
    is_here: bool,
    (udp, tcp): (&[Socket], &[Socket]),
    owners: &BTreeMap<u64, String>,
) {
    if !is_here {
        return found.ok(
            "sip_sockets",
            "the PBX is not on this host, so its sockets cannot be seen from here",
        );
    }
    let ports = &settings.pbx.signalling;
    let mut seen = Vec::new();
    for (name, ports, sockets) in [
        ("UDP", &ports.udp, udp),
        ("TCP", &ports.tcp, tcp),
        ("TLS", &ports.tls, tcp),
    ] {
        for port in ports {
            if let Some(socket) = sockets.iter().find(|socket| socket.local.port() == *port) {
                let owner = owners
                    .get(&socket.inode)
                    .map_or("a program", String::as_str);
                seen.push(format!("{name} {port} ({owner})"));
            }
        }
    }
    if seen.is_empty() {
        found.problem(
            "sip_sockets",
            "nothing on this host listens on any of the PBX's SIP ports",
            "start the PBX, or set `pbx.sip_ports` to where it listens",
        );
    } else {
        found.ok("sip_sockets", format!("listening: {}", seen.join(", ")));
    }
}

/// Sockets in the range of media that are no PBX's: what they wait for is dropped.
fn intruders(
    found: &mut Findings,
    settings: &Settings,
    udp: &[Socket],
    owners: &BTreeMap<u64, String>,
) {
    let range = &settings.pbx.rtp_ports;
    let mut strangers: Vec<String> = Vec::new();
    let mut unnamed = 0_usize;
    for socket in udp {
        let is_reached = socket.local.ip().is_unspecified()
            || settings
                .pbx
                .addresses
                .contains(&socket.local.ip().to_canonical());
        if !range.contains(&socket.local.port()) || !is_reached {
            continue;
        }
        match owners.get(&socket.inode) {
            Some(owner) if PBX.iter().any(|pbx| owner.to_lowercase().starts_with(pbx)) => {}
            Some(owner) => strangers.push(format!("{owner} on {}", socket.local)),
            None => unnamed += 1,
        }
    }
    strangers.sort();
    strangers.dedup();
    if !strangers.is_empty() {
        let more = strangers.len().saturating_sub(3);
        strangers.truncate(3);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        found.warning(
            "media_ports_used",
            format!("within pbx.rtp_ports {}-{}: {}{more}; what comes from outside to them is dropped (`no_pinhole`)", range.start(), range.end(), strangers.join(", ")),
            "if they are no part of the PBX, move them, or make `pbx.rtp_ports` narrower",
        );
    } else if unnamed > 0 {
        found.unknown(
            "media_ports_used",
            format!("{unnamed} sockets within pbx.rtp_ports, whose programs only root can see"),
            "run doctor as root, or look yourself: ss -ulnp",
        );
    } else {
        found.ok(
            "media_ports_used",
            "no other program has a UDP socket within pbx.rtp_ports",
        );
    }
}

/// The kernel's SIP helper rewrites addresses in SIP and SDP behind everybody's back.
fn alg(found: &mut Findings, modules: &str, helper: Option<&str>) {
    let is_loaded = |name: &str| {
        modules
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let loaded: Vec<&str> = ["nf_conntrack_sip", "nf_nat_sip"]
        .into_iter()
        .filter(|name| is_loaded(name))
        .collect();
    let is_automatic = helper.is_some_and(|value| value.trim() == "1");
    match (loaded.is_empty(), is_automatic) {
        (true, _) => found.ok("sip_alg", "the kernel's SIP helper (nf_conntrack_sip) is not loaded"),
        (false, true) => found.problem(
            "sip_alg",
            format!("{} loaded and given to every connection (nf_conntrack_helper = 1): SIP and SDP are rewritten on their way", loaded.join(", ")),
            "sysctl net.netfilter.nf_conntrack_helper=0; rmmod nf_nat_sip nf_conntrack_sip, and blacklist both in /etc/modprobe.d",
        ),
        (false, false) => found.warning(
            "sip_alg",
            format!("{} loaded: a rule with a CT helper may have SIP and SDP rewritten", loaded.join(", ")),
            "rmmod nf_nat_sip nf_conntrack_sip, unless a rule of yours means it (`nft list ruleset | grep sip`)",
        ),
    }
}

/// Sockets of `/proc/net`, those in one state only where that is asked for.
fn table(names: &[&str], state: Option<&str>) -> Vec<Socket> {
    names
        .iter()
        .filter_map(|name| fs::read_to_string(format!("/proc/net/{name}")).ok())
        .flat_map(|text| parse(&text, state))
        .collect()
}

fn parse(text: &str, state: Option<&str>) -> Vec<Socket> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let local = address(columns.get(1)?)?;
            let inode = columns.get(9)?.parse().ok()?;
            let is_wanted = state.is_none_or(|state| columns.get(3) == Some(&state));
            is_wanted.then_some(Socket { local, inode })
        })
        .collect()
}

/// An address as proc(5) has it: 32-bit words in the machine's byte order, in hexadecimal, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Vec<[u8; 4]> = (0..address.len())
        .step_by(8)
        .map(|at| {
            Some(
                u32::from_str_radix(address.get(at..at + 8)?, 16)
                    .ok()?
                    .to_ne_bytes(),
            )
        })
        .collect::<Option<_>>()?;
    let ip: IpAddr = match words.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        [_, _, _, _] => Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The names of the programs that hold sockets, as far as this process may see.
fn owners() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let Ok(descriptors) = fs::read_dir(path.join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target.to_str().and_then(|text| {
                text.strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            });
            if let Some(inode) = inode {
                let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                owners.insert(inode, name.trim().replace(char::is_control, "\u{fffd}"));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_a_problem_where_it_is_given_to_everybody() {
        let loaded =
            "nf_conntrack_sip 45056 1 nf_nat_sip, Live 0x0\nnf_nat_sip 20480 0 - Live 0x0\n";
        for (modules, helper, outcome) in [
            ("ip_tables 32768 0 - Live 0x0\n", Some("1\n"), "ok"),
            (loaded, Some("1\n"), "problem"),
            (loaded, Some("0\n"), "warning"),
            (loaded, None, "warning"),
        ] {
            let mut found = Findings::of("sockets");
            alg(&mut found, modules, helper);
            assert_eq!(found.checks[0].outcome, outcome, "{modules} {helper:?}");
        }
    }

    #[test]
    fn sockets_are_read_with_their_owners_number() {
        let line = "  sl  local_address rem_address st tx_queue\n 12: 00000000:2710 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0 0\n";
        let sockets = parse(line, None);
        assert_eq!(
            sockets,
            [Socket {
                local: "0.0.0.0:10000".parse().expect("an address"),
                inode: 4711
            }]
        );
        assert_eq!(parse(line, Some(LISTENING)), []);
    }
}
