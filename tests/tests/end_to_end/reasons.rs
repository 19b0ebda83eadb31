//! Every reason that the policy knows, met by a packet on a wire: whoever adds one has to show it here, too.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sipfilter_common::reason::Reason;
use sipfilter_tests::{
    lab::{
        address::{Family, Place, SIP_PORT},
        daemon::{self, Daemon, Mode},
        link::Link,
        namespace::Namespace,
        topology::{Network, OUTER, Topology, UPLINK},
    },
    policy::frame::{Frame, ICMP, TCP, UDP},
};

use crate::Test;

/// How long the call's pinhole may be silent.
const IDLE: Duration = Duration::from_secs(4);
/// More than a source may send at once, and much faster than it may go on.
const FLOOD: usize = 20_000;
/// More than a stream of one packet per second may have at once.
const BURST: usize = 30;

const PBX_MEDIA: u16 = 10_000;
const EARLY_MEDIA: u16 = 10_004;
const FAR_MEDIA: u16 = 40_404;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (ip, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
        for mode in [Mode::Native, Mode::Generic] {
            tests.push(Test::new(
                format!("every_reason_is_met_on_the_wire::{ip}::{}", mode.name()),
                move || every_reason(family, mode),
            ));
        }
    }
    tests
}

fn every_reason(family: Family, mode: Mode) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let daemon = Daemon::start_with(&network, "reasons", &config(&network, mode)?)?;
    let scene = Scene::set(&network, family)?;
    scene.call()?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemon.pinholes()? == 0 {
        ensure!(Instant::now() < deadline, "no pinhole: {}", daemon.log());
        thread::sleep(Duration::from_millis(10));
    }
    // The kernel goes on alone: so the daemon cannot close the pinhole before the kernel has found it idle.
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    let pid = pid.context("a process has a number")?;
    kill_process(pid, Signal::STOP)?;
    let told = scene
        .early()
        .and_then(|()| scene.media())
        .and_then(|()| scene.strangers())
        .and_then(|()| scene.leaving())
        .and_then(|()| {
            thread::sleep(IDLE + Duration::from_millis(100));
            scene.send(&scene.provider, &scene.rtp(0))
        });
    kill_process(pid, Signal::CONT)?;
    told?;

    let counted: BTreeMap<String, u64> = daemon.settled_reasons()?;
    let missing: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| reason.name())
        .filter(|name| counted.get(*name).is_none_or(|&packets| packets == 0))
        .collect();
    ensure!(
        missing.is_empty(),
        "no packet came to {missing:?}: {counted:?}\n{}",
        daemon.log()
    );
    Ok(())
}

/// Strict scope, replies, one packet per second and stream, and little patience.
fn config(network: &Network, mode: Mode) -> Result<String> {
    let text = daemon::config(network, &[OUTER], mode);
    let with_terms = text.replace(
        "media = { ",
        "media = { replies = [\"40000-60000\"], packets_per_second = 1, ",
    );
    ensure!(
        text != with_terms,
        "the configuration is another one:\n{text}"
    );
    Ok(format!(
        "scope = \"strict\"\n{with_terms}\n[timers]\nmedia_idle = \"{}s\"\n",
        IDLE.as_secs()
    ))
}

/// Wires to write frames on, and sockets at their ends.
struct Scene {
    provider: Link,
    stranger: Link,
    pbx_sip: UdpSocket,
    provider_sip: UdpSocket,
    pbx_media: UdpSocket,
    pbx_other_media: UdpSocket,
    pbx_other: UdpSocket,
    /// The PBX's address at a stranger's.
    forger: UdpSocket,
    pbx: IpAddr,
    provider_address: IpAddr,
    stranger_address: IpAddr,
}

fn udp(namespace: &Namespace, ip: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = namespace
        .enter(|| UdpSocket::bind((ip, port)))?
        .with_context(|| format!("cannot bind {ip} port {port}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// Sends a frame without tags or options, with IPv4's header checksum (RFC 791 §3.1), for which a bridge may look.
fn send_frame(link: &Link, mut frame: Vec<u8>) -> Result<()> {
    let header = 14..34;
    if frame[12..14] == [0x08, 0x00] {
        let words = frame[header].chunks(2);
        let sum: u32 = words
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    link.send(&frame)
}

/// A message with SDP.
fn message(first: &str, to_tag: &str, contact: IpAddr, port: u16) -> String {
    let version = if contact.is_ipv4() { "IP4" } else { "IP6" };
    let sdp = format!(
        "v=0\r\no=- 1 1 IN {version} {contact}\r\ns=-\r\nc=IN {version} {contact}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    );
    let at = SocketAddr::new(contact, SIP_PORT);
    format!(
        "{first}\r\nVia: SIP/2.0/UDP provider.example;branch=z9hG4bKreasons\r\nMax-Forwards: 70\r\n\
         From: <sip:caller@provider.example>;tag=a\r\nTo: <sip:callee@pbx.example>{to_tag}\r\n\
         Call-ID: reasons@provider.example\r\nCSeq: 1 INVITE\r\nContact: <sip:user@{at}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

impl Scene {
    fn set(network: &Network, family: Family) -> Result<Self> {
        let pbx = Place::PbxCallee.address(family);
        let provider_address = Place::ProviderCaller.address(family);
        network.stranger.ip(&format!("address add {pbx} dev lo"))?;
        Ok(Self {
            provider: Link::port(&network.provider, UPLINK)?,
            stranger: Link::port(&network.stranger, UPLINK)?,
            pbx_sip: udp(network.pbx(), pbx, SIP_PORT)?,
            provider_sip: udp(&network.provider, provider_address, SIP_PORT)?,
            pbx_media: udp(network.pbx(), pbx, PBX_MEDIA)?,
            pbx_other_media: udp(network.pbx(), pbx, 10_002)?,
            pbx_other: udp(network.pbx(), pbx, 34_567)?,
            forger: udp(&network.stranger, pbx, SIP_PORT)?,
            pbx,
            provider_address,
            stranger_address: Place::Stranger.address(family),
        })
    }

    /// An offer and an answer, as far as a pinhole needs them.
    fn call(&self) -> Result<()> {
        let invite = message(
            "INVITE sip:callee@pbx.example SIP/2.0",
            "",
            self.provider_address,
            FAR_MEDIA,
        );
        self.provider_sip
            .send_to(invite.as_bytes(), self.pbx_sip.local_addr()?)?;
        self.pbx_sip
            .recv(&mut [0; 2_048])
            .context("the INVITE did not come through")?;
        self.answer(PBX_MEDIA)
    }

    fn answer(&self, port: u16) -> Result<()> {
        let answer = message("SIP/2.0 200 OK", ";tag=b", self.pbx, port);
        self.pbx_sip
            .send_to(answer.as_bytes(), self.provider_sip.local_addr()?)?;
        self.provider_sip
            .recv(&mut [0; 2_048])
            .context("the answer did not come through")?;
        Ok(())
    }

    /// An answer that the daemon does not read, and media right behind it.
    fn early(&self) -> Result<()> {
        self.answer(EARLY_MEDIA)?;
        let ports = (FAR_MEDIA, EARLY_MEDIA);
        let rtp = self.to_pbx(UDP, self.provider_address, ports, &[0x80; 20]);
        self.send(&self.provider, &rtp)
    }

    fn send(&self, link: &Link, frame: &Frame) -> Result<()> {
        send_frame(link, frame.build())
    }

    fn to_pbx(&self, protocol: u8, from: IpAddr, ports: (u16, u16), payload: &[u8]) -> Frame {
        Frame::between(
            protocol,
            SocketAddr::new(from, ports.0),
            SocketAddr::new(self.pbx, ports.1),
            payload,
        )
    }

    /// An RTP packet of the call, of a payload type.
    fn rtp(&self, payload_type: u8) -> Frame {
        let ports = (FAR_MEDIA, PBX_MEDIA);
        let packet = [0x80, payload_type, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
        self.to_pbx(UDP, self.provider_address, ports, &packet)
    }

    /// What comes to the call's pinhole.
    fn media(&self) -> Result<()> {
        let rtp = self.rtp(0);
        self.send(&self.provider, &rtp)?;
        self.send(&self.provider, &self.rtp(99))?;
        let ports = (FAR_MEDIA, PBX_MEDIA);
        let noise = self.to_pbx(UDP, self.provider_address, ports, &[0xff; 20]);
        self.send(&self.provider, &noise)?;
        let elsewhere = self.to_pbx(UDP, self.stranger_address, ports, &[0x80; 20]);
        self.send(&self.stranger, &elsewhere)?;
        for _ in 0..BURST {
            self.send(&self.provider, &rtp)?;
        }
        let far = SocketAddr::new(self.provider_address, FAR_MEDIA);
        self.pbx_media.send_to(&[0x80; 20], far)?;
        Ok(())
    }

    /// What comes from a stranger, and signalling.
    fn strangers(&self) -> Result<()> {
        let far = self.stranger_address;
        let udp = |ports, payload: &[u8]| self.to_pbx(UDP, far, ports, payload);
        let mut arp = vec![0xff; 6];
        arp.extend([0x02, 0, 0, 0, 0, 2, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp.resize(60, 0);
        self.stranger.send(&arp)?;
        // A bridge may drop what contradicts itself in the IP header; the length in a UDP header is none of its business.
        let mut short = udp((40_000, SIP_PORT), &[0; 40]).build();
        let udp_length = if far.is_ipv4() {
            14 + 20 + 4
        } else {
            14 + 40 + 4
        };
        short[udp_length..udp_length + 2].copy_from_slice(&7_u16.to_be_bytes());
        send_frame(&self.stranger, short)?;
        let gateway = SocketAddr::new(
            match far {
                IpAddr::V4(_) => IpAddr::from([203, 0, 113, 99]),
                IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 99]),
            },
            SIP_PORT,
        );
        let unprotected = Frame::between(UDP, SocketAddr::new(far, SIP_PORT), gateway, b"x");
        self.send(&self.stranger, &unprotected)?;
        let ping = self.to_pbx(ICMP, far, (0, 0), &[8, 0, 0, 0, 0, 0, 0, 0]);
        self.send(&self.stranger, &ping)?;
        let segment = self.to_pbx(TCP, far, (443, 45_678), b"");
        self.send(&self.stranger, &segment)?;
        self.send(&self.stranger, &udp((40_000, 33_000), b"x"))?;
        self.send(&self.stranger, &udp((SIP_PORT, SIP_PORT), b"REGISTER "))?;
        self.send(&self.stranger, &udp((40_000, 10_500), &[0x80; 20]))?;
        let later = udp((SIP_PORT, SIP_PORT), &[0; 64]).fragment(7, 9, false);
        self.send(&self.stranger, &later)?;
        let ports = (SIP_PORT, SIP_PORT);
        let later = self.to_pbx(UDP, self.provider_address, ports, &[0; 64]);
        self.send(&self.provider, &later.fragment(8, 9, false))?;
        let request = b"OPTIONS sip:pbx SIP/2.0\r\n\r\n";
        let flood = self.to_pbx(UDP, self.provider_address, ports, request);
        for _ in 0..FLOOD {
            self.send(&self.provider, &flood)?;
        }
        Ok(())
    }

    /// What leaves, and the answer to it.
    fn leaving(&self) -> Result<()> {
        let far = |port| SocketAddr::new(self.stranger_address, port);
        self.pbx_sip.send_to(b"OPTIONS ", far(SIP_PORT))?;
        self.pbx_other.send_to(b"x", far(53))?;
        self.pbx_other_media.send_to(&[0x80; 20], far(30_000))?;
        self.pbx_other_media.send_to(&[0x80; 20], far(45_000))?;
        self.forger
            .send_to(b"OPTIONS ", self.provider_sip.local_addr()?)?;
        // Each of them has to cross the router first.
        thread::sleep(Duration::from_millis(200));
        let ports = (45_000, 10_002);
        let answer = self.to_pbx(UDP, self.stranger_address, ports, &[0x80; 20]);
        self.send(&self.stranger, &answer)
    }
}
