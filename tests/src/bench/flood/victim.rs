//! One attacked host each: a namespace behind a veth pair, with one of the defences.

use anyhow::{Context as _, Result, ensure};
use sipfilter_common::{
    abi::map,
    reason::{Action, Counter, Reason},
};
use sipfilter_daemon::{
    config::XdpMode,
    engine::pinhole::{Pinhole, PinholeAction, PinholeResult},
    shell::{
        clock, counters::Counters, datapath::Datapath, map_writer::MapWriter, policy::KernelPolicy,
    },
};

use super::Programs;
use crate::{
    lab::namespace::{self, Namespace},
    policy::cases::{pinholes, settings},
};

/// The attacked address: the PBX of the policy's cases.
pub const ADDRESS: &str = "203.0.113.10";
/// Its SIP port.
pub const SIP: u16 = 5_060;
/// How many pinholes are open, from [`OPEN`] on.
pub const PINHOLES: u16 = 1_000;
const OPEN: u16 = 10_000;
/// The first port without one.
pub const CLOSED: u16 = OPEN + PINHOLES;

const INTERFACE: &str = "outer0";

/// What stands in front of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defence {
    /// A program that drops everything: what XDP can do at best.
    XdpDrop,
    /// sipfilter.
    Sipfilter,
    /// nftables with sets of pinholes and providers, as early as it goes without a connection table.
    NftRaw,
    /// nftables with conntrack and its SIP helper.
    NftHelper,
}

impl Defence {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::XdpDrop,
        Self::Sipfilter,
        Self::NftRaw,
        Self::NftHelper,
    ];

    /// What a reader knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::XdpDrop => "XDP_DROP alone",
            Self::Sipfilter => "sipfilter",
            Self::NftRaw => "nftables, raw prerouting",
            Self::NftHelper => "nftables, conntrack and SIP helper",
        }
    }
}

/// An attacked host.
pub struct Victim {
    namespace: Namespace,
    /// Its defence.
    pub defence: Defence,
    /// The attacker's interface towards it.
    pub attacked_from: String,
    sipfilter: Option<(Datapath, Counters)>,
}

impl Victim {
    /// Makes the host, joins it to the attacker and puts its defence up.
    ///
    /// # Errors
    /// Where a program is missing or the kernel refuses.
    pub fn create(
        lab: &str,
        attacker: &Namespace,
        defence: Defence,
        programs: &mut Programs,
    ) -> Result<Self> {
        let number = Defence::ALL.iter().position(|known| *known == defence);
        let number = number.unwrap_or_default();
        let namespace = Namespace::create(lab, &format!("victim{number}"))?;
        let attacked_from = format!("to{number}");
        namespace::join((attacker, &attacked_from), (&namespace, INTERFACE))?;
        // The address that the cases' frames are sent to.
        namespace.ip(&format!("link set {INTERFACE} address 02:00:00:00:00:01"))?;
        namespace.ip(&format!("address add {ADDRESS}/24 dev {INTERFACE}"))?;
        let mut this = Self {
            namespace,
            defence,
            attacked_from,
            sipfilter: None,
        };
        match defence {
            Defence::XdpDrop => {
                let program = programs.xdp("drop")?;
                this.namespace
                    .enter(|| program.attach(INTERFACE, aya::programs::XdpMode::Driver))??;
            }
            Defence::Sipfilter => this.sipfilter = Some(this.filter()?),
            Defence::NftRaw => this.nft(&raw_rules())?,
            Defence::NftHelper => this.nft(&helper_rules())?,
        }
        Ok(this)
    }

    fn filter(&self) -> Result<(Datapath, Counters)> {
        let capacity = 65_536;
        let mut datapath = Datapath::load(&KernelPolicy::new(&settings()), capacity, None)?;
        let mut writer = MapWriter::new(&mut datapath, capacity)?;
        let template = pinholes().into_iter().next().context("no pinhole")?;
        for port in OPEN..CLOSED {
            let pinhole = Pinhole {
                local: format!("{ADDRESS}:{port}").parse()?,
                ..template.clone()
            };
            let done = writer.apply(&PinholeAction::Open(pinhole), clock::now());
            ensure!(
                done == PinholeResult::Done,
                "a pinhole was refused: {done:?}"
            );
        }
        let counters = datapath.take(map::COUNTERS)?;
        self.namespace
            .enter(|| datapath.attach(INTERFACE, XdpMode::Native))??;
        Ok((datapath, counters))
    }

    /// Without a program of its own, a veth takes redirected frames only where it merges packets (GRO), as network cards do.
    fn nft(&self, rules: &str) -> Result<()> {
        let mut ethtool = self.namespace.command("ethtool");
        namespace::run(ethtool.args(["-K", INTERFACE, "gro", "on"]))?;
        let mut nft = self.namespace.command("sh");
        namespace::run(nft.args(["-c", &format!("nft -f - <<'END'\n{rules}\nEND")]))
            .context("nft did not take the rules")?;
        Ok(())
    }

    /// How many packets its interface has taken from the ring between the two ends.
    ///
    /// # Errors
    /// Where ethtool fails.
    pub fn received(&self) -> Result<u64> {
        let mut ethtool = self.namespace.command("ethtool");
        let shown = namespace::run(ethtool.args(["-S", INTERFACE]))?;
        let counts = shown.lines().filter_map(|line| {
            let (name, count) = line.trim().split_once(": ")?;
            let ours = name.starts_with("rx_queue_") && name.ends_with("_xdp_packets");
            ours.then(|| count.parse::<u64>().ok())?
        });
        Ok(counts.sum())
    }

    /// How many UDP packets reached the host's own stack.
    ///
    /// # Errors
    /// Where the counts cannot be read.
    pub fn passed(&self) -> Result<u64> {
        if let Some((_, counters)) = &self.sipfilter {
            let passing = Reason::ALL
                .iter()
                .filter(|reason| {
                    reason.action() == Action::Pass
                        // The host's own doing: address resolution and the like.
                        && ![Reason::NotIp, Reason::OtherProtocol, Reason::NotProtected, Reason::EgressOther].contains(reason)
                });
            let mut passed = 0;
            for reason in passing {
                passed += counters.read(Counter::Reason(*reason))?.packets;
            }
            return Ok(passed);
        }
        // Packets that the stack refused for their own sake never met the firewall.
        let refused = self.snmp("Ip", "InHdrErrors")? + self.snmp("Ip", "InAddrErrors")?;
        ensure!(refused == 0, "the host refused {refused} packets as broken");
        Ok(self.snmp("Udp", "InDatagrams")? + self.snmp("Udp", "NoPorts")?)
    }

    /// One number of `/proc/net/snmp` (proc_net_snmp(5)): a line of names and a line of numbers for each protocol.
    fn snmp(&self, protocol: &str, name: &str) -> Result<u64> {
        let path = "/proc/thread-self/net/snmp";
        let text = self.namespace.enter(|| std::fs::read_to_string(path))??;
        let mut lines = text.lines().filter_map(|line| {
            let (of, rest) = line.split_once(": ")?;
            (of == protocol).then_some(rest.split_whitespace())
        });
        let (names, numbers) = (lines.next(), lines.next());
        names
            .into_iter()
            .flatten()
            .zip(numbers.into_iter().flatten())
            .find_map(|(known, number)| (known == name).then(|| number.parse().ok())?)
            .with_context(|| format!("{path} has no {protocol} {name}"))
    }
}

fn sets() -> String {
    let pinholes: Vec<String> = (OPEN..CLOSED)
        .map(|port| format!("{ADDRESS} . {port}"))
        .collect();
    format!(
        "set providers {{ type ipv4_addr; flags interval; elements = {{ 198.51.100.8/29 }}; }}\n\
         set pinholes {{ type ipv4_addr . inet_service; elements = {{ {} }}; }}\n",
        pinholes.join(", ")
    )
}

/// What sipfilter decides, as far as nftables can say it.
fn raw_rules() -> String {
    format!(
        "table inet filter {{\n{}\
         chain early {{ type filter hook prerouting priority raw; policy accept;\n\
         udp dport {SIP} ip saddr @providers accept\n\
         udp dport {SIP} drop\n\
         udp dport 10000-20000 ip daddr . udp dport @pinholes accept\n\
         udp dport 10000-20000 drop\n\
         }}\n}}",
        sets()
    )
}

/// The usual firewall of a PBX: the helper expects the media of the providers' calls, everything else is dropped.
fn helper_rules() -> String {
    format!(
        "table inet filter {{\n{}\
         ct helper sip {{ type \"sip\" protocol udp; }}\n\
         chain track {{ type filter hook prerouting priority -150; policy accept;\n\
         udp dport {SIP} ip saddr @providers ct helper set \"sip\"\n\
         }}\n\
         chain input {{ type filter hook input priority filter; policy drop;\n\
         ct state established,related accept\n\
         iifname lo accept\n\
         udp dport {SIP} ip saddr @providers accept\n\
         }}\n}}",
        sets()
    )
}
