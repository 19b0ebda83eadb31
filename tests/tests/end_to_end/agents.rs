//! Whole softphones in place of scripts: baresip at the PBX and at the provider, with everything that their own media stacks do.
//!
//! Each story is told twice, first with an open firewall. The filter must deliver every RTP packet as the open firewall does, and
//! leave no pinhole. The provider hangs up: what it sends before its BYE is on the wire before it, so that the counts are exact; what it sends
//! after it counts for nobody. Either time the simulator is shown what crossed the outer link, in every link layer, and must agree.

use std::{net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sipfilter_tests::lab::{
    address::{Family, Place},
    baresip::{Baresip, Media, Transport},
    capture::{Capture, LinkLayer},
    cleanup,
    daemon::{self, Daemon, Filter, Mode},
    kamailio::Kamailio,
    namespace::{Namespace, join},
    rehearsal::{Reasons, Rehearsal, Slack},
    service,
    sniffer::Recorder,
    topology::{Network, OUTER, Topology},
    trace::{Crossings, Opens, Shape, Trace},
};

use crate::Test;

/// The provider's second host.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 40);
const TALK: Duration = Duration::from_millis(1000);
/// Fewer RTP packets than this in [`TALK`], at one each 20 ms, and nobody talked.
const FEWEST: usize = 35;
/// An agent's first packet from its peer.
const HEARS: &str = "CALL_RTPESTAB";
/// What an agent sends at once when it hears of the other's media: the daemon may still be reading that.
const AT_ONCE: u64 = 2;

pub fn tests() -> Vec<Test> {
    use Act::{Hold, Talk, Transfer};
    use Dialler::{Pbx, Provider};
    use Media::{DtlsIce, Plain, Sdes};
    use Transport::{Tcp, Udp};
    [
        ("rtp::inbound", Provider, Udp, Plain, Talk, false),
        ("rtp::outbound", Pbx, Udp, Plain, Talk, false),
        ("tcp::inbound", Provider, Tcp, Plain, Talk, false),
        ("tcp::outbound", Pbx, Tcp, Plain, Talk, false),
        ("srtp_sdes", Provider, Udp, Sdes, Talk, false),
        ("dtls_ice::inbound", Provider, Udp, DtlsIce, Talk, false),
        ("dtls_ice::outbound", Pbx, Udp, DtlsIce, Talk, false),
        ("hold::by_pbx", Provider, Udp, Plain, Hold(Pbx), false),
        ("hold::by_provider", Pbx, Udp, Plain, Hold(Provider), false),
        ("blind_transfer", Pbx, Udp, Plain, Transfer, false),
        ("proxy::inbound", Provider, Udp, Plain, Talk, true),
        ("proxy::outbound", Pbx, Udp, Plain, Talk, true),
    ]
    .into_iter()
    .map(|(name, dialler, transport, media, act, proxy)| {
        let case = Case {
            name,
            dialler,
            transport,
            media,
            act,
            proxy,
        };
        Test::new(format!("softphones_hear_each_other::{name}"), move || {
            compare(case)
        })
    })
    .collect()
}

#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    dialler: Dialler,
    transport: Transport,
    media: Media,
    act: Act,
    /// Whether Kamailio stands in front of the PBX.
    proxy: bool,
}

impl Case {
    /// What the provider of this story is like. Where the PBX calls, the answer has its media right behind it. A provider that publishes
    /// where it sends from may send by then; with any other the first packets race with the daemon, and who wins is nothing to rely on.
    fn opens(self) -> Opens {
        match (self.dialler, self.act) {
            (Dialler::Provider, Act::Talk | Act::Hold(_)) => Opens::WithBoth,
            (Dialler::Pbx, _) | (_, Act::Transfer) => Opens::WithTheReceivers,
        }
    }

    /// Makes the lab's provider one of this kind.
    fn configure(self, config: String) -> Result<String> {
        if self.opens() == Opens::WithBoth {
            return Ok(config);
        }
        let (before, after) = config
            .split_once("media = { ")
            .context("the configuration says where media comes from")?;
        let words = "prefixes = [\"198.51.100.0/24\"]";
        Ok(format!(
            "{before}early_media = \"on-offer\"\nmedia = {{ {words}, {after}"
        ))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialler {
    Provider,
    Pbx,
}

/// What happens once the call stands.
#[derive(Debug, Clone, Copy)]
enum Act {
    Talk,
    /// Talk, hold, resume, talk.
    Hold(Dialler),
    /// The provider's agent sends REFER; the PBX calls another of the provider's (RFC 3515).
    Transfer,
}

fn compare(case: Case) -> Result<()> {
    tell(case, Filter::None)
        .and_then(|told| check(case, &told))
        .context("without a filter")?;
    tell(case, Filter::Sipfilter(Mode::Native))
        .and_then(|told| check(case, &told))
        .context("with the filter")
}

/// What became of a story.
struct Told {
    trace: Trace,
    /// What crossed the outer link.
    crossings: Crossings,
    /// What the simulator makes of that.
    rehearsal: Rehearsal,
    /// What the filter counted, if there was one.
    live: Option<Reasons>,
}

fn check(case: Case, told: &Told) -> Result<()> {
    check_trace(case, &told.trace)?;
    check_rehearsal(told).with_context(|| {
        format!(
            "in the simulation: {:?}\n{}",
            told.crossings,
            told.rehearsal.lost_flows()
        )
    })
}

/// A simulation passes everything that the provider sent between the SDP that it takes and its own BYE, and drops everything else.
///
/// There is always something else: baresip sends an RTCP packet before its answer, and hangs up between two RTP packets, of which the
/// second is already on its way, as is RTCP's goodbye. Within the moment that the daemon needs for the signalling, these may go
/// either way at a real filter.
fn check_rehearsal(told: &Told) -> Result<()> {
    let crossings = told.crossings;
    told.rehearsal.check_calls(0)?;
    let (passed, dropped) = told.rehearsal.media();
    ensure!(
        passed == crossings.agreed && dropped == crossings.premature + crossings.late,
        "the simulator passed {passed} and dropped {dropped} media packets"
    );
    let slack = Slack {
        opening: AT_ONCE * told.rehearsal.calls(),
        closing: crossings.late + crossings.late_outwards,
    };
    told.live
        .as_ref()
        .map_or(Ok(()), |live| told.rehearsal.agree(live, slack))
}

fn check_trace(case: Case, trace: &Trace) -> Result<()> {
    for (way, rtp) in ["inwards", "outwards"]
        .into_iter()
        .zip(trace.shape(Shape::Rtp))
    {
        ensure!(
            rtp.sent >= FEWEST,
            "only {} RTP packets were sent {way}: {trace:?}",
            rtp.sent
        );
        ensure!(
            rtp.lost() == 0,
            "{} of {} RTP packets were lost {way}: {trace:?}",
            rtp.lost(),
            rtp.sent
        );
    }
    if case.media == Media::DtlsIce {
        for shape in [Shape::Stun, Shape::Dtls] {
            let [inwards, outwards] = trace.shape(shape);
            ensure!(
                inwards.arrived > 0 && outwards.arrived > 0,
                "no {shape:?} between the agents: {trace:?}"
            );
        }
    }
    Ok(())
}

fn tell(case: Case, filter: Filter) -> Result<Told> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let other = other_host(&network)?;
    let config = daemon::config_with(&network, &[OUTER], Mode::Native, &[], &[OTHER.into()]);
    let config = case.configure(config)?;
    let daemon = match filter {
        Filter::None => None,
        Filter::Sipfilter(_) => Some(Daemon::start_with(&network, "sipfilter", &config)?),
    };
    let capture = Capture::start(&network)?;
    let provider = Recorder::start(&network.provider)?;
    let third = Recorder::start(&other)?;
    let pbx = Recorder::start(network.pbx())?;
    let told = call(case, &network, &other, daemon.as_ref());
    let log = daemon.as_ref().map_or_else(String::new, Daemon::log);
    told.with_context(|| format!("the daemon's log:\n{log}"))?;
    let addresses = [Place::ProviderCaller.address(Family::V4), OTHER.into()];
    let mut wires = provider.finish()?;
    wires.extend(third.finish()?);
    let live = daemon.as_ref().map(Daemon::settled_reasons).transpose()?;
    let film = capture.finish()?;
    let filtered = if live.is_some() { "_filtered" } else { "" };
    film.keep(
        &format!("{}{filtered}", case.name.replace("::", "_")),
        &config,
    )?;
    let rehearse = |link| Rehearsal::of(&network, &film, &config, link);
    let rehearsal = rehearse(LinkLayer::Ethernet)?;
    for link in LinkLayer::ALL {
        ensure!(
            rehearse(link)? == rehearsal,
            "the simulator sees something else in a capture with link layer {link:?}"
        );
    }
    Ok(Told {
        trace: Trace::of(&wires, &pbx.finish()?, &addresses),
        crossings: Crossings::of(film.frames(), &addresses, case.opens()),
        rehearsal,
        live,
    })
}

/// A host of the provider with one address only: baresip sends from its host's first address, whatever its SDP names, and offers all of
/// them to ICE. For the same reason the PBX keeps its second address only where Kamailio needs it.
fn other_host(network: &Network) -> Result<Namespace> {
    let other = Namespace::create(&cleanup::unique_name(), "other")?;
    join((&other, "eth0"), (&network.switch, "p3"))?;
    network.switch.ip("link set p3 master br0")?;
    other.ip(&format!("address add {OTHER}/24 dev eth0"))?;
    other.ip(&format!(
        "route add default via {}",
        Place::ProviderGateway.address(Family::V4)
    ))?;
    service::ping(&other, OTHER.into(), Place::PbxCallee.address(Family::V4))?;
    Ok(other)
}

fn call(case: Case, network: &Network, third: &Namespace, daemon: Option<&Daemon>) -> Result<()> {
    let at = |place: Place| place.address(network.family);
    if !case.proxy {
        network
            .pbx()
            .ip(&format!("address del {}/24 dev eth0", at(Place::PbxCaller)))?;
    }
    let proxy = case.proxy.then(|| at(Place::PbxCaller));
    let _kamailio = proxy
        .map(|address| Kamailio::start(network, address))
        .transpose()?;
    let start = |namespace, name, address, ports| {
        Baresip::start(network, namespace, name, address, ports, case.media, proxy)
    };
    let mut pbx = start(network.pbx(), "pbx", at(Place::PbxCallee), (10_000, 10_100))?;
    let mut provider = start(third, "provider", OTHER.into(), (40_000, 40_100))?;
    match case.dialler {
        Dialler::Provider => provider.command(&format!("dial {}", pbx.uri(case.transport)))?,
        Dialler::Pbx => pbx.command(&format!("dial {}", provider.uri(case.transport)))?,
    }
    for agent in [&pbx, &provider] {
        agent.expect("CALL_ESTABLISHED", 1)?;
        agent.expect(HEARS, 1)?;
    }
    thread::sleep(TALK);
    if let Some(daemon) = daemon {
        ensure!(daemon.pinholes()? > 0, "no pinhole is open during the call");
    }
    let mut second = None;
    match case.act {
        Act::Talk => {}
        Act::Hold(by) => {
            let holder = match by {
                Dialler::Provider => &mut provider,
                Dialler::Pbx => &mut pbx,
            };
            holder.command("hold")?;
            thread::sleep(TALK / 2);
            holder.command("resume")?;
            thread::sleep(TALK);
        }
        Act::Transfer => {
            let other = start(
                &network.provider,
                "other",
                at(Place::ProviderCaller),
                (41_000, 41_100),
            )?;
            provider.command(&format!("transfer {}", other.uri(case.transport)))?;
            other.expect(HEARS, 1)?;
            provider.expect("CALL_CLOSED", 1)?;
            pbx.expect(HEARS, 2)?;
            second = Some(other);
            thread::sleep(TALK);
        }
    }
    let calls = 1 + usize::from(second.is_some());
    second.as_mut().unwrap_or(&mut provider).command("hangup")?;
    pbx.expect("CALL_CLOSED", calls)?;
    daemon.map_or(Ok(()), Daemon::wait_until_closed)
}
