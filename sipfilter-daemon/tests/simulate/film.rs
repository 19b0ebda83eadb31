//! Captures in the making: packets with their times, written as any kind of file.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use pcap_file::{
    DataLink, Endianness, TsResolution,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::EnhancedPacketBlock,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};
use sipfilter_daemon::{
    engine::settings::Settings,
    simulate::{
        self, CaptureError, Report,
        report::{CallReport, FlowReport},
        setup::{self, Overrides, Providers},
    },
};

pub const PBX: &str = "203.0.113.10";
pub const SIGNALLING: &str = "198.51.100.10";
pub const MEDIA: &str = "198.51.100.20";
pub const STRANGER: &str = "192.0.2.66";
pub const MILLISECOND: Duration = Duration::from_millis(1);

/// The day on which all of these captures were made.
const EPOCH: Duration = Duration::from_secs(1_763_700_000);

/// Settings without a configuration: this PBX, and these prefixes or everybody.
pub fn settings(pbx: &[&str], providers: &[&str]) -> Settings {
    let overrides = Overrides {
        pbx: pbx.iter().map(|text| text.parse().unwrap()).collect(),
        rtp_ports: Some(10_000..=20_000),
        providers: if providers.is_empty() {
            Providers::Any
        } else {
            Providers::Prefixes(providers.iter().map(|text| prefix(text)).collect())
        },
    };
    setup::settings(None, &overrides).expect("enough")
}

fn prefix(text: &str) -> IpNet {
    text.parse()
        .unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap()))
}

pub fn run(file: &[u8], settings: &Settings) -> Result<Report, CaptureError> {
    simulate::run(file, settings, [1, 2])
}

/// Puts a link-layer header in front of an IP packet.
pub type Link = fn(&[u8]) -> Vec<u8>;

/// Packets from their IP header on, with their times.
#[derive(Debug, Clone, Default)]
pub struct Film {
    now: Duration,
    pub packets: Vec<(Duration, Vec<u8>)>,
}

impl Film {
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn raw(&mut self, packet: Vec<u8>) {
        self.packets.push((EPOCH + self.now, packet));
        self.now += MILLISECOND;
    }

    pub fn udp(&mut self, source: &str, destination: &str, payload: &[u8]) {
        self.raw(udp(source, destination, payload));
    }

    /// RTP of 20 ms a packet.
    pub fn rtp(&mut self, source: &str, destination: &str, packets: usize) {
        for sequence in 0..packets {
            let mut payload = vec![0x80, 0];
            payload.extend((sequence as u16).to_be_bytes());
            payload.extend([7; 168]);
            self.udp(source, destination, &payload);
            self.now += 19 * MILLISECOND;
        }
    }

    /// Both ways at once.
    pub fn talk(&mut self, theirs: &str, ours: &str, packets: usize) {
        for _ in 0..packets {
            self.rtp(theirs, ours, 1);
            self.rtp(ours, theirs, 1);
        }
    }

    /// A whole file in the usual format: Ethernet, microseconds.
    pub fn pcap(&self) -> Vec<u8> {
        self.pcap_of(
            DataLink::ETHERNET,
            TsResolution::MicroSecond,
            Endianness::Little,
            ethernet,
        )
    }

    pub fn pcap_of(
        &self,
        datalink: DataLink,
        ts_resolution: TsResolution,
        endianness: Endianness,
        link: Link,
    ) -> Vec<u8> {
        let header = PcapHeader {
            datalink,
            ts_resolution,
            endianness,
            ..PcapHeader::default()
        };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for (time, packet) in &self.packets {
            let data = link(packet);
            writer
                .write_packet(&PcapPacket::new(*time, data.len() as u32, &data))
                .unwrap();
        }
        writer.into_writer()
    }

    /// Packets take turns on the interfaces. `resolution` is a power of ten.
    pub fn pcapng(
        &self,
        interfaces: &[(DataLink, Link)],
        resolution: Option<u8>,
        endianness: Endianness,
    ) -> Vec<u8> {
        let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
        for (datalink, _) in interfaces {
            writer
                .write_pcapng_block(InterfaceDescriptionBlock {
                    linktype: *datalink,
                    snaplen: 0,
                    options: resolution
                        .map(InterfaceDescriptionOption::IfTsResol)
                        .into_iter()
                        .collect(),
                })
                .unwrap();
        }
        let unit = 10_u128.pow(9 - u32::from(resolution.unwrap_or(6)));
        for (index, (time, packet)) in self.packets.iter().enumerate() {
            let id = index % interfaces.len();
            let data = interfaces[id].1(packet);
            writer
                .write_pcapng_block(EnhancedPacketBlock {
                    interface_id: id as u32,
                    // The library writes its nanoseconds as they are, whatever the interface's unit.
                    timestamp: Duration::from_nanos((time.as_nanos() / unit) as u64),
                    original_len: data.len() as u32,
                    data: Cow::Owned(data),
                    options: Vec::new(),
                })
                .unwrap();
        }
        writer.into_inner()
    }
}

pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ethertype(packet), packet].concat()
}

pub fn ethertype(packet: &[u8]) -> [u8; 2] {
    match packet[0] >> 4 {
        4 => [0x08, 0x00],
        _ => [0x86, 0xdd],
    }
}

pub fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (SocketAddr, SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let mut segment = Vec::new();
    segment.extend(source.port().to_be_bytes());
    segment.extend(destination.port().to_be_bytes());
    segment.extend((8 + payload.len() as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0];
            packet.extend((20 + segment.len() as u16).to_be_bytes());
            packet.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(segment);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((segment.len() as u16).to_be_bytes());
            packet.extend([17, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(segment);
            packet
        }
        _ => panic!("one family"),
    }
}

/// Who takes part in a call, and where their media is.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    pub call_id: &'a str,
    pub provider: &'a str,
    pub provider_media: (&'a str, u16),
    pub pbx: &'a str,
    pub pbx_media: (&'a str, u16),
}

pub const PARTIES: Parties<'_> = Parties {
    call_id: "one@example.com",
    provider: SIGNALLING,
    provider_media: (MEDIA, 40_000),
    pbx: PBX,
    pbx_media: (PBX, 10_000),
};

impl Parties<'_> {
    /// The provider calls, up to the ACK.
    pub fn set_up(&self, film: &mut Film) {
        self.invite(film);
        film.wait(500 * MILLISECOND);
        self.answer(film);
        self.provider_sends(
            film,
            &self.message("ACK sip:pbx@example.com SIP/2.0", 1, "ACK", true, None),
        );
    }

    pub fn invite(&self, film: &mut Film) {
        let offer = sdp(self.provider_media);
        self.provider_sends(
            film,
            &self.message(
                "INVITE sip:pbx@example.com SIP/2.0",
                1,
                "INVITE",
                false,
                Some(&offer),
            ),
        );
        self.pbx_sends(
            film,
            &self.message("SIP/2.0 180 Ringing", 1, "INVITE", true, None),
        );
    }

    pub fn answer(&self, film: &mut Film) {
        let answer = sdp(self.pbx_media);
        self.pbx_sends(
            film,
            &self.message("SIP/2.0 200 OK", 1, "INVITE", true, Some(&answer)),
        );
    }

    /// The provider hangs up.
    pub fn hang_up(&self, film: &mut Film) {
        self.provider_sends(
            film,
            &self.message("BYE sip:pbx@example.com SIP/2.0", 2, "BYE", true, None),
        );
        self.pbx_sends(film, &self.message("SIP/2.0 200 OK", 2, "BYE", true, None));
    }

    pub fn provider_sends(&self, film: &mut Film, message: &str) {
        let (from, to) = (at(self.provider, 5060), at(self.pbx, 5060));
        film.udp(&from, &to, message.as_bytes());
    }

    pub fn pbx_sends(&self, film: &mut Film, message: &str) {
        let (from, to) = (at(self.pbx, 5060), at(self.provider, 5060));
        film.udp(&from, &to, message.as_bytes());
    }

    pub fn theirs(&self) -> String {
        at(self.provider_media.0, self.provider_media.1)
    }

    pub fn ours(&self) -> String {
        at(self.pbx_media.0, self.pbx_media.1)
    }

    fn message(
        &self,
        start: &str,
        cseq: u32,
        method: &str,
        tagged: bool,
        body: Option<&str>,
    ) -> String {
        let tag = if tagged { ";tag=callee" } else { "" };
        let head = format!(
            "{start}\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK-{cseq}-{}\r\nFrom: <sip:a@example.com>;tag=caller\r\nTo: <sip:b@example.com>{tag}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n",
            self.provider,
            if method == "ACK" { "ack" } else { method },
            self.call_id
        );
        match body {
            Some(body) => format!(
                "{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            None => format!("{head}Content-Length: 0\r\n\r\n"),
        }
    }
}

pub fn at(address: &str, port: u16) -> String {
    SocketAddr::new(address.parse().unwrap(), port).to_string()
}

fn sdp((address, port): (&str, u16)) -> String {
    let family = if address.contains(':') { "IP6" } else { "IP4" };
    format!(
        "v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n"
    )
}

/// A whole call: set up, 50 packets each way, hung up.
pub fn whole_call() -> Film {
    let mut film = Film::default();
    PARTIES.set_up(&mut film);
    film.talk(&PARTIES.theirs(), &PARTIES.ours(), 50);
    PARTIES.hang_up(&mut film);
    film
}

/// Everything that [`whole_call`] holds has passed.
#[track_caller]
pub fn assert_whole_call(report: &Report) {
    assert_eq!(report.capture.incomplete, None);
    assert_eq!(
        (report.packets, report.ingress, report.egress),
        (106, 53, 53)
    );
    assert_eq!(
        (report.passed, report.dropped),
        (106, 0),
        "{:?}",
        report.reasons
    );
    let [call] = &report.calls[..] else {
        panic!("one call, not {:?}", report.calls);
    };
    assert_eq!((call.state, call.end_reason), ("ended", Some("bye_remote")));
    assert_eq!((call.media.passed, call.media.sent), (50, 50));
}

#[track_caller]
pub fn flow<'a>(report: &'a Report, source: &str, destination: &str) -> &'a FlowReport {
    let mut found = report
        .flows
        .iter()
        .filter(|flow| flow.src.to_string() == source && flow.dst.to_string() == destination);
    let flow = found.next().unwrap_or_else(|| {
        panic!(
            "no flow from {source} to {destination}: {:#?}",
            report.flows
        )
    });
    assert!(
        found.next().is_none(),
        "one flow from {source} to {destination}"
    );
    flow
}

#[track_caller]
pub fn call<'a>(report: &'a Report, call_id: &str) -> &'a CallReport {
    report
        .calls
        .iter()
        .find(|call| call.call_id == call_id)
        .expect("the call is there")
}
