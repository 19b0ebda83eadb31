//! What the programs judge by: the scene of the policy's cases, or a number of pinholes, and packets that fit.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, RingBuf};
use sipfilter_common::{
    abi::{MAX_PINHOLES, RING_BYTES, map},
    addr::Address,
    key::PortPlace,
    parse::{Ip, Network, parse_ethernet, parse_ipv4, parse_ipv6},
    reason::Reason,
    settings::Settings as Constants,
    value::{PROVISIONAL_LIFETIME, Provisional},
};
use sipfilter_daemon::{
    engine::{
        pinhole::{Pinhole, PinholeAction, PinholeResult},
        settings::{Settings, SignallingRates},
    },
    shell::{clock, datapath::Datapath, map_writer::MapWriter, policy::KernelPolicy},
};

use super::{Plan, Run, Timed, XDP_DROP, XDP_PASS};
use crate::policy::{
    self,
    cases::{Case, OUTER, Way, pinholes, settings},
    frame::Frame,
};

/// How many small packets surely fit into that half of a ring buffer of copies which is open to every request.
pub const COPIES: u32 = RING_BYTES / 4_096;

/// How many packets a provisional place can be made to let through, instead of the few that it does.
pub const EARLY_PACKETS: u32 = 255;

/// What becomes of packets that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// They have a pinhole each.
    Media,
    /// They have none.
    NoPinhole,
    /// They have one, but not the right source.
    WrongSource,
    /// They have one, but are no RTP.
    NotMedia,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Media,
        Self::NoPinhole,
        Self::WrongSource,
        Self::NotMedia,
    ];

    /// The reason's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Media => Reason::Media,
            Self::NoPinhole => Reason::NoPinhole,
            Self::WrongSource => Reason::WrongSource,
            Self::NotMedia => Reason::NotMedia,
        }
        .name()
    }

    /// What XDP returns for it.
    pub fn returns(self) -> u32 {
        if self == Self::Media {
            XDP_PASS
        } else {
            XDP_DROP
        }
    }
}

/// The most ports with pinholes on one address; more pinholes take more addresses.
const PORTS: usize = 62_500;
const FIRST_PORT: u16 = 1_024;
/// Packets a second that no test run reaches.
const NO_LIMIT: u32 = 1_000_000_000;
/// Above all of them, and also RTP ports.
const MISSED: (u16, u16) = (63_600, 1_900);
/// Outside of the RTP range.
const SIP_PORT: u16 = 1_000;
const RTP: &[u8] = &[0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0xff, 0xff];

fn addresses(size: usize) -> usize {
    size.div_ceil(PORTS).next_power_of_two()
}

fn ports(size: usize) -> usize {
    size / addresses(size)
}

fn local(family: u32, number: usize) -> IpAddr {
    if family == 4 {
        Ipv4Addr::new(203, 0, 113, 16 + number as u8).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 16 + number as u16).into()
    }
}

fn provider(family: u32) -> IpAddr {
    if family == 4 {
        Ipv4Addr::new(198, 51, 100, 20).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0x20).into()
    }
}

/// How packets of this kind differ.
pub fn plan(target: Target, family: u32, size: usize) -> Plan {
    let (first_port, ports) = match target {
        // As many ports as there are with a pinhole, so that both look up equally many keys.
        Target::NoPinhole => (MISSED.0, ports(size).min(MISSED.1.into())),
        _ => (FIRST_PORT, ports(size)),
    };
    Plan {
        state: 0x2545_f491,
        family,
        address_mask: addresses(size) as u32 - 1,
        ports: ports as u32,
        first_port: first_port.into(),
        ..Plan::default()
    }
}

/// A packet of this kind.
pub fn packet(target: Target, family: u32) -> Vec<u8> {
    let destination = SocketAddr::new(local(family, 0), FIRST_PORT);
    let port = match target {
        Target::WrongSource => 1,
        _ => 45_000,
    };
    let payload = match target {
        Target::NotMedia => &[0x40; 14],
        _ => RTP,
    };
    let source = SocketAddr::new(provider(family), port);
    Frame::udp(&source.to_string(), &destination.to_string(), payload).build()
}

/// The programs with their maps filled.
pub struct Scene {
    datapath: Datapath,
    rings: [RingBuf<MapData>; 2],
    places: Array<MapData, u64>,
    cases: Vec<Case>,
}

impl Scene {
    /// One of the policy's own scenes, after each of its cases once: later fragments know their first ones, replies what was sent.
    pub fn of_policy(scene: &policy::scenes::Scene) -> Result<Self> {
        const CAPACITY: u32 = 64;
        let mut settings = scene.settings.clone();
        // What is measured is how long the limit takes, not what it lets through; the slow provider keeps its own.
        if let Some(lab) = settings.providers.first_mut() {
            lab.rates = SignallingRates {
                requests: NO_LIMIT,
                messages: NO_LIMIT,
                segments: NO_LIMIT,
            };
        }
        let mut kernel_policy = KernelPolicy::new(&settings);
        kernel_policy.settings.outer[..OUTER.len()].copy_from_slice(&OUTER);
        let mut datapath = Datapath::load(&kernel_policy, CAPACITY, None)?;
        let mut writer = MapWriter::new(&mut datapath, CAPACITY)?;
        for pinhole in pinholes() {
            let done = writer.apply(&PinholeAction::Open(pinhole), clock::now());
            ensure!(
                done == PinholeResult::Done,
                "a pinhole was refused: {done:?}"
            );
        }
        // The short-lived pinhole dies; the kernel's coarse clock moves in ticks of up to ten milliseconds.
        sleep(Duration::from_millis(50));
        let mut this = Self::new(datapath)?;
        this.cases = scene.cases.clone();
        this.rehearse()?;
        Ok(this)
    }

    /// Runs each case once, as must be done again within the half minute for which a reply is expected.
    pub fn rehearse(&mut self) -> Result<()> {
        let (inward, outward) = (self.program(Way::In)?, self.program(Way::Out)?);
        for case in &self.cases {
            let run = Run {
                packet: &case.frame,
                repeat: 1,
                arrived_on: case.arrived_on,
            };
            match case.way {
                Way::In => inward.time(run)?,
                Way::Out => outward.time(run)?,
            };
        }
        self.drain();
        Ok(())
    }

    /// So many pinholes, in an order that has nothing to do with their ports'.
    pub fn of_size(family: u32, size: usize) -> Result<Self> {
        let mut settings: Settings = settings();
        settings.pbx.addresses = (0..addresses(size))
            .map(|number| local(family, number))
            .collect();
        settings.pbx.rtp_ports = FIRST_PORT..=u16::MAX;
        settings.pbx.udptl_ports = None;
        settings.pbx.signalling.udp = vec![SIP_PORT];
        let capacity = u32::try_from(size.max(65_536))?.min(MAX_PINHOLES);
        let mut datapath = Datapath::load(&KernelPolicy::new(&settings), capacity, None)?;
        let mut writer = MapWriter::new(&mut datapath, capacity)?;
        let template = pinholes()
            .into_iter()
            .find(|pinhole| pinhole.local.is_ipv4() == (family == 4))
            .context("no pinhole of this family among the cases'")?;
        let mut keys: Vec<usize> = (0..ports(size) * addresses(size)).collect();
        shuffle(&mut keys);
        for key in keys {
            let port = FIRST_PORT + u16::try_from(key % ports(size))?;
            let pinhole = Pinhole {
                local: SocketAddr::new(local(family, key / ports(size)), port),
                idle: Duration::from_secs(24 * 3_600),
                ..template.clone()
            };
            let done = writer.apply(&PinholeAction::Open(pinhole), clock::now());
            ensure!(
                done == PinholeResult::Done,
                "a pinhole was refused: {done:?}"
            );
        }
        Self::new(datapath)
    }

    fn new(mut datapath: Datapath) -> Result<Self> {
        let rings = [
            datapath.take(map::SIGNALLING_IN)?,
            datapath.take(map::SIGNALLING_OUT)?,
        ];
        Ok(Self {
            places: datapath.take(map::PROVISIONAL)?,
            datapath,
            rings,
            cases: Vec::new(),
        })
    }

    /// A handle on one of the programs; it keeps the maps alive.
    pub fn program(&mut self, way: Way) -> Result<Timed> {
        match way {
            Way::In => Timed::xdp(self.datapath.ingress()?.info()?),
            Way::Out => Timed::tc(self.datapath.egress()?.info()?),
        }
    }

    /// Makes the provisional place that this packet comes to last, for [`EARLY_PACKETS`]. One of the cases has opened it.
    pub fn keep_open(&mut self, packet: &[u8]) -> Result<()> {
        let constants = &self.datapath.constants;
        let place = match parse_ethernet(&packet) {
            Ok(Network::Ipv4(start)) => parse_ipv4(&packet, start)
                .ok()
                .and_then(|ip| place_of(packet, &ip, constants)),
            Ok(Network::Ipv6(start)) => parse_ipv6(&packet, start)
                .ok()
                .and_then(|ip| place_of(packet, &ip, constants)),
            _ => None,
        };
        let index = place.context("not a packet to a protected port")?.index();
        let provider = Provisional(self.places.get(&index, 0)?).provider();
        let never = Provisional::new(u64::MAX - PROVISIONAL_LIFETIME, provider);
        let word = never.0 | u64::from(EARLY_PACKETS);
        Ok(self.places.set(index, word, 0)?)
    }

    /// Empties the ring buffers of copies, as the daemon would.
    pub fn drain(&mut self) {
        for ring in &mut self.rings {
            while ring.next().is_some() {}
        }
    }
}

fn place_of<A: Address>(packet: &[u8], ip: &Ip<A>, constants: &Constants) -> Option<PortPlace> {
    let ports = ip.ports(&packet).ok()?;
    let address = ip.destination.index_in(constants)?;
    Some(PortPlace::new(address, ports.destination))
}

/// Fisher and Yates, by a fixed sequence.
fn shuffle(keys: &mut [usize]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..keys.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        keys.swap(last, (state % (last as u64 + 1)) as usize);
    }
}
