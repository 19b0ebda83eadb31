//! Links with jumbo frames: the filter attaches natively, and reads signalling that lies in several of a driver's buffers.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    daemon::{Daemon, Mode},
    namespace::{Namespace, run},
    topology::{Network, Topology},
};

use crate::Test;

/// More than a page, which is what a driver's buffer holds.
const MTU: usize = 9_000;

pub fn tests() -> Vec<Test> {
    [("ipv4", Family::V4), ("ipv6", Family::V6)]
        .into_iter()
        .map(|(ip, family)| {
            Test::new(
                format!("jumbo::a_large_invite_in_one_frame_is_read_whole::{ip}"),
                move || large_invite(family),
            )
        })
        .collect()
}

fn large_invite(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    for namespace in [
        &network.provider,
        &network.switch,
        &network.edge,
        network.pbx(),
    ] {
        enlarge(namespace)?;
    }
    let daemon = Daemon::start(&network, Mode::Native)?;
    let bind = |namespace: &Namespace, place: Place| -> Result<UdpSocket> {
        let place = (place.address(family), SIP_PORT);
        let socket = namespace.enter(|| UdpSocket::bind(place))??;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    };
    let provider = bind(&network.provider, Place::ProviderCaller)?;
    let pbx = bind(network.pbx(), Place::PbxCallee)?;
    let invite = invite(&provider, &pbx)?;
    provider.send_to(&invite, pbx.local_addr()?)?;
    let mut received = vec![0; MTU];
    let length = pbx
        .recv(&mut received)
        .context("the INVITE did not come through")?;
    ensure!(
        received[..length] == invite,
        "{length} bytes came, of {} that were sent, or others",
        invite.len()
    );
    // The engine found the call at the head, and the offer at the very end.
    let calls = daemon.ctl(&["calls", "--json"])?;
    ensure!(
        calls.to_string().contains("jumbo@provider.example"),
        "the call is not known: {calls}"
    );
    let record = daemon.ctl(&["calls", "show", "jumbo@provider.example", "--json"])?;
    ensure!(
        record.to_string().contains("40404"),
        "the offer's port is not in the record: {record}"
    );
    // It came in one frame: the filter saw no fragment.
    let stats = daemon.ctl(&["stats", "--json"])?;
    let fragments = stats["counters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|counter| counter["name"] == "fragment")
        .any(|counter| counter["packets"] != 0);
    ensure!(!fragments, "the INVITE came in fragments: {stats}");
    daemon.stop(Signal::TERM)?;
    Ok(())
}

fn enlarge(namespace: &Namespace) -> Result<()> {
    let links = run(namespace.command("ip").args(["-o", "link"]))?;
    for line in links.lines() {
        // `2: outer0@if3: <…`
        let name = line.split(": ").nth(1).unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default();
        if name != "lo" {
            namespace.ip(&format!("link set {name} mtu {MTU}"))?;
        }
    }
    Ok(())
}

/// An INVITE that nearly fills a frame, its SDP at the end.
fn invite(provider: &UdpSocket, pbx: &UdpSocket) -> Result<Vec<u8>> {
    let (from, to) = (provider.local_addr()?, pbx.local_addr()?);
    let version = if from.is_ipv4() { "IP4" } else { "IP6" };
    let ip = from.ip();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN {version} {ip}\r\ns=-\r\nc=IN {version} {ip}\r\nt=0 0\r\n\
         m=audio 40404 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    );
    let padding: String = (0..100)
        .map(|index| format!("X-Padding-{index}: {}\r\n", "p".repeat(60)))
        .collect();
    Ok(format!(
        "INVITE sip:callee@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKjumbo\r\nMax-Forwards: 70\r\n\
         From: <sip:caller@{from}>;tag=a\r\nTo: <sip:callee@{to}>\r\nCall-ID: jumbo@provider.example\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:caller@{from}>\r\n{padding}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
    .into_bytes())
}
