//! Any sequence of packets, commands, results and waits through the whole engine, with caps low enough to be reached.
//!
//! The engine checks its own invariants after every input; here are added: actions fit the kernel's table that they make, one side
//! alone opens nothing, and once everybody has been silent for long enough nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use sipfilter_daemon::engine::{
    CallNumber, Direction, Engine, Input, Instant, Output,
    pinhole::{Pinhole, PinholeAction, PinholeResult},
    settings::{
        EarlyMedia, Limits, Media, MediaSource, Pbx, Provider, Settings, SignallingPorts,
        SignallingRates, Timers, Transport,
    },
};

use crate::packet::udp;

const PBX: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const PROVIDERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 5)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)),
];
const MAX_STEPS: usize = 200;

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    /// SIP that is well formed, but says anything.
    Sip(Sip),
    /// A datagram from or to a provider with any payload.
    Datagram(bool, &'a [u8]),
    /// A packet of any bytes.
    Packet(bool, bool, &'a [u8]),
    Wait(u16),
    Silent(u8),
    Result(u8, u8),
    Answer(u8),
    Lost(u8),
    End(u8),
}

#[derive(Debug, Arbitrary)]
struct Sip {
    ingress: bool,
    provider: bool,
    method: u8,
    status: u8,
    call: bool,
    tags: u8,
    cseq: u8,
    branch: u8,
    body: Option<Body>,
}

#[derive(Debug, Arbitrary)]
struct Body {
    address: u8,
    media: [u8; 2],
    attribute: u8,
}

/// Reads the bytes as steps and takes them.
pub fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok((on_offer, prefix)) = input.arbitrary::<(bool, u8)>() else {
        return;
    };
    let mut world = World::new(settings(on_offer, prefix));
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else {
            break;
        };
        world.take(step);
        if !on_offer && world.spoken != [true; 2] {
            assert!(world.kernel.is_empty(), "one side alone opened a pinhole");
        }
    }
    world.fall_silent();
}

struct World {
    engine: Engine,
    now: Duration,
    kernel: BTreeMap<SocketAddr, Pinhole>,
    answer: PinholeResult,
    /// Opens that the kernel refused in this step.
    refused: BTreeSet<SocketAddr>,
    /// Which side has sent anything: outside, PBX.
    spoken: [bool; 2],
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            engine: Engine::new(settings, [1, 2]),
            now: Duration::from_secs(1_000),
            kernel: BTreeMap::new(),
            answer: PinholeResult::Done,
            refused: BTreeSet::new(),
            spoken: [false; 2],
        }
    }

    fn take(&mut self, step: Step<'_>) {
        match step {
            Step::Sip(sip) => {
                let provider = PROVIDERS[usize::from(sip.provider)];
                self.datagram(sip.ingress, provider, sip.text().as_bytes());
            }
            Step::Datagram(ingress, payload) => self.datagram(ingress, PROVIDERS[0], payload),
            Step::Packet(ingress, truncated, bytes) => self.packet(ingress, truncated, bytes),
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(u64::from(seconds % 5_000));
                self.engine.handle_timeout(Instant(self.now));
                self.drain();
            }
            Step::Silent(port) => {
                let local = SocketAddr::new(PBX, 10_000 + u16::from(port % 16));
                self.input(Input::PinholeIdle { local });
            }
            Step::Result(port, result) => {
                let local = SocketAddr::new(PBX, 10_000 + u16::from(port % 16));
                // What never was confirmed or asked for is no answer to anything; only a late `Done` may repeat.
                if result % 2 == 0 && self.kernel.contains_key(&local) {
                    let result = PinholeResult::Done;
                    self.input(Input::PinholeResult { local, result });
                }
            }
            Step::Answer(answer) => {
                self.answer = [
                    PinholeResult::Done,
                    PinholeResult::Full,
                    PinholeResult::Failed,
                ][usize::from(answer % 3)];
            }
            Step::Lost(packets) => self.input(Input::CaptureLost {
                packets: u64::from(packets),
            }),
            Step::End(call) => self.input(Input::EndCall(CallNumber(u64::from(call % 16)))),
        }
    }

    fn datagram(&mut self, ingress: bool, provider: IpAddr, payload: &[u8]) {
        let (provider, pbx) = (SocketAddr::new(provider, 5060), SocketAddr::new(PBX, 5060));
        let packet = if ingress {
            udp(provider, pbx, payload)
        } else {
            udp(pbx, provider, payload)
        };
        self.packet(ingress, false, &packet);
    }

    fn packet(&mut self, ingress: bool, truncated: bool, bytes: &[u8]) {
        let direction = if ingress {
            Direction::Ingress
        } else {
            Direction::Egress
        };
        self.spoken[usize::from(!ingress)] = true;
        self.input(Input::Packet {
            direction,
            bytes,
            truncated,
        });
    }

    fn input(&mut self, input: Input<'_>) {
        self.engine.handle(Instant(self.now), input);
        self.drain();
    }

    fn drain(&mut self) {
        self.refused.clear();
        while let Some(output) = self.engine.poll_output() {
            let Output::Pinhole(action) = output else {
                continue;
            };
            let (local, result) = match action {
                PinholeAction::Close { local, .. } => {
                    // What was opened and closed in one step may have been refused in between.
                    let was_refused = self.refused.contains(&local);
                    let was_open = self.kernel.remove(&local).is_some();
                    assert!(was_open || was_refused, "{local} closed twice");
                    continue;
                }
                PinholeAction::Open(pinhole) => {
                    let local = pinhole.local;
                    if self.answer == PinholeResult::Done {
                        let before = self.kernel.insert(local, pinhole);
                        assert!(before.is_none(), "{local} opened twice");
                    } else {
                        self.refused.insert(local);
                    }
                    (local, self.answer)
                }
                PinholeAction::Update(pinhole) => {
                    let local = pinhole.local;
                    if self.answer == PinholeResult::Done {
                        self.kernel.insert(local, pinhole);
                    }
                    (local, self.answer)
                }
            };
            self.engine
                .handle(Instant(self.now), Input::PinholeResult { local, result });
        }
        for pinhole in self.kernel.values() {
            assert_eq!(pinhole.local.ip(), PBX);
            assert!((10_000..20_000).contains(&pinhole.local.port()));
        }
    }

    /// The kernel reports every pinhole again after each idle limit, until calls and pinholes are gone.
    fn fall_silent(&mut self) {
        self.answer = PinholeResult::Done;
        for _ in 0..9 {
            self.now += Duration::from_secs(3_700);
            self.engine.handle_timeout(Instant(self.now));
            self.drain();
            let locals: Vec<SocketAddr> = self.kernel.keys().copied().collect();
            for local in locals {
                self.input(Input::PinholeIdle { local });
            }
        }
        self.now += Duration::from_secs(3_700);
        self.engine.handle_timeout(Instant(self.now));
        self.drain();
        assert!(self.kernel.is_empty(), "pinholes outlive their calls");
        assert_eq!(self.engine.calls().count(), 0);
        assert_eq!(self.engine.poll_timeout(), None);
    }
}

impl Sip {
    fn text(&self) -> String {
        const METHODS: [&str; 8] = [
            "INVITE", "INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "REFER",
        ];
        const STATUS: [u16; 12] = [100, 180, 183, 200, 200, 202, 302, 401, 481, 487, 488, 491];
        let method = METHODS[usize::from(self.method) % METHODS.len()];
        let cseq = u32::from(self.cseq % 6);
        let mut text = match usize::from(self.status).checked_sub(128) {
            None => format!("{method} sip:100@example.com SIP/2.0\r\n"),
            Some(index) => format!("SIP/2.0 {} Any\r\n", STATUS[index % STATUS.len()]),
        };
        let branch = match self.branch % 4 {
            3 => "z9hG4bK-other".to_owned(),
            _ if method == "CANCEL" => format!("z9hG4bK-INVITE-{cseq}"),
            _ => format!("z9hG4bK-{method}-{cseq}"),
        };
        let (from, to) = match self.tags % 5 {
            0 => ("caller", ""),
            1 => ("caller", ";tag=callee"),
            2 => ("callee", ";tag=caller"),
            3 => ("caller", ";tag=fork"),
            _ => ("fork", ";tag=caller"),
        };
        let call = if self.call { "one" } else { "two" };
        let _ = write!(
            text,
            "Via: SIP/2.0/UDP 192.0.2.99;branch={branch}\r\nFrom: <sip:1@example.com>;tag={from}\r\n\
             To: <sip:2@example.com>{to}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n"
        );
        match &self.body {
            None => text.push_str("\r\n"),
            Some(body) => {
                let sdp = body.text(self.ingress);
                let length = sdp.len();
                let _ = write!(
                    text,
                    "Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}"
                );
            }
        }
        text
    }
}

impl Body {
    fn text(&self, ingress: bool) -> String {
        let (addresses, base) = if ingress {
            (
                ["198.51.100.77", "198.51.100.78", "0.0.0.0", "media.example"],
                20_000,
            )
        } else {
            (
                ["192.0.2.10", "192.0.2.10", "0.0.0.0", "192.0.2.99"],
                10_000,
            )
        };
        let address = addresses[usize::from(self.address % 4)];
        let mut text =
            format!("v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n");
        for media in self.media {
            let port = base + 2 * u16::from(media % 8);
            let _ = match media >> 5 {
                0..=3 => write!(text, "m=audio {port} RTP/AVP 8 101\r\n"),
                4 => write!(text, "m=image {port} udptl t38\r\n"),
                5 => write!(text, "m=audio 0 RTP/AVP 8\r\n"),
                6 => write!(text, "m=video {port}/2 RTP/SAVPF 96\r\n"),
                _ => Ok(()),
            };
            text.push_str(match self.attribute % 8 {
                0 => "a=sendonly\r\n",
                1 => "a=inactive\r\n",
                2 => "a=rtcp-mux\r\n",
                3 => "a=rtcp:10015\r\n",
                4 => "a=candidate:1 1 UDP 1 198.51.100.79 20010 typ host\r\n",
                _ => "",
            });
        }
        text
    }
}

fn settings(on_offer: bool, prefix: u8) -> Settings {
    let provider = |name: &str, signalling: &str| Provider {
        name: name.to_owned(),
        signalling: vec![signalling.parse().expect("a prefix")],
        transports: vec![Transport::Udp],
        signalling_ports: SignallingPorts::default(),
        media: Media {
            source: [
                MediaSource::Signalled,
                MediaSource::Exact,
                MediaSource::Prefix,
                MediaSource::Latch,
            ][usize::from(prefix % 4)],
            ports: 20_000..=40_000,
            packets_per_second: None,
            prefixes: if prefix & 0x80 == 0 {
                Vec::new()
            } else {
                vec!["198.51.100.64/27".parse().expect("a prefix")]
            },
            replies: Vec::new(),
        },
        early_media: if on_offer {
            EarlyMedia::OnOffer
        } else {
            EarlyMedia::OnAnswer
        },
        rates: SignallingRates::default(),
    };
    Settings {
        pbx: Pbx {
            addresses: vec![PBX],
            rtp_ports: 10_000..=19_999,
            udptl_ports: None,
            nat: BTreeMap::new(),
            signalling: SignallingPorts::default(),
        },
        providers: vec![
            provider("first", "198.51.100.0/28"),
            provider("second", "203.0.113.0/28"),
        ],
        limits: Limits {
            calls: 3,
            calls_per_provider: 2,
            dialogs_per_call: 3,
            media_per_session: 2,
            pinholes: 8,
        },
        timers: Timers::default(),
        filtering: Default::default(),
    }
}
