//! Calls heard through the kernel's own way of doing this: connection tracking with its SIP helper (nf_conntrack_sip).
//!
//! The helper is given what it wants: its rules are those of its users, and signalling is UDP on port 5060. It is one setting for the
//! whole machine, `sip_direct_media`, which is put back afterwards. The PBX does not talk: what a stateful firewall lets in only because
//! the PBX sent something there first is no work of the helper's.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Options, SubBench,
    outcome::{Outcome, Table},
    trunk::{Media, Plan, Tally, Trunk},
};
use crate::lab::{
    address::{Family, Place, SIP_PORT},
    daemon::{Daemon, Mode},
    namespace::run as run_command,
    topology::{Network, OUTER, Topology},
};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "helper",
    about: "calls heard with sipfilter and with nf_conntrack_sip",
    run,
};

const CALLS: u32 = 100;
const DIRECT_MEDIA: &str = "/sys/module/nf_conntrack_sip/parameters/sip_direct_media";

/// The settings, in the order of the JSON's lists: `sip_direct_media`, and where media comes from.
const SETTINGS: [(u8, Media); 4] = [
    (1, Media::Signalling),
    (1, Media::Elsewhere),
    (0, Media::Signalling),
    (0, Media::Elsewhere),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Nothing,
    Sipfilter,
    Helper,
}

fn run(_options: &Options) -> Result<Outcome> {
    let at_once = Duration::ZERO;
    // All calls stand by then.
    let later = Duration::from_millis(1_500);
    let mut table = Table::new(
        &format!("Calls of {CALLS} at once in which the PBX heard the provider"),
        &[
            "sip_direct_media, media from",
            "sipfilter",
            "helper",
            "no filter",
            "audio later: sipfilter",
            "helper",
        ],
    );
    let (mut sipfilter, mut helper, mut why) = (Vec::new(), Vec::new(), None);
    for (direct, media) in SETTINGS {
        let setting = DirectMedia::set(direct);
        let ours = heard(Peer::Sipfilter, media, at_once)?;
        let ours_later = heard(Peer::Sipfilter, media, later)?;
        let open = heard(Peer::Nothing, media, at_once)?;
        let (theirs, theirs_later) = match &setting {
            Ok(_) => (
                Some(heard(Peer::Helper, media, at_once)?),
                Some(heard(Peer::Helper, media, later)?),
            ),
            Err(error) => {
                why = Some(format!("nf_conntrack_sip was not measured: {error:#}."));
                (None, None)
            }
        };
        let cell = |heard: Option<u32>| heard.map_or("-".into(), |heard| heard.to_string());
        let from = match media {
            Media::Signalling => "the signalling address",
            Media::Elsewhere => "another address",
        };
        table.row([
            format!("{direct}, {from}"),
            ours.to_string(),
            cell(theirs),
            open.to_string(),
            ours_later.to_string(),
            cell(theirs_later),
        ]);
        sipfilter.push(ours.min(ours_later));
        helper.push(theirs);
    }
    let helper = if why.is_some() {
        Value::Null
    } else {
        json!(helper)
    };
    let mut notes = vec![format!(
        "{CALLS} calls within a second, each of two seconds, all from one address and port of the provider as on every trunk. In the first \
         columns each call's audio starts with its answer, in the last two 1.5 s later, when all calls stand. The PBX itself is silent, as \
         one that records or waits: whatever it sends first opens a stateful firewall for exact replies, helper or not. Every INVITE on a \
         signalling connection makes the helper forget the streams that it still expects there, and a trunk is one connection: only audio \
         that comes before the next call is let in. With `sip_direct_media` = 1, its default, it expects media from the signalling \
         address alone. The JSON holds the first columns for the helper, which suit it best, and the worse of both for sipfilter."
    )];
    notes.extend(why);
    Ok(Outcome {
        summary: json!({"sipfilter_heard": sipfilter, "helper_heard": helper}),
        tables: vec![table],
        notes,
        ..Outcome::default()
    })
}

fn heard(peer: Peer, media: Media, silence: Duration) -> Result<u32> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let _daemon = match peer {
        Peer::Sipfilter => Some(Daemon::start(&network, Mode::Native)?),
        Peer::Helper => {
            track_with_helper(&network)?;
            None
        }
        Peer::Nothing => None,
    };
    let plan = Plan {
        rate: CALLS,
        calls: CALLS,
        packets: 20,
        hold: Duration::from_secs(2),
        silence,
        media,
        ..Plan::default()
    };
    let tally: Tally = Trunk::new(&network, plan)?.run()?;
    tally.expect_all_calls(&plan)?;
    eprintln!(
        "    {peer:?}, {media:?}, audio after {silence:?}: {} heard",
        tally.heard
    );
    Ok(tally.heard)
}

/// A stateful firewall as the helper's users write it: the PBX may send anything, the provider may signal, the helper says what else.
fn track_with_helper(network: &Network) -> Result<()> {
    let places = [Place::ProviderCaller, Place::ProviderCallee];
    let [caller, callee] = places.map(|place| place.address(network.family));
    let rules = format!(
        "table ip bench {{\n\
           ct helper sip {{ type \"sip\" protocol udp; }}\n\
           chain track {{ type filter hook prerouting priority 0;\n\
             udp dport {SIP_PORT} ct helper set \"sip\"\n\
           }}\n\
           chain forward {{ type filter hook forward priority 0; policy drop;\n\
             ct state established,related accept\n\
             iifname != \"{OUTER}\" accept\n\
             ip saddr {{ {caller}, {callee} }} udp dport {SIP_PORT} accept\n\
           }}\n\
         }}\n"
    );
    let file = network.directory.path().join("helper.nft");
    fs::write(&file, rules)?;
    run_command(network.edge.command("nft").arg("-f").arg(&file))
        .context("nftables refuses the SIP helper's rules")?;
    Ok(())
}

/// The helper's setting, as it was when dropped.
struct DirectMedia {
    before: String,
}

impl DirectMedia {
    fn set(value: u8) -> Result<Self> {
        let before = fs::read_to_string(DIRECT_MEDIA).with_context(|| {
            format!(
                "this kernel has no SIP helper ({DIRECT_MEDIA}); try `modprobe nf_conntrack_sip`"
            )
        })?;
        fs::write(DIRECT_MEDIA, value.to_string())
            .with_context(|| format!("cannot write {DIRECT_MEDIA}"))?;
        Ok(Self { before })
    }
}

impl Drop for DirectMedia {
    fn drop(&mut self) {
        let _ = fs::write(DIRECT_MEDIA, self.before.trim());
    }
}
