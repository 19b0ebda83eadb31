//! Media that comes before its pinhole, between real sockets: from a provider that answers at once, with a daemon that is slow.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sipfilter_tests::{
    bench::trunk::{
        Plan, Trunk,
        message::{self, Ends, Kind},
    },
    lab::{
        address::{Family, PBX_RTP_FIRST, PROVIDER_RTP_FIRST, Place, SIP_PORT},
        daemon::{self, Daemon, Mode},
        namespace::Namespace,
        topology::{Network, OUTER, Topology},
    },
};

use crate::Test;

/// Longer than a packet takes, and shorter than a place is open.
const SHORTLY: Duration = Duration::from_millis(60);
/// How long a place is open at most, and a tick or two.
const LAPSED: Duration = Duration::from_millis(300);
const PACKET_TIME: Duration = Duration::from_millis(20);
const RTP: [u8; 12] = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
const FOREIGN: [u8; 12] = [0x80, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (ip, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
        let mut add = |name: &str, body: fn(Family) -> Result<()>| {
            tests.push(Test::new(format!("provisional::{name}::{ip}"), move || {
                body(family)
            }));
        };
        add("no_first_packet_is_lost", first_packets);
        add("a_stalled_daemon_costs_no_audio", stalled);
        add("what_the_engine_refuses_is_closed_at_once", revoked);
        add("an_observer_sees_them", observed);
        add("they_can_be_switched_off", switched_off);
    }
    tests
}

/// A provider that sends with the 200 in its hand, and no delay between the two.
fn first_packets(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let daemon = Daemon::start(&network, Mode::Native)?;
    let plan = Plan {
        rate: 50,
        calls: 100,
        packets: 3,
        ports: 500,
        ..Plan::default()
    };
    let tally = Trunk::new(&network, plan)?.run()?;
    ensure!(
        tally.answered == plan.calls && tally.first_lost == 0,
        "{tally:?}\n{}",
        daemon.log()
    );
    Ok(())
}

/// The sockets of a call that is told message by message.
struct Stage {
    network: Network,
    daemon: Daemon,
    ends: Ends,
    provider: UdpSocket,
    pbx: UdpSocket,
    provider_media: UdpSocket,
    /// The provider's as well, but from a port outside its limits.
    outside: UdpSocket,
    /// Anybody's, from a port within them.
    stranger: UdpSocket,
    pbx_media: UdpSocket,
}

impl Stage {
    fn new(family: Family, top: &str) -> Result<Self> {
        let network = Network::build(Topology::Routed, family, &[])?;
        let at = |place: Place, port| SocketAddr::new(place.address(family), port);
        let [provider, pbx] =
            [Place::ProviderCaller, Place::PbxCallee].map(|place| at(place, SIP_PORT));
        let ends = Ends {
            provider: provider.ip(),
            pbx: pbx.ip(),
            provider_media: at(Place::ProviderMedia(0), PROVIDER_RTP_FIRST),
            pbx_media: at(Place::PbxCallee, PBX_RTP_FIRST),
        };
        let config = format!(
            "{top}\n{}",
            daemon::config(&network, &[OUTER], Mode::Native)
        );
        Ok(Self {
            provider: bind(&network.provider, provider)?,
            pbx: bind(network.pbx(), pbx)?,
            provider_media: bind(&network.provider, ends.provider_media)?,
            outside: bind(
                &network.provider,
                SocketAddr::new(ends.provider_media.ip(), 30_000),
            )?,
            stranger: bind(&network.stranger, at(Place::Stranger, 45_000))?,
            pbx_media: bind(network.pbx(), ends.pbx_media)?,
            daemon: Daemon::start_with(&network, "provisional", &config)?,
            network,
            ends,
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.daemon.pid())?).context("a process")?;
        Ok(kill_process(pid, signal)?)
    }

    fn invite(&self, call: u32) -> Result<()> {
        let text = message::request(Kind::Invite, call, &self.ends);
        self.provider
            .send_to(text.as_bytes(), (self.ends.pbx, SIP_PORT))?;
        hears(&self.pbx, "the INVITE")
    }

    fn answer(&self, call: u32) -> Result<()> {
        let text = message::response(Kind::Invite, call, &self.ends);
        self.pbx
            .send_to(text.as_bytes(), (self.ends.provider, SIP_PORT))?;
        hears(&self.provider, "the 200")
    }

    fn rtp(&self, from: &UdpSocket, bytes: &[u8]) -> Result<()> {
        from.send_to(bytes, self.ends.pbx_media)?;
        Ok(())
    }

    /// How many of the provider's packets have arrived. Nobody else's may.
    fn heard(&self) -> Result<usize> {
        let mut heard = 0;
        let mut buffer = [0; 2_048];
        loop {
            match self.pbx_media.recv(&mut buffer) {
                Ok(_) if buffer.starts_with(&FOREIGN) => bail!("a stranger's packet arrived"),
                Ok(_) => heard += 1,
                Err(error) if is_silence(&error) => return Ok(heard),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn counted(&self) -> Result<u64> {
        let reasons = self.daemon.settled_reasons()?;
        Ok(reasons.get("provisional").copied().unwrap_or_default())
    }
}

fn bind(namespace: &Namespace, at: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace
        .enter(|| UdpSocket::bind(at))?
        .with_context(|| format!("cannot bind {at}"))?;
    socket.set_read_timeout(Some(SHORTLY))?;
    Ok(socket)
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn hears(socket: &UdpSocket, what: &str) -> Result<()> {
    let mut buffer = [0; 2_048];
    for _ in 0..20 {
        match socket.recv(&mut buffer) {
            Ok(_) => return Ok(()),
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("{what} did not arrive")
}

fn stalled(family: Family) -> Result<()> {
    let stage = Stage::new(family, "")?;
    stage.invite(1)?;
    stage.signal(Signal::STOP)?;
    stage.answer(1)?;
    for _ in 0..5 {
        stage.rtp(&stage.provider_media, &RTP)?;
        stage.rtp(&stage.outside, &FOREIGN)?;
        sleep(PACKET_TIME);
    }
    stage.signal(Signal::CONT)?;
    let heard = stage.heard()?;
    ensure!(heard == 5, "{heard} of 5 packets arrived");
    let deadline = Instant::now() + Duration::from_secs(5);
    while stage.daemon.pinholes()? < 2 {
        ensure!(Instant::now() < deadline, "no pinhole opened");
        sleep(PACKET_TIME);
    }
    // From now on the pinhole decides, which is for one address.
    stage.rtp(&stage.stranger, &FOREIGN)?;
    stage.rtp(&stage.provider_media, &RTP)?;
    ensure!(stage.heard()? == 1, "the pinhole is not open");
    let counted = stage.counted()?;
    ensure!(
        counted == 5,
        "{counted} packets were counted as provisional"
    );

    // A daemon that stays away leaves nothing open.
    stage.signal(Signal::STOP)?;
    let text = message::response(
        Kind::Invite,
        2,
        &Ends {
            pbx_media: SocketAddr::new(stage.ends.pbx_media.ip(), stage.ends.pbx_media.port() + 2),
            ..stage.ends
        },
    );
    let next = SocketAddr::new(stage.ends.pbx_media.ip(), stage.ends.pbx_media.port() + 2);
    let media = bind(stage.network.pbx(), next)?;
    stage
        .pbx
        .send_to(text.as_bytes(), (stage.ends.provider, SIP_PORT))?;
    hears(&stage.provider, "the 200")?;
    stage.provider_media.send_to(&RTP, next)?;
    hears(&media, "RTP right behind the 200")?;
    sleep(LAPSED);
    stage.provider_media.send_to(&RTP, next)?;
    let lapsed = media.recv(&mut [0; 2_048]);
    stage.signal(Signal::CONT)?;
    ensure!(
        lapsed.is_err_and(|error| is_silence(&error)),
        "a place was still open after {LAPSED:?}"
    );
    Ok(())
}

/// The PBX answers an INVITE that nobody sent.
fn revoked(family: Family) -> Result<()> {
    let stage = Stage::new(family, "")?;
    stage.signal(Signal::STOP)?;
    stage.answer(7)?;
    stage.rtp(&stage.provider_media, &RTP)?;
    let heard = stage.heard()?;
    stage.signal(Signal::CONT)?;
    ensure!(heard == 1, "nothing was open, so nothing is shown");
    sleep(LAPSED);
    for _ in 0..10 {
        let start = Instant::now();
        stage.answer(7)?;
        sleep(SHORTLY);
        stage.rtp(&stage.provider_media, &RTP)?;
        // Later, the place would have closed by itself.
        if start.elapsed() > 2 * SHORTLY {
            continue;
        }
        let heard = stage.heard()?;
        ensure!(heard == 0, "the place stayed open");
        ensure!(stage.daemon.pinholes()? == 0, "a pinhole opened");
        return Ok(());
    }
    bail!("the machine is too busy to tell")
}

fn observed(family: Family) -> Result<()> {
    let stage = Stage::new(family, "enforcement = \"observe\"")?;
    stage.invite(1)?;
    stage.signal(Signal::STOP)?;
    stage.answer(1)?;
    stage.rtp(&stage.provider_media, &RTP)?;
    stage.rtp(&stage.outside, &RTP)?;
    let heard = stage.heard()?;
    stage.signal(Signal::CONT)?;
    ensure!(heard == 2, "an observer dropped {}", 2 - heard);
    let counted = stage.counted()?;
    ensure!(
        counted == 1,
        "{counted} packets were counted as provisional"
    );
    Ok(())
}

fn switched_off(family: Family) -> Result<()> {
    let stage = Stage::new(family, "provisional = false")?;
    stage.invite(1)?;
    stage.signal(Signal::STOP)?;
    stage.answer(1)?;
    stage.rtp(&stage.provider_media, &RTP)?;
    let heard = stage.heard()?;
    stage.signal(Signal::CONT)?;
    ensure!(heard == 0, "media arrived before its pinhole");
    Ok(())
}
