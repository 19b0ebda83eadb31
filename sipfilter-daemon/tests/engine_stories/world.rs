//! The stage of all stories: a PBX, two providers, a clock, and a shadow of the kernel's table that every action must fit.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use sipfilter_daemon::engine::{
    CallNumber, CallView, Direction, EndReason, Engine, Event, Input, Instant, Output, Refusal,
    pinhole::{Pinhole, PinholeAction, PinholeResult, Stream},
    settings::{
        EarlyMedia, Limits, Media, MediaSource, Pbx, Provider, ProviderId, Settings,
        SignallingPorts, SignallingRates, Timers, Transport,
    },
};

pub const PBX: &str = "192.0.2.10";
pub const PBX6: &str = "2001:db8::10";
pub const PROVIDER: &str = "198.51.100.5";
pub const PROVIDER6: &str = "2001:db8:5::5";
pub const OTHER_PROVIDER: &str = "203.0.113.5";
/// Where the provider's media comes from unless a story says otherwise.
pub const MEDIA: &str = "198.51.100.77";

pub fn settings() -> Settings {
    Settings {
        pbx: Pbx {
            addresses: vec![PBX.parse().unwrap(), PBX6.parse().unwrap()],
            rtp_ports: 10_000..=19_999,
            udptl_ports: None,
            nat: BTreeMap::new(),
            signalling: SignallingPorts::default(),
        },
        providers: vec![
            provider("first", &["198.51.100.0/28", "2001:db8:5::/64"]),
            provider("second", &["203.0.113.0/28"]),
        ],
        limits: Limits::default(),
        timers: Timers::default(),
        filtering: Default::default(),
    }
}

fn provider(name: &str, signalling: &[&str]) -> Provider {
    Provider {
        name: name.to_owned(),
        signalling: signalling.iter().map(|net| net.parse().unwrap()).collect(),
        transports: vec![Transport::Udp],
        signalling_ports: SignallingPorts::default(),
        media: Media {
            source: MediaSource::Signalled,
            ports: 20_000..=40_000,
            prefixes: Vec::new(),
            replies: Vec::new(),
            packets_per_second: None,
        },
        early_media: EarlyMedia::OnAnswer,
        rates: SignallingRates::default(),
    }
}

/// A SIP message in the making.
#[derive(Debug, Clone)]
pub struct Msg {
    start: String,
    method: String,
    cseq: u32,
    call_id: String,
    from: String,
    to: Option<String>,
    branch: Option<String>,
    extra: String,
    sdp: Option<String>,
}

/// A request of the caller's, outside any dialog until `.to(…)` says otherwise.
pub fn request(method: &str, cseq: u32) -> Msg {
    Msg {
        start: format!("{method} sip:100@example.com SIP/2.0"),
        method: method.to_owned(),
        cseq,
        call_id: "call-1@example.com".to_owned(),
        from: "caller".to_owned(),
        to: None,
        branch: Some(format!("z9hG4bK-{method}-{cseq}")),
        extra: String::new(),
        sdp: None,
    }
}

/// A response to the caller's request, with the callee's usual tag.
pub fn response(status: u16, method: &str, cseq: u32) -> Msg {
    Msg {
        start: format!("SIP/2.0 {status} Whatever"),
        to: Some("callee".to_owned()),
        ..request(method, cseq)
    }
}

impl Msg {
    pub fn call(mut self, call_id: &str) -> Self {
        self.call_id = call_id.to_owned();
        self
    }

    /// With this tag in From; none at all if it is empty (RFC 2543).
    pub fn from(mut self, tag: &str) -> Self {
        self.from = tag.to_owned();
        self
    }

    pub fn to(mut self, tag: &str) -> Self {
        self.to = Some(tag.to_owned());
        self
    }

    /// A request of the callee's (or a response to one): the tags change places.
    pub fn by_callee(self) -> Self {
        self.from("callee").to("caller")
    }

    pub fn branch(mut self, branch: &str) -> Self {
        self.branch = Some(branch.to_owned());
        self
    }

    pub fn header(mut self, line: &str) -> Self {
        self.extra.push_str(line);
        self.extra.push_str("\r\n");
        self
    }

    pub fn sdp(mut self, sdp: impl Into<String>) -> Self {
        self.sdp = Some(sdp.into());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        if let Some(branch) = &self.branch {
            write!(text, "Via: SIP/2.0/UDP 192.0.2.99;branch={branch}\r\n").unwrap();
        }
        let parameter = |tag: &str| match tag {
            "" => String::new(),
            tag => format!(";tag={tag}"),
        };
        let (from, to) = (
            parameter(&self.from),
            parameter(self.to.as_deref().unwrap_or_default()),
        );
        write!(
            text,
            "From: <sip:1@example.com>{from}\r\nTo: <sip:2@example.com>{to}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n{}",
            self.call_id, self.cseq, self.method, self.extra
        )
        .unwrap();
        if let Some(sdp) = &self.sdp {
            write!(
                text,
                "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
                sdp.len()
            )
            .unwrap();
        } else {
            text.push_str("Content-Length: 0\r\n\r\n");
        }
        text.into_bytes()
    }
}

/// SDP with one audio stream.
pub fn sdp(address: &str, port: u16) -> String {
    sdp_of(address, &[&format!("m=audio {port} RTP/AVP 8 101")])
}

/// SDP with a session-level `c=` line and these further lines.
pub fn sdp_of(address: &str, lines: &[&str]) -> String {
    let family = if address.contains(':') { "IP6" } else { "IP4" };
    let mut text = format!(
        "v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n"
    );
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text
}

pub struct World {
    pub engine: Engine,
    now: Duration,
    kernel: BTreeMap<SocketAddr, Pinhole>,
    /// What the shell answers to the next `Open` or `Update`.
    pub answer: PinholeResult,
    /// Of the next `Open`s, which are refused.
    pub refused: VecDeque<bool>,
    has_refused: bool,
    pub events: Vec<Event>,
    pub actions: usize,
}

impl World {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        Self {
            engine: Engine::new(settings, [1, 2]),
            now: Duration::from_secs(1_000),
            kernel: BTreeMap::new(),
            answer: PinholeResult::Done,
            refused: VecDeque::new(),
            has_refused: false,
            events: Vec::new(),
            actions: 0,
        }
    }

    /// With this change of the first provider.
    pub fn with_provider(change: impl FnOnce(&mut Provider)) -> Self {
        let mut settings = settings();
        change(&mut settings.providers[0]);
        Self::with(settings)
    }

    pub fn with_on_offer() -> Self {
        Self::with_provider(|provider| provider.early_media = EarlyMedia::OnOffer)
    }

    /// The daemon starts anew and is told what the kernel still has, under call numbers that mean nothing any more.
    pub fn restart(&mut self) {
        self.engine = Engine::resuming(settings(), [3, 4], [1, 2]);
        for pinhole in std::mem::take(&mut self.kernel).into_values() {
            assert!(self.engine.adopt(pinhole));
        }
        self.kernel = self
            .engine
            .pinholes()
            .map(|pinhole| (pinhole.local, pinhole.clone()))
            .collect();
        self.events.clear();
    }

    pub fn reconfigure(&mut self, settings: Settings) {
        self.engine.reconfigure(Instant(self.now), settings);
        self.drain();
    }

    pub fn other_provider_sends(&mut self, message: Msg) {
        self.datagram(Direction::Ingress, OTHER_PROVIDER, PBX, &message.bytes());
    }

    pub fn provider_sends(&mut self, message: Msg) {
        self.datagram(Direction::Ingress, PROVIDER, PBX, &message.bytes());
    }

    pub fn pbx_sends(&mut self, message: Msg) {
        self.datagram(Direction::Egress, PBX, PROVIDER, &message.bytes());
    }

    pub fn sends(&mut self, direction: Direction, message: Msg) {
        match direction {
            Direction::Ingress => self.provider_sends(message),
            Direction::Egress => self.pbx_sends(message),
        }
    }

    pub fn datagram(&mut self, direction: Direction, from: &str, to: &str, payload: &[u8]) {
        let packet = udp(from.parse().unwrap(), to.parse().unwrap(), payload);
        self.packet(direction, &packet);
    }

    pub fn packet(&mut self, direction: Direction, bytes: &[u8]) {
        self.input(Input::Packet {
            direction,
            bytes,
            truncated: false,
        });
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.engine.handle(Instant(self.now), input);
        self.drain();
    }

    /// Lets time pass, with the engine's deadlines kept on the way.
    pub fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(due) = self.engine.poll_timeout().filter(|due| due.0 <= until) {
            self.now = self.now.max(due.0);
            self.engine.handle_timeout(Instant(self.now));
            self.drain();
        }
        self.now = until;
    }

    pub fn wait_secs(&mut self, seconds: u64) {
        self.wait(Duration::from_secs(seconds));
    }

    /// The kernel reports a silent pinhole.
    pub fn silence(&mut self, port: u16) {
        let local = SocketAddr::new(PBX.parse().unwrap(), port);
        self.input(Input::PinholeIdle { local });
    }

    pub fn locals(&self) -> Vec<SocketAddr> {
        self.kernel.keys().copied().collect()
    }

    /// Exactly these pinholes stand. Each as `PORT STREAM SOURCE…`, with the local address in front if it is not the PBX's first.
    #[track_caller]
    pub fn expect(&self, pinholes: &[&str]) {
        let standing: Vec<String> = self.kernel.values().map(show).collect();
        assert_eq!(standing, pinholes);
    }

    #[track_caller]
    pub fn expect_closed(&self) {
        self.expect(&[]);
    }

    /// The pinhole on this port of the PBX's.
    #[track_caller]
    pub fn pinhole(&self, port: u16) -> &Pinhole {
        &self.kernel[&SocketAddr::new(PBX.parse().unwrap(), port)]
    }

    #[track_caller]
    pub fn call(&self, index: usize) -> CallView<'_> {
        self.engine.calls().nth(index).expect("no such call")
    }

    /// The only call's state by name.
    #[track_caller]
    pub fn state(&self) -> &'static str {
        assert_eq!(self.engine.calls().count(), 1);
        self.call(0).state.name()
    }

    pub fn ends(&self) -> Vec<EndReason> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::CallEnded { reason, .. } => Some(*reason),
                _ => None,
            })
            .collect()
    }

    pub fn refusals(&self) -> Vec<Refusal> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Refused { refusal, .. } => Some(*refusal),
                _ => None,
            })
            .collect()
    }

    /// Provider calls the PBX: INVITE, 200, ACK.
    pub fn inbound_call(&mut self) {
        self.provider_sends(request("INVITE", 1).sdp(sdp(MEDIA, 20_000)));
        self.pbx_sends(response(200, "INVITE", 1).sdp(sdp(PBX, 10_000)));
        self.provider_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    }

    /// The PBX calls through the provider: INVITE, 200, ACK.
    pub fn outbound_call(&mut self) {
        self.pbx_sends(request("INVITE", 1).sdp(sdp(PBX, 10_000)));
        self.provider_sends(response(200, "INVITE", 1).sdp(sdp(MEDIA, 20_000)));
        self.pbx_sends(request("ACK", 1).to("callee").branch("z9hG4bK-ack"));
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Pinhole(action) => self.carry_out(action),
            }
        }
        if !self.has_refused {
            assert!(self.engine.pinholes().eq(self.kernel.values()));
        } else if self.answer == PinholeResult::Done {
            // A refused update is made up for with the call's next message; until then the contents may differ.
            let standing = self.engine.pinholes().map(|pinhole| &pinhole.local);
            assert!(standing.eq(self.kernel.keys()));
        }
    }

    fn carry_out(&mut self, action: PinholeAction) {
        self.actions += 1;
        let mut result = self.answer;
        if matches!(action, PinholeAction::Open(_)) && self.refused.pop_front() == Some(true) {
            result = PinholeResult::Full;
        }
        let local = match action {
            PinholeAction::Open(pinhole) => {
                let local = pinhole.local;
                if result == PinholeResult::Done {
                    assert!(!self.kernel.contains_key(&local), "{local} opened twice");
                    self.kernel.insert(local, pinhole);
                }
                local
            }
            PinholeAction::Update(pinhole) => {
                let local = pinhole.local;
                if result == PinholeResult::Done {
                    self.kernel.insert(local, pinhole);
                }
                local
            }
            PinholeAction::Close { local, .. } => {
                // An `Open` that is refused may have its `Close` behind it already.
                let was_open = self.kernel.remove(&local).is_some();
                assert!(was_open || self.has_refused, "{local} closed twice");
                return;
            }
        };
        self.has_refused |= result != PinholeResult::Done;
        self.engine
            .handle(Instant(self.now), Input::PinholeResult { local, result });
    }
}

fn show(pinhole: &Pinhole) -> String {
    let mut text = String::new();
    if pinhole.local.ip() == PBX.parse::<IpAddr>().unwrap() {
        write!(text, "{}", pinhole.local.port()).unwrap();
    } else {
        write!(text, "{}", pinhole.local).unwrap();
    }
    let stream = match pinhole.stream {
        Stream::Rtp => "rtp",
        Stream::Rtcp => "rtcp",
        Stream::Udptl => "udptl",
    };
    write!(text, " {stream}").unwrap();
    for source in &pinhole.sources {
        let whole = if source.net.addr().is_ipv4() { 32 } else { 128 };
        if source.net.prefix_len() == whole {
            write!(text, " {}", source.net.addr()).unwrap();
        } else {
            write!(text, " {}", source.net).unwrap();
        }
        if source.ports != (20_000, 40_000) {
            write!(text, ":{}-{}", source.ports.0, source.ports.1).unwrap();
        }
    }
    if pinhole.idle == Timers::default().hold_idle {
        text.push_str(" held");
    }
    text
}

/// A UDP packet from port 5060 to port 5060. Nobody here checks checksums.
pub fn udp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    ip(source, destination, 17, &udp_datagram(payload))
}

fn udp_datagram(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap();
    let mut datagram = Vec::new();
    for field in [5060, 5060, length, 0] {
        datagram.extend(u16::to_be_bytes(field));
    }
    datagram.extend(payload);
    datagram
}

/// An IP packet around a transport header and its payload.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let length = u16::try_from(transport.len()).unwrap();
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend((length + 20).to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => panic!("two address families in one packet"),
    }
    packet.extend(transport);
    packet
}

/// The numbers of the calls that own standing pinholes.
pub fn owners(world: &World) -> BTreeSet<CallNumber> {
    world.kernel.values().map(|pinhole| pinhole.call).collect()
}

pub const FIRST: ProviderId = ProviderId(0);
