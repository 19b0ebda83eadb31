//! The namespaces and how they are joined, in the three shapes that users have.
//!
//! Provider and stranger share the edge's outer link through a switch (a bridge in a namespace of its own), as two hosts on the
//! Internet would share an uplink: the filter sees both on one interface. Nothing here knows of calls or of the filter.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::tc::{SchedClassifier, TcAttachType};

use super::{
    address::{Family, PBX_RTP_FIRST, PBX_RTP_LAST, Place, SIP_PORT},
    cleanup::{self, Directory},
    namespace::{Namespace, bare, join, run},
    service,
    tagger::Tagger,
};

/// The edge's outer interface: the one that the filter is attached to.
pub const OUTER: &str = "outer0";
/// The other end of its link, at the switch.
pub const OUTER_PEER: &str = "p2";
const INNER: &str = "inner0";
/// The interface of provider and stranger.
pub const UPLINK: &str = "eth0";
const UNTAGGED: &str = "lan0";

/// Where the PBX stands, and what its SDP says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// The edge forwards to a PBX with a public address behind it.
    Routed,
    /// The PBX runs on the edge itself.
    OnHost,
    /// The edge translates addresses; the PBX knows its public address and writes it into SDP.
    Nat,
    /// The edge translates addresses; the PBX writes its private address into SDP.
    NatPrivate,
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Routed, Self::OnHost, Self::Nat, Self::NatPrivate];

    /// Whether the edge translates addresses.
    #[must_use]
    pub fn is_nat(self) -> bool {
        matches!(self, Self::Nat | Self::NatPrivate)
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Routed => "routed",
            Self::OnHost => "on-host",
            Self::Nat => "nat",
            Self::NatPrivate => "nat-private",
        })
    }
}

impl FromStr for Topology {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|topology| topology.to_string() == text)
            .ok_or_else(|| {
                anyhow!(
                    "no topology is called `{text}`; there are routed, on-host, nat and nat-private"
                )
            })
    }
}

/// The namespaces of one lab.
#[derive(Debug)]
pub struct Network {
    /// Which shape it has.
    pub topology: Topology,
    /// Which addresses its calls use.
    pub family: Family,
    /// The voice provider.
    pub provider: Namespace,
    /// Somebody else on the Internet.
    pub stranger: Namespace,
    /// The host that the filter protects or runs on.
    pub edge: Namespace,
    /// Configuration, logs, and the daemon's runtime directory.
    pub directory: Directory,
    behind: Option<Namespace>,
    tags: Vec<u16>,
    taggers: Vec<Tagger>,
    /// Joins provider, stranger and edge.
    pub switch: Namespace,
}

impl Network {
    /// Builds the namespaces and proves that they reach one another. Everything on the edge's outer link carries the VLAN `tags`, the
    /// outermost first; with two of them the first is a service tag (IEEE 802.1ad).
    ///
    /// # Errors
    /// Without root's privileges, where a tool is missing, or where the family is not offered by the topology.
    pub fn build(topology: Topology, family: Family, tags: &[u16]) -> Result<Self> {
        if topology.is_nat() && family == Family::V6 {
            anyhow::bail!(
                "the nat topologies are IPv4 only: nobody translates IPv6 in front of a PBX"
            );
        }
        cleanup::prepare();
        let name = cleanup::unique_name();
        let mut this = Self {
            topology,
            family,
            provider: Namespace::create(&name, "provider")?,
            stranger: Namespace::create(&name, "stranger")?,
            switch: Namespace::create(&name, "switch")?,
            edge: Namespace::create(&name, "edge")?,
            behind: match topology {
                Topology::OnHost => None,
                _ => Some(Namespace::create(&name, "pbx")?),
            },
            directory: Directory::create(&name)?,
            tags: tags.to_vec(),
            taggers: Vec::new(),
        };
        this.build_outside()?;
        this.build_inside()?;
        this.prove_reachability()?;
        Ok(this)
    }

    /// The namespace in which the PBX runs.
    #[must_use]
    pub fn pbx(&self) -> &Namespace {
        self.behind.as_ref().unwrap_or(&self.edge)
    }

    /// Where the edge's plain TCP service listens: on a protected address wherever the edge has one.
    #[must_use]
    pub fn service_place(&self) -> Place {
        match self.topology {
            Topology::Routed => Place::PbxGateway,
            _ => Place::PbxCallee,
        }
    }

    /// The place whose address the PBX itself has, for a place as the outside sees it.
    #[must_use]
    pub fn inside(&self, outside: Place) -> Place {
        match (self.topology.is_nat(), outside) {
            (true, Place::PbxCallee) => Place::PrivateCallee,
            (true, Place::PbxCaller) => Place::PrivateCaller,
            _ => outside,
        }
    }

    /// The edge's interface towards the outside that has the addresses: the outer one itself, unless its packets are tagged.
    fn outer_stack(&self) -> &'static str {
        if self.tags.is_empty() {
            OUTER
        } else {
            UNTAGGED
        }
    }

    /// Puts a tagger at each end of the edge's outer link.
    fn tag_outer_link(&mut self) -> Result<()> {
        if self.tags.is_empty() {
            return Ok(());
        }
        join((&self.switch, "plain0"), (&self.switch, "plain1"))?;
        self.switch.ip("link set p2 nomaster")?;
        self.switch.ip("link set plain0 master br0")?;
        join((&self.edge, UNTAGGED), (&self.edge, "plain1"))?;
        for (namespace, tagged) in [(&self.switch, OUTER_PEER), (&self.edge, OUTER)] {
            self.taggers
                .push(Tagger::start(namespace, "plain1", tagged, &self.tags)?);
        }
        Ok(())
    }

    fn build_outside(&mut self) -> Result<()> {
        self.switch.ip("link add br0 type bridge")?;
        for (namespace, interface, port) in [
            (&self.provider, UPLINK, "p0"),
            (&self.stranger, UPLINK, "p1"),
            (&self.edge, OUTER, OUTER_PEER),
        ] {
            join((namespace, interface), (&self.switch, port))?;
            self.switch.ip(&format!("link set {port} master br0"))?;
        }
        self.switch.ip("link set br0 up")?;
        self.tag_outer_link()?;
        self.address_outer()?;
        for family in [Family::V4, Family::V6] {
            for place in Place::provider() {
                add(&self.provider, UPLINK, place, family, Mask::Net)?;
            }
            add(&self.stranger, UPLINK, Place::Stranger, family, Mask::Net)?;
            for (namespace, gateway) in [
                (&self.provider, Place::ProviderGateway),
                (&self.stranger, Place::StrangerGateway),
            ] {
                namespace.ip(&format!(
                    "route add default via {}",
                    gateway.address(family)
                ))?;
            }
        }
        Ok(())
    }

    fn address_outer(&self) -> Result<()> {
        for family in [Family::V4, Family::V6] {
            for place in [Place::ProviderGateway, Place::StrangerGateway] {
                add(&self.edge, self.outer_stack(), place, family, Mask::Net)?;
            }
        }
        Ok(())
    }

    /// Takes the edge's outer interface away, as when a network card is pulled.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn delete_outer(&self) -> Result<()> {
        self.edge.ip(&format!("link delete {OUTER}"))
    }

    /// Makes it again after [`Network::delete_outer`], of this index or any. Its addresses come later:
    /// [`Network::connect_outer`].
    ///
    /// # Errors
    /// Where it is there, or another has its index.
    pub fn make_outer(&self, index: Option<u32>) -> Result<()> {
        let index = index
            .map(|index| format!("index {index}"))
            .unwrap_or_default();
        self.edge.ip(&format!(
            "link add {OUTER} {index} type veth peer name {OUTER_PEER} netns {}",
            self.switch.name()
        ))
    }

    /// Connects it as it was: offloads off, up, with its addresses.
    ///
    /// # Errors
    /// Where a step fails.
    pub fn connect_outer(&self) -> Result<()> {
        for (namespace, interface) in [(&self.edge, OUTER), (&self.switch, OUTER_PEER)] {
            bare(namespace, interface)?;
        }
        self.switch
            .ip(&format!("link set {OUTER_PEER} master br0"))?;
        self.address_outer()?;
        self.address_host()
    }

    /// The PBX's addresses as the outside sees them, where the edge itself has them.
    fn address_host(&self) -> Result<()> {
        let families: &[Family] = match self.topology {
            Topology::Routed => &[],
            Topology::OnHost => &[Family::V4, Family::V6],
            Topology::Nat | Topology::NatPrivate => &[Family::V4],
        };
        for &family in families {
            for place in [Place::PbxCallee, Place::PbxCaller] {
                add(&self.edge, self.outer_stack(), place, family, Mask::Host)?;
            }
        }
        Ok(())
    }

    fn build_inside(&self) -> Result<()> {
        let Some(pbx) = &self.behind else {
            return self.address_host();
        };
        join((&self.edge, INNER), (pbx, UPLINK))?;
        self.edge.sysctl("net.ipv4.ip_forward=1")?;
        self.edge.sysctl("net.ipv6.conf.all.forwarding=1")?;
        let (families, gateway): (&[Family], Place) = if self.topology.is_nat() {
            (&[Family::V4], Place::PrivateGateway)
        } else {
            (&[Family::V4, Family::V6], Place::PbxGateway)
        };
        for &family in families {
            let mask = if self.topology.is_nat() {
                Mask::Half
            } else {
                Mask::Net
            };
            add(&self.edge, INNER, gateway, family, mask)?;
            for place in [Place::PbxCallee, Place::PbxCaller] {
                add(pbx, UPLINK, self.inside(place), family, mask)?;
            }
            pbx.ip(&format!(
                "route add default via {}",
                gateway.address(family)
            ))?;
        }
        self.address_host()?;
        if self.topology.is_nat() {
            self.translate()?;
        }
        Ok(())
    }

    /// Only voice is translated inwards, so that the edge's own service keeps the same public address.
    fn translate(&self) -> Result<()> {
        let mut rules =
            String::from("table ip lab {\n chain in { type nat hook prerouting priority dstnat;\n");
        for outside in [Place::PbxCallee, Place::PbxCaller] {
            rules += &format!(
                "  ip daddr {} udp dport {{ {SIP_PORT}, {PBX_RTP_FIRST}-{PBX_RTP_LAST} }} dnat to {}\n",
                outside.address(Family::V4),
                self.inside(outside).address(Family::V4),
            );
        }
        rules += " }\n chain out { type nat hook postrouting priority srcnat;\n";
        for outside in [Place::PbxCallee, Place::PbxCaller] {
            rules += &format!(
                "  oifname \"{}\" ip saddr {} snat to {}\n",
                self.outer_stack(),
                self.inside(outside).address(Family::V4),
                outside.address(Family::V4),
            );
        }
        rules += " }\n}\n";
        let file = self.directory.path().join("nat.nft");
        std::fs::write(&file, rules)?;
        run(self.edge.command("nft").arg("-f").arg(&file)).context("cannot translate addresses")?;
        Ok(())
    }

    /// A ping along every path, which also fills the neighbour tables before packets are counted.
    fn prove_reachability(&self) -> Result<()> {
        let target = match self.topology {
            Topology::Routed | Topology::OnHost => Place::PbxCallee,
            Topology::Nat | Topology::NatPrivate => Place::ProviderGateway,
        };
        let mut paths: Vec<_> = Place::provider()
            .into_iter()
            .map(|place| (&self.provider, place, target))
            .collect();
        paths.push((&self.stranger, Place::Stranger, target));
        if self.behind.is_some() {
            for place in [Place::PbxCallee, Place::PbxCaller] {
                paths.push((self.pbx(), self.inside(place), Place::ProviderCaller));
            }
        }
        for (namespace, from, to) in paths {
            let (from, to) = (from.address(self.family), to.address(self.family));
            // On a busy machine the first echoes can get lost while neighbours and bridge ports settle.
            let mut answered = service::ping(namespace, from, to);
            for _ in 1..REACHABILITY_ATTEMPTS {
                if answered.is_ok() {
                    break;
                }
                answered = service::ping(namespace, from, to);
            }
            answered.with_context(|| {
                format!("the lab's network is broken: {to} does not answer {from}")
            })?;
        }
        Ok(())
    }
}

/// Pings, each with its own two seconds of patience, before a path counts as broken.
const REACHABILITY_ATTEMPTS: usize = 5;

#[derive(Clone, Copy)]
enum Mask {
    Net,
    Half,
    Host,
}

fn add(
    namespace: &Namespace,
    interface: &str,
    place: Place,
    family: Family,
    mask: Mask,
) -> Result<()> {
    let length = match (family, mask) {
        (Family::V4, Mask::Net) => 24,
        (Family::V4, Mask::Half) => 25,
        (Family::V4, Mask::Host) => 32,
        (Family::V6, Mask::Net | Mask::Half) => 64,
        (Family::V6, Mask::Host) => 128,
    };
    let nodad = match family {
        Family::V4 => "",
        Family::V6 => "nodad",
    };
    namespace.ip(&format!(
        "address add {}/{length} dev {interface} {nodad}",
        place.address(family)
    ))
}

/// What hangs on one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachments {
    /// XDP programs, a line each as `bpftool net show` writes it: the native mode is called driver there.
    pub xdp: Vec<String>,
    /// How many programs are at TC egress by TCX. Older releases of bpftool do not show these.
    pub egress: usize,
}

impl Attachments {
    /// Asks the kernel about an interface of a namespace.
    ///
    /// # Errors
    /// Where `bpftool` is missing or the kernel refuses.
    pub fn on(namespace: &Namespace, interface: &str) -> Result<Self> {
        let text = run(namespace.command("bpftool").args(["net", "show"]))?;
        let start = format!("{interface}(");
        let xdp = text
            .lines()
            .filter(|line| line.starts_with(&start))
            .map(str::to_owned)
            .collect();
        let (_, egress) = namespace
            .enter(|| SchedClassifier::query_tcx(interface, TcAttachType::Egress))?
            .context("cannot ask for the programs at TC egress")?;
        Ok(Self {
            xdp,
            egress: egress.len(),
        })
    }

    /// Makes sure that there is one program of each kind, and no more.
    ///
    /// # Errors
    /// Where there is not, with what there is.
    pub fn one_of_each(namespace: &Namespace, interface: &str) -> Result<()> {
        let attached = Self::on(namespace, interface)?;
        ensure!(
            attached.xdp.len() == 1 && attached.egress == 1,
            "one program of each kind belongs on {interface}: {attached:?}"
        );
        Ok(())
    }

    /// Whether nothing is attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.xdp.is_empty() && self.egress == 0
    }
}
