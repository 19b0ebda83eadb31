//! Every way in which two agents come to agree on media, or do not: no packet that an open firewall delivers is lost, in either
//! direction, over UDP, TCP and IPv6, and behind a proxy.
//!
//! Each group of conversations is held twice, first with an open firewall, then with the filter; within a lab all are held at once.
//! Either time the simulator is shown what crossed the outer link: it must pass and drop exactly what the conversations meant it to,
//! and count what the filter has counted.

use std::{collections::BTreeSet, net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    baresip::Transport,
    call::Direction,
    capture::{Capture, LinkLayer},
    conversation::{self, Conversation, Heard, Plan},
    daemon::{self, Daemon, Filter, Mode},
    kamailio::Kamailio,
    rehearsal::{Rehearsal, Slack},
    scenario::Turn,
    topology::{Network, OUTER, Topology},
};

use crate::{Test, offer_cases::CASES};

/// What is told behind a proxy: requests of both sides, in and outside of dialogs.
const BEHIND_PROXY: [&str; 10] = [
    "delayed_offer",
    "caller_moves_by_reinvite",
    "both_move_by_reinvite_of_callee",
    "rejected_reinvite_keeps_media",
    "hold_sendonly",
    "video_is_added_and_removed",
    "replaced_call",
    "blind_transfer",
    "redirected_call",
    "challenged_call",
];

#[derive(Debug, Clone, Copy)]
struct Group {
    name: &'static str,
    family: Family,
    transport: Transport,
    proxy: bool,
}

pub fn tests() -> Vec<Test> {
    let group = |name, family, transport, proxy| Group {
        name,
        family,
        transport,
        proxy,
    };
    [
        group("udp", Family::V4, Transport::Udp, false),
        group("udp_ipv6", Family::V6, Transport::Udp, false),
        group("tcp", Family::V4, Transport::Tcp, false),
        group("tcp_ipv6", Family::V6, Transport::Tcp, false),
        group("kamailio", Family::V4, Transport::Udp, true),
    ]
    .into_iter()
    .map(|group| {
        let name = format!("offers_and_answers_keep_their_audio::{}", group.name);
        Test::new(name, move || {
            hold_all(group, Filter::None).context("without a filter")?;
            hold_all(group, Filter::Sipfilter(Mode::Native)).context("with the filter")
        })
    })
    .collect()
}

fn hold_all(group: Group, filter: Filter) -> Result<()> {
    let network = Network::build(Topology::Routed, group.family, &[])?;
    let mut chosen: Vec<_> = CASES
        .iter()
        .filter(|(name, _)| !group.proxy || BEHIND_PROXY.contains(name))
        .flat_map(|case| [Direction::Inbound, Direction::Outbound].map(|way| (way, case)))
        .collect();
    // Those that are held at once take about the same time.
    chosen.sort_by_key(|(_, (_, turns))| talks(turns));
    let at_once = chosen
        .len()
        .div_ceil(chosen.len().div_ceil(conversation::AT_ONCE));
    let conversations: Vec<(Conversation, Plan)> = chosen
        .into_iter()
        .zip(0..)
        .map(|((direction, &(name, turns)), number)| {
            let conversation = Conversation {
                name,
                turns,
                direction,
            };
            (conversation, Plan::of(&network, number))
        })
        .collect();
    let plans: Vec<Plan> = conversations.iter().map(|&(_, plan)| plan).collect();
    conversation::add_addresses(&network, &plans)?;
    let pbx: BTreeSet<_> = plans.iter().map(Plan::pbx).collect();
    let pbx: Vec<_> = pbx.into_iter().collect();
    let provider: Vec<_> = plans.iter().map(Plan::provider).collect();
    let config = daemon::config_with(&network, &[OUTER], Mode::Native, &pbx, &provider);
    let ports = conversation::PBX_SIP_PORTS;
    let config = config.replacen(
        "[pbx]\n",
        &format!("[pbx]\nsignalling = {{ udp = {ports:?}, tcp = {ports:?} }}\n"),
        1,
    );
    let daemon = match filter {
        Filter::None => None,
        Filter::Sipfilter(_) => Some(Daemon::start_with(&network, "sipfilter", &config)?),
    };
    let capture = Capture::start(&network)?;
    let proxy_at = SocketAddr::new(Place::PbxCallee.address(group.family), SIP_PORT);
    let _kamailio = group
        .proxy
        .then(|| Kamailio::start(&network, proxy_at.ip()))
        .transpose()?;
    let proxy = group.proxy.then_some(proxy_at);
    let results: Vec<(String, Result<Heard>)> = conversations
        .chunks(at_once)
        .flat_map(|at_once| hold_at_once(&network, at_once, group.transport, proxy))
        .collect();
    let emptied = daemon.as_ref().map_or(Ok(()), Daemon::wait_until_closed);
    let live = daemon.as_ref().map(Daemon::settled_reasons).transpose()?;
    let film = capture.finish()?;
    let filtered = if live.is_some() { "_filtered" } else { "" };
    film.keep(&format!("{}{filtered}", group.name), &config)?;
    let complaints: Vec<String> = results
        .iter()
        .filter_map(|(name, result)| match result {
            Err(error) => Some(format!("{name}: {error:#}")),
            Ok(heard) => misheard(*heard, daemon.is_some()).map(|why| format!("{name}: {why}")),
        })
        .collect();
    if !complaints.is_empty() {
        let log = daemon.as_ref().map_or_else(String::new, Daemon::log);
        bail!(
            "{} of {} conversations:\n{}\nthe daemon's log:\n{log}",
            complaints.len(),
            results.len(),
            complaints.join("\n")
        );
    }
    emptied?;
    let rehearsal = Rehearsal::of(&network, &film, &config, LinkLayer::Ethernet)?;
    let heard = results
        .iter()
        .filter_map(|(_, result)| result.as_ref().ok())
        .fold(Heard::default(), |sum, heard| sum + *heard);
    check_rehearsal(&rehearsal, heard)
        .and_then(|()| live.map_or(Ok(()), |live| rehearsal.agree(&live, Slack::default())))
        .with_context(|| format!("in the simulation: {heard:?}\n{}", rehearsal.lost_flows()))
}

/// A simulation passes all audio that the provider sent while it was agreed, and drops what it sent on purpose beside and behind that.
fn check_rehearsal(rehearsal: &Rehearsal, heard: Heard) -> Result<()> {
    let beside = u64::from(heard.sent_beside);
    rehearsal.check_calls(beside)?;
    let expect = (
        u64::from(heard.sent_inwards),
        beside + u64::from(heard.sent_after),
    );
    let (passed, dropped) = rehearsal.media();
    ensure!(
        (passed, dropped) == expect,
        "the simulator passed {passed} and dropped {dropped} media packets, not {expect:?}"
    );
    Ok(())
}

fn talks(turns: &[Turn]) -> usize {
    turns
        .iter()
        .filter(|turn| matches!(turn, Turn::Talk(..)))
        .count()
}

fn hold_at_once(
    network: &Network,
    conversations: &[(Conversation, Plan)],
    transport: Transport,
    proxy: Option<SocketAddr>,
) -> Vec<(String, Result<Heard>)> {
    thread::scope(|scope| {
        let running: Vec<_> = conversations
            .iter()
            .map(|&(conversation, plan)| {
                let name = format!("{}, {:?}", conversation.name, conversation.direction);
                let handle = scope.spawn(move || {
                    conversation::run_through(network, conversation, plan, transport, proxy)
                });
                // Not all in the same instant: a machine that starts two dozen programs has no time for their calls.
                thread::sleep(Duration::from_millis(35));
                (name, handle)
            })
            .collect();
        running
            .into_iter()
            .map(|(name, handle)| {
                let result = handle.join().unwrap_or_else(|_| Err(anyhow!("panicked")));
                (name, result)
            })
            .collect()
    })
}

fn misheard(heard: Heard, filtered: bool) -> Option<String> {
    let (after, beside) = if filtered {
        (0, 0)
    } else {
        (heard.sent_after, heard.sent_beside)
    };
    if heard.sent == 0 || heard.delivered < heard.sent {
        Some(format!("audio was lost: {heard:?}"))
    } else if heard.delivered_after != after {
        Some(format!(
            "after the end {after} packets must arrive: {heard:?}"
        ))
    } else if heard.delivered_beside != beside {
        Some(format!(
            "beside what is in force {beside} packets must arrive: {heard:?}"
        ))
    } else {
        None
    }
}
