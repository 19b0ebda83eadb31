//! What `sipfilterctl calls show` says of calls that were refused, that connect and drop, and whose media came too early: told message by
//! message, without agents that know better.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sipfilter_daemon::view::CallRecord;
use sipfilter_tests::lab::{
    address::{Family, PBX_RTP_FIRST, PROVIDER_RTP_FIRST, Place, SIP_PORT},
    daemon::{Daemon, Mode, config},
    topology::{Network, Topology},
};

use crate::{
    Test,
    drops::{ctl, rtp, until},
};

/// Between what follows from one another.
const STEP: Duration = Duration::from_millis(20);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("refusals_are_told_with_their_likely_cause", refusals),
        Test::new("calls_that_connect_and_drop_say_why", drops),
        Test::new("media_before_the_pinhole_is_told", early_media),
    ]
}

/// Both ends of the signalling, and the filter between them.
struct Line {
    daemon: Daemon,
    provider: UdpSocket,
    pbx: UdpSocket,
    network: Network,
}

/// A call, as far as its messages name it.
struct Call<'a> {
    line: &'a Line,
    id: String,
    is_inbound: bool,
}

impl Line {
    fn new(timers: &str) -> Result<Self> {
        let network = Network::build(Topology::Routed, Family::V4, &[])?;
        let config = config(&network, &["outer0"], Mode::Native);
        let daemon = Daemon::start_with(&network, "sipfilter", &format!("{config}{timers}"))?;
        let place = |place: Place| SocketAddr::new(place.address(Family::V4), SIP_PORT);
        let provider = network
            .provider
            .enter(|| UdpSocket::bind(place(Place::ProviderCaller)))??;
        let pbx = network
            .pbx()
            .enter(|| UdpSocket::bind(place(Place::PbxCallee)))??;
        provider.connect(pbx.local_addr()?)?;
        pbx.connect(provider.local_addr()?)?;
        Ok(Self {
            daemon,
            provider,
            pbx,
            network,
        })
    }

    fn call(&self, id: &str, is_inbound: bool) -> Call<'_> {
        Call {
            line: self,
            id: id.to_owned(),
            is_inbound,
        }
    }
}

impl Call<'_> {
    fn ends(&self) -> (&UdpSocket, &UdpSocket) {
        match self.is_inbound {
            true => (&self.line.provider, &self.line.pbx),
            false => (&self.line.pbx, &self.line.provider),
        }
    }

    /// A message of the caller's (a method) or of the callee's (a status), with SDP or without.
    fn say(&self, first: &str, sequence: u32, method: &str, sdp: bool) -> Result<()> {
        let (caller, callee) = self.ends();
        let (from, to) = (caller.local_addr()?, callee.local_addr()?);
        let is_request = first == method;
        let line = match is_request {
            true => format!("{method} sip:100@{to} SIP/2.0"),
            false => format!("SIP/2.0 {first} As It Is"),
        };
        let tag = if first == "INVITE" { "" } else { ";tag=b" };
        let speaker = if is_request { caller } else { callee };
        let (address, port) = match is_request == self.is_inbound {
            true => (Place::ProviderMedia(0), PROVIDER_RTP_FIRST),
            false => (Place::PbxCallee, PBX_RTP_FIRST),
        };
        let address = address.address(Family::V4);
        let body = match sdp {
            true => format!(
                "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
            ),
            false => String::new(),
        };
        let kind = if sdp {
            "Content-Type: application/sdp\r\n"
        } else {
            ""
        };
        let message = format!(
            "{line}\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{id}{sequence}{method}\r\nFrom: <sip:1@{from}>;tag=a\r\nTo: <sip:100@{to}>{tag}\r\n\
             Call-ID: {id}\r\nCSeq: {sequence} {method}\r\nContact: <sip:1@{}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            speaker.local_addr()?,
            body.len(),
            id = self.id,
        );
        speaker.send(message.as_bytes())?;
        thread::sleep(STEP);
        Ok(())
    }

    /// Invited, and answered with this status; acknowledged.
    fn refused(&self, sequence: u32, status: &str) -> Result<()> {
        self.say("INVITE", sequence, "INVITE", true)?;
        self.say(status, sequence, "INVITE", false)?;
        self.say("ACK", sequence, "ACK", false)
    }

    /// What is said of it once that is of this kind, and that all of it is.
    fn expect(&self, code: &str, parts: &[&str]) -> Result<()> {
        let arguments = ["calls", "show", &self.id, "--json"];
        let record = until(&self.line.daemon, &arguments, |record: &CallRecord| {
            record.findings.iter().any(|finding| finding.code == code)
        })?;
        let mut findings = record.findings.iter();
        let finding = findings
            .find(|finding| finding.code == code)
            .context("it is there")?;
        let said = format!("{}\n{}", finding.text, finding.causes.join("\n"));
        for part in parts {
            ensure!(said.contains(part), "{}: no {part:?} in {said}", self.id);
        }
        let output = ctl(self.line.daemon.runtime())?
            .args(&arguments[..3])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        if std::env::var_os("SIPFILTER_SHOW").is_some() {
            eprintln!("$ sipfilterctl calls show {}\n{text}", self.id);
        }
        ensure!(text.contains("PROBLEM") || text.contains("NOTE"), "{text}");
        Ok(())
    }
}

fn refusals() -> Result<()> {
    let line = Line::new("")?;
    for (status, is_inbound, code, parts) in [
        (
            "403",
            false,
            "forbidden",
            ["the provider refused the call: 403", "allow-list"],
        ),
        (
            "403",
            true,
            "forbidden",
            ["the PBX refused the call: 403", "identify"],
        ),
        ("404", false, "not_found", ["404 not found", "E.164"]),
        (
            "404",
            true,
            "not_found",
            ["404 not found", "inbound route (DID)"],
        ),
        (
            "480",
            false,
            "unavailable",
            ["480 temporarily unavailable", "the far end"],
        ),
        (
            "480",
            true,
            "unavailable",
            ["480 temporarily unavailable", "registered at the PBX"],
        ),
        ("486", false, "busy", ["486 busy here", "limit of calls"]),
        ("486", true, "busy", ["486 busy here", "limit of calls"]),
        (
            "488",
            false,
            "no_common_media",
            ["488 not acceptable here", "codec in common"],
        ),
        (
            "488",
            true,
            "no_common_media",
            ["488 not acceptable here", "SRTP"],
        ),
        (
            "503",
            false,
            "server_failed",
            ["503 service unavailable", "limit of calls"],
        ),
        (
            "503",
            true,
            "server_failed",
            ["503 service unavailable", "no free channel"],
        ),
    ] {
        let call = line.call(&format!("{status}-{is_inbound}"), is_inbound);
        call.refused(1, status)?;
        call.expect(code, &parts)?;
    }
    for (status, is_inbound, part) in [
        ("401", false, "outbound_auth"),
        ("407", false, "outbound_auth"),
        ("401", true, "no `auth` on the endpoint"),
    ] {
        let call = line.call(&format!("loop-{status}-{is_inbound}"), is_inbound);
        for sequence in 1..=3 {
            call.refused(sequence, status)?;
        }
        call.expect(
            "authentication_loop",
            &["asked for credentials 3 times", part],
        )?;
    }
    Ok(())
}

fn drops() -> Result<()> {
    let line = Line::new("\n[timers]\nack = \"2s\"\n")?;
    let short = line.call("short", true);
    short.say("INVITE", 1, "INVITE", true)?;
    short.say("200", 1, "INVITE", true)?;
    short.say("ACK", 1, "ACK", false)?;
    short.say("BYE", 2, "BYE", false)?;
    short.say("200", 2, "BYE", false)?;
    short.expect(
        "short_call",
        &["connects, then drops: the provider ended the call"],
    )?;
    for (name, is_inbound, part) in [
        ("no-ack", true, "external signalling address"),
        (
            "no-ack-outbound",
            false,
            "the provider's 200 did not reach the PBX",
        ),
    ] {
        let call = line.call(name, is_inbound);
        call.say("INVITE", 1, "INVITE", true)?;
        for _ in 0..2 {
            call.say("200", 1, "INVITE", true)?;
        }
        call.expect("no_ack", &["connects, then drops", "no ACK", part])?;
    }
    Ok(())
}

fn early_media() -> Result<()> {
    let line = Line::new("")?;
    let place = |place: Place, port: u16| SocketAddr::new(place.address(Family::V4), port);
    let here = place(Place::PbxCallee, PBX_RTP_FIRST);
    let there = place(Place::ProviderMedia(0), PROVIDER_RTP_FIRST);
    let provider = line.network.provider.enter(|| UdpSocket::bind(there))??;
    let pbx = line.network.pbx().enter(|| UdpSocket::bind(here))??;
    let call = line.call("early", true);
    call.say("INVITE", 1, "INVITE", true)?;
    for _ in 0..7 {
        provider.send_to(&rtp(), here)?;
    }
    thread::sleep(Duration::from_millis(300));
    call.say("200", 1, "INVITE", true)?;
    call.say("ACK", 1, "ACK", false)?;
    for _ in 0..10 {
        pbx.send_to(&rtp(), there)?;
    }
    let from = format!(
        "media came from {there} (no_pinhole, at least 7 packets, before the pinhole was open)"
    );
    call.expect("silent_provider", &[&from, "while its pinhole was open"])
}
