//! What the operator may choose, with packets between real sockets: observing, strict scope, egress, replies, and forged frames.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    daemon::{self, Daemon, Mode},
    namespace::Namespace,
    service::ping,
    topology::{Network, OUTER, Topology},
};

use crate::Test;

/// How long a packet may take, and how long none has to be heard before it counts as dropped.
const PATIENCE: Duration = Duration::from_millis(400);
const RTP: &[u8] = &[0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
const SIP: &[u8] = b"OPTIONS sip:pbx SIP/2.0\r\nContent-Length: 0\r\n\r\n";
const LOGIN: u16 = 2_222;
const WEB: u16 = 4_443;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (ip, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
        let mut add = |name: &str, body: fn(Family) -> Result<()>| {
            tests.push(Test::new(format!("modes::{name}::{ip}"), move || {
                body(family)
            }));
        };
        add("an_observer_drops_nothing_and_says_so", observing);
        add("strict_scope_keeps_whoever_is_logged_in", strict);
        add("sip_and_media_leave_for_nobody_else", egress);
        add("the_pbx_is_answered_where_it_sent", replies);
        add("a_forged_offer_is_not_the_pbxs", forged);
        add(
            "a_pbx_on_the_providers_side_is_not_taken_for_forged",
            hairpin,
        );
        add("a_pbx_that_moved_to_that_side_is_told_of", rerouted);
    }
    tests
}

fn udp(namespace: &Namespace, ip: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = namespace
        .enter(|| UdpSocket::bind((ip, port)))?
        .with_context(|| format!("cannot bind {ip} port {port}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn send(from: &UdpSocket, to: &UdpSocket, bytes: &[u8]) -> Result<()> {
    from.send_to(bytes, to.local_addr()?)?;
    Ok(())
}

/// Whether a datagram waits, or comes in time.
fn hears(socket: &UdpSocket) -> Result<bool> {
    match socket.recv(&mut [0; 2_048]) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Sends, and says whether it arrived.
fn arrives(from: &UdpSocket, to: &UdpSocket, bytes: &[u8]) -> Result<bool> {
    send(from, to, bytes)?;
    hears(to)
}

fn connect(from: &Namespace, to: SocketAddr) -> Result<Option<TcpStream>> {
    Ok(from
        .enter(move || TcpStream::connect_timeout(&to, PATIENCE))?
        .ok())
}

/// Waits for something that the daemon does once a moment.
fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds()? {
        ensure!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The configuration with lines before and sections after it.
fn config(network: &Network, top: &str, end: &str) -> String {
    format!(
        "{top}\n{}{end}",
        daemon::config(network, &[OUTER], Mode::Native)
    )
}

fn counted(daemon: &Daemon, reason: &str) -> Result<(u64, String)> {
    let answer = daemon.ctl(&["stats", "--json"])?;
    let counter = answer["counters"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|counter| counter["name"] == reason)
        .with_context(|| format!("no counter {reason}"))?;
    Ok((
        counter["packets"].as_u64().unwrap_or_default(),
        counter["kind"].as_str().unwrap_or_default().to_owned(),
    ))
}

#[track_caller]
fn expect(daemon: &Daemon, reason: &str, packets: u64, kind: &str) -> Result<()> {
    let found = counted(daemon, reason)?;
    ensure!(
        found == (packets, kind.to_owned()),
        "{reason} was counted {found:?}, not {packets} {kind}\n{}",
        daemon.log()
    );
    Ok(())
}

fn observing(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let stranger = udp(&network.stranger, Place::Stranger.address(family), 40_000)?;
    let media = udp(network.pbx(), Place::PbxCallee.address(family), 10_002)?;
    let sip = udp(network.pbx(), Place::PbxCallee.address(family), SIP_PORT)?;

    let text = config(&network, "enforcement = \"observe\"", "");
    let daemon = Daemon::start_with(&network, "observe", &text)?;
    ensure!(
        arrives(&stranger, &media, RTP)?,
        "an observer dropped media"
    );
    ensure!(arrives(&stranger, &sip, SIP)?, "an observer dropped SIP");
    expect(&daemon, "no_pinhole", 1, "would drop")?;
    expect(&daemon, "unknown_source", 1, "would drop")?;
    let status = &daemon.ctl(&["status", "--json"])?["daemon"];
    ensure!(
        status["enforcement"] == "observe" && status["packets_to_drop"] == 2,
        "{status}"
    );
    ensure!(
        daemon.log().contains("NOTHING IS DROPPED"),
        "{}",
        daemon.log()
    );
    daemon.stop(Signal::TERM)?;

    let daemon = Daemon::start_with(&network, "observe", &config(&network, "", ""))?;
    expect(&daemon, "no_pinhole", 0, "drop")?;
    ensure!(
        !arrives(&stranger, &media, RTP)? && !arrives(&stranger, &sip, SIP)?,
        "what was observed is not enforced"
    );
    expect(&daemon, "no_pinhole", 1, "drop")?;
    expect(&daemon, "unknown_source", 1, "drop")?;
    ensure!(
        daemon.log().contains("took over the pinned maps"),
        "going from observing to enforcing gave up the pinholes: {}",
        daemon.log()
    );
    Ok(())
}

fn strict(family: Family) -> Result<()> {
    let network = Network::build(Topology::OnHost, family, &[])?;
    let (host, far) = (
        Place::PbxCallee.address(family),
        Place::Stranger.address(family),
    );
    let login = SocketAddr::new(host, LOGIN);
    let listener = network.edge.enter(move || TcpListener::bind(login))??;
    let web = SocketAddr::new(host, WEB);
    let _web = network.edge.enter(move || TcpListener::bind(web))??;
    let mut client = connect(&network.stranger, login)?.context("nobody can log in at all")?;
    let (mut server, _) = listener.accept()?;

    let text = config(
        &network,
        "scope = \"strict\"",
        &format!("\n[[strict.allow]]\nprotocol = \"tcp\"\nports = [\"{WEB}\"]\n"),
    );
    let daemon = Daemon::start_with(&network, "strict", &text)?;
    ensure!(
        daemon.log().contains(&format!(
            "connections to TCP port {LOGIN} are established from {far}"
        )),
        "the operator was not warned: {}",
        daemon.log()
    );
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    let mut byte = [0];
    client.write_all(b"?")?;
    server
        .read_exact(&mut byte)
        .context("the session was cut off")?;
    server.write_all(b"!")?;
    client
        .read_exact(&mut byte)
        .context("the session was cut off")?;
    ensure!(
        connect(&network.stranger, login)?.is_none(),
        "a port that nobody allowed takes connections"
    );
    ensure!(
        connect(&network.stranger, web)?.is_some(),
        "an allowed port takes no connection"
    );
    ping(&network.stranger, far, host).context("ping was cut off")?;

    let names = udp(&network.stranger, far, 5_353)?;
    let asking = udp(&network.edge, host, 33_000)?;
    ensure!(
        !arrives(&names, &asking, b"?")?,
        "a datagram that nobody asked for came in"
    );
    ensure!(arrives(&asking, &names, b"?")?, "the host cannot ask");
    ensure!(
        arrives(&names, &asking, b"!")?,
        "the host is not answered: {}",
        daemon.log()
    );
    expect(&daemon, "reply", 1, "pass")?;
    let (dropped, kind) = counted(&daemon, "out_of_scope")?;
    ensure!(
        dropped >= 2 && kind == "drop",
        "out_of_scope: {dropped} {kind}"
    );
    Ok(())
}

fn egress(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let pbx = Place::PbxCallee.address(family);
    let far = Place::Stranger.address(family);
    let [sip, media] = [SIP_PORT, 10_002].map(|port| udp(network.pbx(), pbx, port));
    let (sip, media) = (sip?, media?);
    let thief = udp(&network.stranger, far, SIP_PORT)?;
    let sink = udp(&network.stranger, far, 30_000)?;
    let reached = udp(&network.stranger, far, 45_000)?;
    let provider = udp(
        &network.provider,
        Place::ProviderCallee.address(family),
        SIP_PORT,
    )?;
    let exchange = SocketAddr::new(far, SIP_PORT);
    let _exchange = network
        .stranger
        .enter(move || TcpListener::bind(exchange))??;

    for (word, passes, kind) in [("count", true, "pass"), ("enforce", false, "drop")] {
        let text = config(&network, &format!("egress = \"{word}\""), "");
        let daemon = Daemon::start_with(&network, "egress", &text)?;
        ensure!(
            arrives(&sip, &thief, SIP)? == passes,
            "{word}: SIP to a stranger"
        );
        expect(&daemon, "egress_foreign_signalling", 1, kind)?;
        ensure!(
            arrives(&media, &sink, RTP)? == passes,
            "{word}: media to a port that is no provider's"
        );
        expect(&daemon, "egress_foreign_media", 1, kind)?;
        ensure!(
            connect(network.pbx(), exchange)?.is_some() == passes,
            "{word}: SIP over TCP to a stranger"
        );
        ensure!(
            counted(&daemon, "egress_foreign_signalling")?.0 > 1,
            "{word}: TCP was not counted"
        );
        // Whoever may be called, and where media may go, is the same in both.
        ensure!(
            arrives(&sip, &provider, SIP)?,
            "{word}: SIP to the provider"
        );
        ensure!(
            arrives(&media, &reached, RTP)?,
            "{word}: media within the limits"
        );
        ensure!(
            !arrives(&reached, &media, RTP)?,
            "{word}: an answer without a pinhole"
        );
        daemon.stop(Signal::TERM)?;
    }
    Ok(())
}

fn replies(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let pbx = Place::PbxCallee.address(family);
    let far = Place::Stranger.address(family);
    let [media, other] = [10_002, 10_004].map(|port| udp(network.pbx(), pbx, port));
    let (media, other) = (media?, other?);
    let [peer, beside, outside] =
        [45_000, 45_001, 30_000].map(|port| udp(&network.stranger, far, port));
    let (peer, beside, outside) = (peer?, beside?, outside?);
    let text =
        config(&network, "", "").replace("media = { ", "media = { replies = [\"40000-60000\"], ");
    ensure!(
        text.contains("replies"),
        "the configuration is another one:\n{text}"
    );
    let daemon = Daemon::start_with(&network, "replies", &text)?;
    ensure!(!arrives(&peer, &media, RTP)?, "nobody had sent yet");
    ensure!(arrives(&media, &peer, RTP)?, "the PBX cannot send");
    ensure!(
        arrives(&peer, &media, RTP)?,
        "the PBX is not answered: {}",
        daemon.log()
    );
    ensure!(!arrives(&beside, &media, RTP)?, "another port answered");
    ensure!(!arrives(&peer, &other, RTP)?, "another port was answered");
    ensure!(!arrives(&peer, &media, &[0xff; 20])?, "no media");
    send(&media, &outside, RTP)?;
    ensure!(
        !arrives(&outside, &media, RTP)?,
        "a port outside the limits answered"
    );
    expect(&daemon, "reply", 1, "pass")?;
    expect(&daemon, "not_media", 1, "drop")?;
    daemon.stop(Signal::TERM)?;

    // Another start takes the memory over, as it does the pinholes.
    let daemon = Daemon::start_with(&network, "replies", &text)?;
    ensure!(
        arrives(&peer, &media, RTP)?,
        "a restart cut the answers off: {}",
        daemon.log()
    );
    Ok(())
}

/// What a caller's PBX would send, from an address that is not the sender's.
fn forge(network: &Network, family: Family) -> Result<()> {
    let pbx = Place::PbxCallee.address(family);
    network.stranger.ip(&format!("address add {pbx} dev lo"))?;
    let sender = udp(&network.stranger, pbx, SIP_PORT)?;
    let provider = udp(
        &network.provider,
        Place::ProviderCallee.address(family),
        SIP_PORT,
    )?;
    ensure!(
        arrives(&sender, &provider, SIP)?,
        "the edge did not forward the forged frame, so nothing is shown"
    );
    Ok(())
}

fn forged(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let daemon = Daemon::start(&network, Mode::Native)?;
    forge(&network, family)?;
    expect(&daemon, "egress_forged", 1, "pass")?;
    expect(&daemon, "egress_signalling", 0, "pass")?;
    expect(&daemon, "copied", 0, "note")?;
    eventually("a line about forged packets", || {
        Ok(daemon.log().contains("forged packets that claim"))
    })?;
    let status: Value = daemon.ctl(&["status", "--json"])?;
    ensure!(
        status["daemon"]["forged_packets"] == 1 && status["daemon"]["routes_changed"] == false,
        "{status}"
    );
    // The PBX's own is still heard.
    let pbx = udp(network.pbx(), Place::PbxCaller.address(family), SIP_PORT)?;
    let provider = udp(
        &network.provider,
        Place::ProviderCallee.address(family),
        SIP_PORT,
    )?;
    ensure!(arrives(&pbx, &provider, SIP)?, "the PBX cannot send");
    expect(&daemon, "egress_signalling", 1, "pass")
}

fn rerouted(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let daemon = Daemon::start(&network, Mode::Native)?;
    // From now on the way to the PBX leads to where strangers are.
    let (pbx, stranger) = (
        Place::PbxCaller.address(family),
        Place::Stranger.address(family),
    );
    network
        .edge
        .ip(&format!("route add {pbx} via {stranger} dev {OUTER}"))?;
    forge(&network, family)?;
    expect(&daemon, "egress_forged", 1, "pass")?;
    eventually("a line about the routes", || {
        Ok(daemon.log().contains("sipfilterctl reload"))
    })?;
    let status: Value = daemon.ctl(&["status", "--json"])?;
    ensure!(status["daemon"]["routes_changed"] == true, "{status}");
    // What the line advises helps.
    daemon.ctl(&["reload", "--json"])?;
    let status: Value = daemon.ctl(&["status", "--json"])?;
    ensure!(status["daemon"]["routes_changed"] == false, "{status}");
    Ok(())
}

fn hairpin(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    // The PBX is a host on the outer link, and the edge its router.
    let pbx = Place::Stranger.address(family);
    let text: String = daemon::config(&network, &[OUTER], Mode::Native)
        .lines()
        .map(|line| match line.starts_with("addresses") {
            true => format!("addresses = [\"{pbx}\"]\n"),
            false => format!("{line}\n"),
        })
        .collect();
    let daemon = Daemon::start_with(&network, "hairpin", &text)?;
    let sip = udp(&network.stranger, pbx, SIP_PORT)?;
    let provider = udp(
        &network.provider,
        Place::ProviderCallee.address(family),
        SIP_PORT,
    )?;
    ensure!(arrives(&sip, &provider, SIP)?, "the PBX cannot send");
    ensure!(arrives(&provider, &sip, SIP)?, "the provider cannot answer");
    thread::sleep(Duration::from_millis(50));
    expect(&daemon, "egress_forged", 0, "pass")?;
    expect(&daemon, "egress_signalling", 1, "pass")?;
    let counters: Value = daemon.ctl(&["status", "--json"])?;
    ensure!(
        counters["daemon"]["calls"] == 0,
        "OPTIONS made a call: {counters}"
    );
    Ok(())
}
