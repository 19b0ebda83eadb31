//! `sipfilterctl strangers`: who claims a provider's domain stands before whoever knocks more often, with what to do about it; and doing
//! that lets the provider in.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use sipfilter_daemon::view::Strangers;
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    daemon::{self, Daemon, Mode},
    rehearsal::Reasons,
    topology::{Network, OUTER, Topology},
};

use crate::{
    Test,
    drops::{ctl, scan, until},
};

/// In networks of their own: the first group after 2001:db8, the domain that they claim, and how often they knock: less often in all than
/// is sampled of one reason in a tenth of a second, so that every packet is.
const KNOCKING: [(u16, &str, u64); 4] = [
    (0x68, "nobody.example", 30),
    (0x69, "nottwilio.com", 15),
    (0x67, "us.pstn.twilio.com", 4),
    (0x66, "gw.lab.example", 2),
];

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "strangers_who_claim_a_providers_domain_come_first_and_can_be_let_in",
        strangers,
    )]
}

fn address(group: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, 0, 1).into()
}

fn knock(network: &Network, group: u16, domain: &str, times: u64) -> Result<()> {
    let pbx = SocketAddr::new(Place::PbxCallee.address(Family::V6), SIP_PORT);
    let message = scan(pbx).replace("gw.lab.example", domain);
    network.stranger.enter(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind((address(group), SIP_PORT))?;
        for _ in 0..times {
            socket.send_to(message.as_bytes(), pbx)?;
        }
        Ok(())
    })??;
    Ok(())
}

fn strangers() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V6, &[])?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
    let mut packets = 0;
    for (group, domain, times) in KNOCKING {
        let place = format!("address add {}/128 dev lo nodad", address(group));
        network.stranger.ip(&place)?;
        knock(&network, group, domain, times)?;
        packets += times;
    }
    let all = until(&daemon, &["--json", "strangers"], |found: &Strangers| {
        (found.packets, found.samples) == (packets, packets)
    })?;
    let rows: Vec<_> = all
        .strangers
        .iter()
        .map(|row| {
            (
                row.network.addr(),
                row.claims.as_deref(),
                row.is_trunk,
                row.packets,
            )
        })
        .collect();
    let network_of =
        |group| -> IpAddr { Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, 0, 0).into() };
    ensure!(
        rows == [
            (network_of(0x66), Some("lab"), true, 2),
            (network_of(0x67), Some("twilio"), false, 4),
            (network_of(0x68), None, false, 30),
            (network_of(0x69), None, false, 15),
        ],
        "{all:#?}"
    );
    let file = daemon.file().display().to_string();
    for row in &all.strangers {
        let says = |words: &[&str]| {
            let advice = row.advice.as_deref().unwrap_or_default();
            words.iter().all(|word| advice.contains(word))
        };
        let is_told = says(&[
            "check with",
            "`signalling`",
            "[[trunk]]",
            &file,
            "systemctl reload sipfilterd",
        ]);
        ensure!(is_told == row.claims.is_some(), "{row:#?}");
    }
    let first: Strangers =
        serde_json::from_value(daemon.ctl(&["--json", "strangers", "--limit", "1"])?)?;
    ensure!(
        first.strangers == all.strangers[..1] && first.more_strangers == 3,
        "{first:#?}"
    );
    let output = ctl(daemon.runtime())?.arg("strangers").output()?;
    let text = String::from_utf8(output.stdout)?;
    let at = |word: &str| {
        text.find(word)
            .with_context(|| format!("no {word}: {text}"))
    };
    ensure!(
        at("2001:db8:66::/48")? < at("2001:db8:67::/48")?
            && at("2001:db8:67::/48")? < at("2001:db8:68::/48")?
            && at("2001:db8:68::/48")? < at("2001:db8:69::/48")?,
        "{text}"
    );
    if std::env::var_os("SIPFILTER_SHOW").is_some() {
        eprintln!("$ sipfilterctl strangers\n{text}");
    }

    // As advised: the trunk's own list goes before the provider's.
    let here = Place::ProviderCaller.address(Family::V6);
    let advised = format!("{config}signalling = [\"{here}/128\", \"2001:db8:66::/48\"]\n");
    let answer = daemon.reload(&advised)?;
    ensure!(answer["ok"] == true, "{answer:#}");
    let before = daemon.settled_reasons()?;
    knock(&network, 0x66, "gw.lab.example", 3)?;
    knock(&network, 0x67, "us.pstn.twilio.com", 5)?;
    let after = daemon.settled_reasons()?;
    let more = |reason: &str| {
        let of = |reasons: &Reasons| reasons.get(reason).copied().unwrap_or_default();
        of(&after) - of(&before)
    };
    ensure!(
        (more("signalling"), more("unknown_source")) == (3, 5),
        "{before:?}, then {after:?}"
    );
    Ok(())
}
