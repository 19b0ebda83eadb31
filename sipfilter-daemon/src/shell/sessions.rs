//! TCP connections to this host that are established at the start of strict scope, on ports that its allow-list does not name: they go
//! on, but the next one would not come about, which is better said while somebody is still logged in.
//!
//! It only warns. Connections to a PBX behind this host cannot be seen from here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;

use crate::{
    engine::settings::{Allow, Scope, Settings},
    ranges::entries_by_prefix,
};

/// Where the kernel lists TCP sockets (proc(5)).
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
const ESTABLISHED: &str = "01";
const LISTENING: &str = "0A";
/// IANA protocol number.
const TCP: u16 = 6;
/// Peers that one warning names.
const MAX_PEERS: usize = 3;

/// A port with established connections from where no new ones will be let in.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAllowed {
    port: u16,
    peers: BTreeSet<IpAddr>,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self
            .peers
            .iter()
            .take(MAX_PEERS)
            .map(IpAddr::to_string)
            .collect();
        let more = self.peers.len().saturating_sub(MAX_PEERS);
        write!(
            f,
            "strict scope: connections to TCP port {} are established from {}",
            self.port,
            shown.join(", ")
        )?;
        if more > 0 {
            write!(f, " and {more} others")?;
        }
        write!(
            f,
            "; they go on, but new ones will be dropped: add [[strict.allow]] with protocol = \"tcp\", ports = [\"{}\"]",
            self.port
        )
    }
}

/// One line of the kernel's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    listens: bool,
}

/// What the allow-list of strict scope would no longer let in; nothing in any other scope.
pub fn not_allowed(settings: &Settings) -> Vec<NotAllowed> {
    let Scope::Strict(rules) = &settings.filtering.scope else {
        return Vec::new();
    };
    let sockets: Vec<Socket> = TABLES
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| parse(&text))
        .collect();
    judge(&sockets, rules, settings)
}

fn judge(sockets: &[Socket], rules: &[Allow], settings: &Settings) -> Vec<NotAllowed> {
    let lists = entries_by_prefix(rules);
    let is_allowed = |from: IpAddr, port: u16| {
        lists
            .iter()
            .filter(|(prefix, _)| prefix.contains(&from))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .is_some_and(|(_, list)| {
                list.iter()
                    .any(|entry| entry.protocol == TCP && (entry.min..=entry.max).contains(&port))
            })
    };
    let listening: BTreeSet<u16> = sockets
        .iter()
        .filter(|socket| socket.listens)
        .map(|socket| socket.local.port())
        .collect();
    let sip = &settings.pbx.signalling;
    let providers: Vec<IpNet> = settings
        .providers
        .iter()
        .flat_map(|provider| provider.signalling.clone())
        .collect();
    let mut found: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for socket in sockets {
        let (port, from) = (socket.local.port(), socket.remote.ip().to_canonical());
        let is_ours = listening.contains(&port)
            && settings
                .pbx
                .addresses
                .contains(&socket.local.ip().to_canonical());
        // SIP ports are the providers', and the rule on them says so in every scope.
        let is_sip = sip.tcp.contains(&port) || sip.tls.contains(&port);
        let is_provider = providers.iter().any(|net| net.contains(&from));
        if !socket.listens && is_ours && !is_sip && !is_provider && !is_allowed(from, port) {
            found.entry(port).or_default().insert(from);
        }
    }
    found
        .into_iter()
        .map(|(port, peers)| NotAllowed { port, peers })
        .collect()
}

/// Established and listening sockets; what cannot be read is left out.
fn parse(text: &str) -> Vec<Socket> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace().skip(1);
            let local = parse_socket(columns.next()?)?;
            let remote = parse_socket(columns.next()?)?;
            let state = columns.next()?;
            (state == ESTABLISHED || state == LISTENING).then_some(Socket {
                local,
                remote,
                listens: state == LISTENING,
            })
        })
        .collect()
}

/// An address as the kernel prints it: its 32-bit words in the machine's byte order, in hexadecimal, and the port.
fn parse_socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Vec<[u8; 4]> = (0..address.len())
        .step_by(8)
        .map(|at| {
            let word = address.get(at..at + 8)?;
            Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    let ip = match words.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        [_, _, _, _] => Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// An address as the kernel prints it on this machine.
    fn printed(socket: &str) -> String {
        let socket: SocketAddr = socket.parse().expect("a socket address");
        let bytes = match socket.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words: String = bytes
            .chunks_exact(4)
            .map(|word| {
                let word = <[u8; 4]>::try_from(word).expect("four bytes");
                format!("{:08X}", u32::from_ne_bytes(word))
            })
            .collect();
        format!("{words}:{:04X}", socket.port())
    }

    #[test]
    fn only_sessions_that_could_not_come_again_are_named() {
        let text = r#"
interfaces = ["eth0"]
scope = "strict"
[pbx]
preset = "asterisk"
addresses = ["203.0.113.10", "2001:db8::10"]
[[trunk]]
provider = "vapi-us"
[[strict.allow]]
protocol = "tcp"
ports = ["22"]
from = ["192.0.2.0/24"]
"#;
        let settings = Config::parse(Path::new("sipfilter.toml"), text)
            .expect("it is good")
            .settings;
        let lines = [
            ("0.0.0.0:22", "0.0.0.0:0", LISTENING),
            ("[::]:8080", "[::]:0", LISTENING),
            ("203.0.113.10:5060", "0.0.0.0:0", LISTENING),
            // Allowed.
            ("203.0.113.10:22", "192.0.2.7:40000", ESTABLISHED),
            // From where nothing is allowed, once in IPv6 clothes.
            ("203.0.113.10:22", "198.51.100.7:40000", ESTABLISHED),
            (
                "[::ffff:203.0.113.10]:22",
                "[::ffff:198.51.100.8]:40000",
                ESTABLISHED,
            ),
            ("[2001:db8::10]:8080", "[2001:db8::7]:40000", ESTABLISHED),
            // The host's own connection, another state, another address, and SIP.
            ("203.0.113.10:45678", "198.51.100.7:443", ESTABLISHED),
            ("203.0.113.10:22", "198.51.100.9:40000", "06"),
            ("127.0.0.1:22", "127.0.0.1:40000", ESTABLISHED),
            ("203.0.113.10:5060", "198.51.100.7:40000", ESTABLISHED),
        ];
        let table: String = lines
            .iter()
            .map(|(local, remote, state)| {
                format!(
                    "   0: {} {} {state} 00000000:00000000\n",
                    printed(local),
                    printed(remote)
                )
            })
            .collect();
        let Scope::Strict(rules) = &settings.filtering.scope else {
            panic!("strict scope");
        };
        let found = judge(
            &parse(&format!("  sl  local_address\n{table}")),
            rules,
            &settings,
        );
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("TCP port 22 are established from 198.51.100.7, 198.51.100.8;"));
        assert!(found[1].contains("TCP port 8080 are established from 2001:db8::7;"));
    }
}
