//! One SIP OPTIONS (RFC 3261 §11) to each provider, only when the operator asks for it: whether anything answers at all.
//!
//! Invariant: at most [`MOST`] datagrams leave, each once.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::Findings;
use crate::{
    engine::settings::{Provider, Settings, Transport},
    shell,
    view::Check,
};

/// Datagrams in all.
const MOST: usize = 16;
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let from = settings
        .pbx
        .addresses
        .iter()
        .copied()
        .find(|address| super::links::holder(*address).is_some());
    settings
        .providers
        .iter()
        .take(MOST)
        .flat_map(|provider| {
            let mut found = Findings::of(format!("provider {}", provider.name));
            probe(&mut found, provider, from);
            found.checks
        })
        .collect()
}

fn probe(found: &mut Findings, provider: &Provider, from: Option<IpAddr>) {
    let port = provider.signalling_ports.udp.first();
    let (true, Some(port)) = (provider.transports.contains(&Transport::Udp), port) else {
        return found.unknown(
            "probe",
            "it takes no SIP over UDP, and nothing else is tried",
            "place a call, and see it with `sipfilterctl calls`",
        );
    };
    let Some(net) = provider
        .signalling
        .iter()
        .find(|net| net.prefix_len() == net.max_prefix_len())
    else {
        return found.unknown(
            "probe",
            "no single address of it is known",
            "place a call, and see it with `sipfilterctl calls`",
        );
    };
    let to = SocketAddr::new(net.addr(), *port);
    match options(to, from) {
        Ok(line) => found.ok("probe", format!("{to} answered OPTIONS: {line}")),
        Err(error) => found.warning(
            "probe",
            format!("{to} did not answer OPTIONS within {} s ({error})", PATIENCE.as_secs()),
            "many providers answer known addresses only: tell yours this host's address; else see the route and any firewall on the way",
        ),
    }
}

fn options(to: SocketAddr, from: Option<IpAddr>) -> std::io::Result<String> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = from
        .filter(|from| from.is_ipv4() == to.is_ipv4())
        .unwrap_or(any);
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let own = socket.local_addr()?;
    let [one, two] = shell::hash_key();
    let request = format!(
        "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{one:016x};rport\r\nMax-Forwards: 70\r\nFrom: <sip:doctor@{own}>;tag={two:08x}\r\nTo: <sip:{to}>\r\nCall-ID: {one:016x}{two:016x}\r\nCSeq: 1 OPTIONS\r\nContact: <sip:doctor@{own}>\r\nContent-Length: 0\r\n\r\n"
    );
    socket.send(request.as_bytes())?;
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer)?;
    let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
    let line = text.lines().next().unwrap_or_default();
    Ok(line
        .chars()
        .take(80)
        .collect::<String>()
        .replace(char::is_control, "\u{fffd}"))
}
