//! Every way in which two agents come to agree on media, or do not: no packet that an open firewall delivers is lost, in either
//! direction, over UDP, TCP and IPv6, and behind a proxy.
//!
//! Each group of conversations is held twice, first with an open firewall, then with the filter; within a lab all are held at once.
//! Either time the simulator is shown what crossed the outer link: it must pass and drop exactly what the conversations meant it to,
//! and count what the filter has counted.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    baresip::Transport,
    call::{
        Direction,
        Role::{self, Callee, Caller},
    },
    capture::{Capture, LinkLayer},
    conversation::{self, Conversation, Heard, Plan},
    daemon::{self, Daemon, Filter, Mode},
    kamailio::Kamailio,
    rehearsal::{Rehearsal, Slack},
    scenario::{
        Media,
        Method::{Ack, Bye, Invite, Prack, Update},
        Sdp,
        Slot::{self, First, Moved},
        Sound,
        Turn::{self, Say, Talk},
        What::{self, Request, Response},
    },
    topology::{Network, OUTER, Topology},
};

use crate::Test;

const CLOSED: Duration = Duration::from_secs(2);

const fn audio(slot: Slot) -> Option<Sdp> {
    with(slot, Media::Audio("sendrecv"))
}

const fn with(slot: Slot, media: Media) -> Option<Sdp> {
    Some(Sdp { slot, media })
}

const fn say(by: Role, request: What) -> Turn {
    Say(by, request, None)
}

const RING: Turn = say(Callee, Response(180, Invite));
const ACK: Turn = say(Caller, Request(Ack));
const CALLER_ENDS: [Turn; 2] = [say(Caller, Request(Bye)), say(Callee, Response(200, Bye))];
const CALLEE_ENDS: [Turn; 2] = [say(Callee, Request(Bye)), say(Caller, Response(200, Bye))];
const OFFER: Turn = Say(Caller, Request(Invite), audio(First));
const ANSWER: Turn = Say(Callee, Response(200, Invite), audio(First));
const TALK: Turn = Talk(First, First, Sound::Audio);

/// A hold and a resume by re-INVITE of the caller.
macro_rules! hold {
    ($media:expr, $answer:expr) => {
        &[
            OFFER,
            RING,
            ANSWER,
            ACK,
            TALK,
            Say(Caller, Request(Invite), with(First, $media)),
            Say(
                Callee,
                Response(200, Invite),
                with(First, Media::Audio($answer)),
            ),
            ACK,
            TALK,
            Say(Caller, Request(Invite), audio(First)),
            ANSWER,
            ACK,
            TALK,
            CALLEE_ENDS[0],
            CALLEE_ENDS[1],
        ]
    };
}

const CASES: [(&str, &[Turn]); 12] = [
    (
        "delayed_offer",
        &[
            say(Caller, Request(Invite)),
            RING,
            ANSWER,
            Say(Caller, Request(Ack), audio(First)),
            TALK,
            CALLER_ENDS[0],
            CALLER_ENDS[1],
        ],
    ),
    (
        "delayed_offer_in_reliable_183",
        &[
            say(Caller, Request(Invite)),
            Say(Callee, Response(183, Invite), audio(First)),
            Say(Caller, Request(Prack), audio(First)),
            say(Callee, Response(200, Prack)),
            TALK,
            say(Callee, Response(200, Invite)),
            ACK,
            TALK,
            CALLEE_ENDS[0],
            CALLEE_ENDS[1],
        ],
    ),
    (
        "answer_in_reliable_183",
        &[
            OFFER,
            Say(Callee, Response(183, Invite), audio(First)),
            say(Caller, Request(Prack)),
            say(Callee, Response(200, Prack)),
            TALK,
            say(Callee, Response(200, Invite)),
            ACK,
            TALK,
            CALLER_ENDS[0],
            CALLER_ENDS[1],
        ],
    ),
    (
        "update_in_early_dialog",
        &[
            OFFER,
            Say(Callee, Response(183, Invite), audio(First)),
            say(Caller, Request(Prack)),
            say(Callee, Response(200, Prack)),
            TALK,
            Say(Caller, Request(Update), audio(Moved)),
            Say(Callee, Response(200, Update), audio(First)),
            Talk(Moved, First, Sound::AudioUnsettled),
            say(Callee, Response(200, Invite)),
            ACK,
            Talk(Moved, First, Sound::AudioUnsettled),
            CALLER_ENDS[0],
            CALLER_ENDS[1],
        ],
    ),
    (
        "update_in_confirmed_dialog",
        &[
            OFFER,
            RING,
            ANSWER,
            ACK,
            TALK,
            Say(Callee, Request(Update), audio(Moved)),
            Say(Caller, Response(200, Update), audio(First)),
            Talk(First, Moved, Sound::AudioUnsettled),
            CALLER_ENDS[0],
            CALLER_ENDS[1],
        ],
    ),
    (
        "caller_moves_by_reinvite",
        &[
            OFFER,
            RING,
            ANSWER,
            ACK,
            TALK,
            Say(Caller, Request(Invite), audio(Moved)),
            ANSWER,
            ACK,
            Talk(Moved, First, Sound::Audio),
            CALLER_ENDS[0],
            CALLER_ENDS[1],
        ],
    ),
    (
        "both_move_by_reinvite_of_callee",
        &[
            OFFER,
            RING,
            ANSWER,
            ACK,
            TALK,
            Say(Callee, Request(Invite), audio(Moved)),
            Say(Caller, Response(200, Invite), audio(Moved)),
            say(Callee, Request(Ack)),
            Talk(Moved, Moved, Sound::Audio),
            CALLEE_ENDS[0],
            CALLEE_ENDS[1],
        ],
    ),
    (
        "rejected_reinvite_keeps_media",
        &[
            OFFER,
            RING,
            ANSWER,
            ACK,
            TALK,
            Say(Caller, Request(Invite), audio(Moved)),
            say(Callee, Response(488, Invite)),
            ACK,
            TALK,
            CALLER_ENDS[0],
            CALLER_ENDS[1],
        ],
    ),
    ("hold_sendonly", hold!(Media::Audio("sendonly"), "recvonly")),
    ("hold_inactive", hold!(Media::Audio("inactive"), "inactive")),
    ("hold_unspecified", hold!(Media::AudioToNobody, "sendrecv")),
    (
        "fax_and_back",
        &[
            OFFER,
            RING,
            ANSWER,
            ACK,
            TALK,
            Say(Callee, Request(Invite), with(First, Media::Fax)),
            Say(Caller, Response(200, Invite), with(First, Media::Fax)),
            say(Callee, Request(Ack)),
            Talk(First, First, Sound::Fax),
            Say(Callee, Request(Invite), audio(First)),
            Say(Caller, Response(200, Invite), audio(First)),
            say(Callee, Request(Ack)),
            TALK,
            CALLER_ENDS[0],
            CALLER_ENDS[1],
        ],
    ),
];

/// What is told behind a proxy: requests of both sides, in and outside of dialogs.
const BEHIND_PROXY: [&str; 5] = [
    "delayed_offer",
    "caller_moves_by_reinvite",
    "both_move_by_reinvite_of_callee",
    "rejected_reinvite_keeps_media",
    "hold_sendonly",
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
    let chosen = CASES
        .into_iter()
        .filter(|(name, _)| !group.proxy || BEHIND_PROXY.contains(name));
    let conversations: Vec<(Conversation, Plan)> = [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .flat_map(|direction| {
            chosen.clone().map(move |(name, turns)| Conversation {
                name,
                turns,
                direction,
            })
        })
        .zip(0..)
        .map(|(conversation, number)| (conversation, Plan::of(&network, number)))
        .collect();
    let plans: Vec<Plan> = conversations.iter().map(|&(_, plan)| plan).collect();
    conversation::add_addresses(&network, &plans)?;
    let pbx: BTreeSet<_> = plans.iter().map(Plan::pbx).collect();
    let pbx: Vec<_> = pbx.into_iter().collect();
    let provider: Vec<_> = plans.iter().map(Plan::provider).collect();
    let config = daemon::config_with(&network, &[OUTER], Mode::Native, &pbx, &provider);
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
        .chunks(usize::from(conversation::PBX_ADDRESSES).min(chosen.count()))
        .flat_map(|at_once| hold_at_once(&network, at_once, group.transport, proxy))
        .collect();
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
    if let Some(daemon) = &daemon {
        nothing_is_left(daemon)?;
    }
    let live = daemon.as_ref().map(Daemon::settled_reasons).transpose()?;
    let film = capture.finish()?;
    let filtered = if live.is_some() { "_filtered" } else { "" };
    film.keep(&format!("{}{filtered}", group.name), &config)?;
    let rehearsal = Rehearsal::of(&network, &film, &config, LinkLayer::Ethernet)?;
    let heard = results
        .iter()
        .filter_map(|(_, result)| result.as_ref().ok())
        .fold(Heard::default(), |sum, heard| sum + *heard);
    check_rehearsal(&rehearsal, heard)
        .and_then(|()| live.map_or(Ok(()), |live| rehearsal.agree(&live, Slack::default())))
        .with_context(|| format!("{heard:?}\n{}", rehearsal.lost_flows()))
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
                thread::sleep(Duration::from_millis(20));
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

fn nothing_is_left(daemon: &Daemon) -> Result<()> {
    let deadline = Instant::now() + CLOSED;
    loop {
        match daemon.pinholes()? {
            0 => return Ok(()),
            left => ensure!(
                Instant::now() < deadline,
                "{left} pinholes are left after all calls ended"
            ),
        }
        thread::sleep(Duration::from_millis(50));
    }
}
