//! How long the engine takes and how much memory a call costs: `cargo xtask bench engine`.
//!
//! A plain loop with medians: the figures are read by people and by one JSON document, and a statistics crate would add minutes of
//! building. Every allocation is counted, so that a change that allocates more shows even on a noisy machine.
//!
//! - `invite_scan_us`: the scan of an INVITE with SDP: framing, all refusals, method, Call-ID, CSeq, where the SDP is.
//! - `other_scan_us`: the scan that decides "no media, no dialog change", and the decision, for each of the messages of [`others`]; the
//!   median over these messages. `other_scan_slowest_us` is the slowest of them.
//! - `invite_read_us`: the scan and what a call reads besides it (tags, branch, session timer, identifiers); no SDP.
//! - `invite_extract_us`: that and the SDP, with its types.
//! - `call_us`: a whole call through the engine, IP packets in, pinholes out, confirmed by the kernel.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant as Clock},
};

use sipfilter_daemon::engine::{
    Direction, Engine, Input, Instant, Output, Verb,
    pinhole::{PinholeAction, PinholeResult},
    sdp,
    settings::{
        EarlyMedia, Limits, Media, MediaSource, Pbx, Provider, Settings, SignallingPorts,
        SignallingRates, Timers, Transport,
    },
    sip,
};

/// Counts what the system's allocator does.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size as u64, Ordering::Relaxed);
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PBX: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PROVIDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 5);
const MEDIA: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

/// Calls that stand at once when their memory is counted.
const STANDING: u32 = 10_000;
/// Samples of which the median is taken, and repetitions in each. Samples are short, so that on a busy machine most of them are over
/// before another process gets the processor.
const SAMPLES: u32 = 401;
const REPEAT: u32 = 200;
/// Calls that follow one another in the bench of whole calls, and how many of them make a sample.
const CALLS: u32 = 256;
const CALLS_IN_SAMPLE: u32 = 16;

/// One measurement: the median of its samples.
struct Measured {
    micros: f64,
    allocations: f64,
}

/// Runs with the numbers from 0 to `cycle` again and again, `repeat` of them in each sample.
fn measure(repeat: u32, cycle: u32, mut run: impl FnMut(u32)) -> Measured {
    let mut indices = (0..cycle).cycle();
    let mut sample = || {
        let start = Clock::now();
        for index in indices.by_ref().take(repeat as usize) {
            run(index);
        }
        start.elapsed()
    };
    // For the caches and the branch predictors; whole cycles, so that each is measured from its beginning.
    for _ in 0..cycle.div_ceil(repeat) * 4 {
        sample();
    }
    let mut samples = Vec::with_capacity(SAMPLES as usize);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..SAMPLES {
        samples.push(sample());
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    samples.sort_unstable();
    let rounds = f64::from(repeat) * f64::from(SAMPLES);
    Measured {
        micros: samples[samples.len() / 2].as_secs_f64() * 1e6 / f64::from(repeat),
        allocations: allocations as f64 / rounds,
    }
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let invite = message(
        "INVITE sip:100@example.com SIP/2.0",
        1,
        "INVITE",
        None,
        Some(MEDIA),
        1,
    );

    let scan = measure(REPEAT, REPEAT, |_| {
        black_box(sip::scan_datagram(black_box(&invite))).expect("SIP");
    });
    let read = measure(REPEAT, REPEAT, |_| {
        black_box(sip::parse_datagram(black_box(&invite))).expect("SIP");
    });
    let mut others: Vec<(&str, Measured)> = others()
        .iter()
        .map(|(name, bytes)| (*name, measure(REPEAT, REPEAT, |_| decide(black_box(bytes)))))
        .collect();
    others.sort_by(|(_, one), (_, other)| one.micros.total_cmp(&other.micros));
    let (slowest, other) = (&others[others.len() - 1].1, &others[others.len() / 2].1);
    let other_allocations: f64 = others
        .iter()
        .map(|(_, measured)| measured.allocations)
        .sum();
    let extract = measure(REPEAT, REPEAT, |_| {
        let message = sip::parse_datagram(black_box(&invite)).expect("SIP");
        let body = message.sdp.expect("a body");
        black_box(sdp::parse(body, 16)).expect("SDP");
    });

    let calls: Vec<[Packet; 5]> = (0..CALLS).map(call).collect();
    let mut bench = Bench::new();
    let whole = measure(CALLS_IN_SAMPLE, CALLS, |index| {
        for packet in &calls[index as usize] {
            bench.take(packet);
        }
        // So that ended calls are forgotten as they are in life, and their names may come again.
        if index == CALLS - 1 {
            bench.wait(Duration::from_secs(40));
        }
    });

    let mut standing = Bench::new();
    let begin = BYTES.load(Ordering::Relaxed);
    for number in 0..STANDING {
        for packet in &call(number)[..3] {
            standing.take(packet);
        }
    }
    let bytes = BYTES.load(Ordering::Relaxed) - begin;
    assert_eq!(standing.engine.calls().count(), STANDING as usize);
    assert_eq!(standing.open, 2 * STANDING as i64);
    let per_call = bytes / u64::from(STANDING);

    let per_second = 1e6 / whole.micros;
    if json {
        println!(
            "{{\"invite_scan_us\":{:.3},\"other_scan_us\":{:.3},\"other_scan_slowest_us\":{:.3},\"invite_read_us\":{:.3},\
             \"invite_extract_us\":{:.3},\"call_us\":{:.3},\"calls_per_second\":{:.0},\"bytes_per_call\":{per_call},\
             \"invite_scan_allocations\":{:.1},\"other_scan_allocations\":{other_allocations:.1},\"invite_extract_allocations\":{:.1},\
             \"call_allocations\":{:.1}}}",
            scan.micros,
            other.micros,
            slowest.micros,
            read.micros,
            extract.micros,
            whole.micros,
            per_second,
            scan.allocations,
            extract.allocations,
            whole.allocations,
        );
        return;
    }
    println!("what                                             median      target   allocations");
    let row = |what: &str, measured: &Measured, target: &str| {
        println!(
            "{what:<44} {:>7.3} us  {target:>9}  {:>11.1}",
            measured.micros, measured.allocations
        );
    };
    for (name, measured) in &others {
        row(&format!("scan, {name}"), measured, "");
    }
    row(
        "no media, no dialog change: median of these",
        other,
        "0.3 us",
    );
    row("INVITE with SDP: scan", &scan, "0.3 us");
    row("INVITE with SDP: scan and a call's fields", &read, "");
    row(
        "INVITE with SDP: fields and SDP, with types",
        &extract,
        "2 us",
    );
    row("whole call: INVITE, 200, ACK, BYE, 200", &whole, "15 us");
    println!("calls per second on one core                 {per_second:>10.0}");
    println!("bytes per established call, {STANDING} of them   {per_call:>10}   3072 bytes");
}

/// What the engine decides before it looks at any call: whether the message is one that moves a dialog, and whether it brings media.
fn decide(bytes: &[u8]) {
    let scan = sip::scan_datagram(bytes).expect("SIP");
    let moves_a_dialog = match Verb::of(scan.method()) {
        None | Some(Verb::Aside(_)) => false,
        // RFC 3261 §12.1: 100 makes no dialog.
        Some(_) => *scan.start() != sip::Start::Response(100),
    };
    assert!(!moves_a_dialog && scan.sdp().is_none());
    black_box((scan.call_id(), moves_a_dialog));
}

/// Messages that move neither media nor a dialog, as trunks carry them all day.
fn others() -> Vec<(&'static str, Vec<u8>)> {
    let request = |method: &str, to, more: &str, body: &str| {
        let start = format!("{method} sip:100@example.com SIP/2.0");
        with_body(&start, 1, method, to, 1, more, body)
    };
    let response = |status: &str, method: &str, to, more: &str| {
        with_body(&format!("SIP/2.0 {status}"), 1, method, to, 1, more, "")
    };
    let in_dialog = Some("as58f4201b");
    vec![
        (
            "OPTIONS",
            request("OPTIONS", None, "Accept: application/sdp\r\n", ""),
        ),
        (
            "200 to OPTIONS",
            response(
                "200 OK",
                "OPTIONS",
                in_dialog,
                "Accept: application/sdp, application/pidf+xml, message/sipfrag;version=2.0\r\nAccept-Encoding: identity\r\nAccept-Language: en\r\n",
            ),
        ),
        (
            "REGISTER with credentials",
            request(
                "REGISTER",
                None,
                "Expires: 300\r\nAuthorization: Digest username=\"15550100\", realm=\"example.com\", nonce=\"5f3c1f0e/9a7d2c4b8e6f\", \
                 uri=\"sip:example.com\", response=\"6629fae49393a05397450978507c4ef1\", algorithm=MD5, cnonce=\"0a4f113b\", qop=auth, nc=00000001\r\n",
                "",
            ),
        ),
        (
            "401 to REGISTER",
            response(
                "401 Unauthorized",
                "REGISTER",
                in_dialog,
                "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"5f3c1f0e/9a7d2c4b8e6f\", qop=\"auth\", algorithm=MD5\r\n",
            ),
        ),
        (
            "NOTIFY of waiting messages",
            request(
                "NOTIFY",
                None,
                "Event: message-summary\r\nSubscription-State: active\r\nContent-Type: application/simple-message-summary\r\n",
                "Messages-Waiting: no\r\nMessage-Account: sip:100@example.com\r\nVoice-Message: 0/0 (0/0)\r\n",
            ),
        ),
        (
            "NOTIFY in a dialog, after REFER",
            request(
                "NOTIFY",
                in_dialog,
                "Event: refer\r\nSubscription-State: active;expires=60\r\nContent-Type: message/sipfrag;version=2.0\r\n",
                "SIP/2.0 180 Ringing\r\n",
            ),
        ),
        (
            "INFO in a dialog, DTMF",
            request(
                "INFO",
                in_dialog,
                "Content-Type: application/dtmf-relay\r\n",
                "Signal=5\r\nDuration=160\r\n",
            ),
        ),
        (
            "SUBSCRIBE",
            request(
                "SUBSCRIBE",
                None,
                "Event: presence\r\nExpires: 3600\r\n",
                "",
            ),
        ),
        ("100 to INVITE", response("100 Trying", "INVITE", None, "")),
    ]
}

struct Packet {
    direction: Direction,
    bytes: Vec<u8>,
}

struct Bench {
    engine: Engine,
    now: Duration,
    open: i64,
}

impl Bench {
    fn new() -> Self {
        Self {
            engine: Engine::new(settings(), [1, 2]),
            now: Duration::from_secs(1),
            open: 0,
        }
    }

    fn take(&mut self, packet: &Packet) {
        let input = Input::Packet {
            direction: packet.direction,
            bytes: &packet.bytes,
            truncated: false,
        };
        self.engine.handle(Instant(self.now), input);
        self.drain();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.engine.handle_timeout(Instant(self.now));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            let local = match output {
                Output::Pinhole(PinholeAction::Open(pinhole)) => {
                    self.open += 1;
                    pinhole.local
                }
                Output::Pinhole(PinholeAction::Update(pinhole)) => pinhole.local,
                Output::Pinhole(PinholeAction::Close { .. }) => {
                    self.open -= 1;
                    continue;
                }
                Output::Event(_) => continue,
            };
            let result = PinholeResult::Done;
            let input = Input::PinholeResult { local, result };
            self.engine.handle(Instant(self.now), input);
        }
    }
}

/// A call from the provider: INVITE, 200 and ACK, then BYE and 200.
fn call(number: u32) -> [Packet; 5] {
    let packet = |direction, bytes: Vec<u8>| Packet {
        direction,
        bytes: match direction {
            Direction::Ingress => ip(PROVIDER, PBX, &bytes),
            Direction::Egress => ip(PBX, PROVIDER, &bytes),
        },
    };
    let request = |method: &str, cseq, to, sdp| {
        let start = format!("{method} sip:100@192.0.2.10 SIP/2.0");
        packet(
            Direction::Ingress,
            message(&start, cseq, method, to, sdp, number),
        )
    };
    let response = |method: &str, cseq, sdp| {
        let bytes = message("SIP/2.0 200 OK", cseq, method, Some("callee"), sdp, number);
        packet(Direction::Egress, bytes)
    };
    [
        request("INVITE", 1, None, Some(MEDIA)),
        response("INVITE", 1, Some(PBX)),
        request("ACK", 1, Some("callee"), None),
        request("BYE", 2, Some("callee"), None),
        response("BYE", 2, None),
    ]
}

/// What a provider's softswitch sends, at its usual length.
fn message(
    start: &str,
    cseq: u32,
    method: &str,
    to: Option<&str>,
    media: Option<Ipv4Addr>,
    number: u32,
) -> Vec<u8> {
    let body = media.map_or(String::new(), |address| {
        let port = if address == PBX {
            10_000 + 2 * (number % 25_000)
        } else {
            20_000 + 2 * (number % 10_000)
        };
        format!(
            "v=0\r\no=root 1821 1821 IN IP4 {address}\r\ns=call\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:150\r\na=sendrecv\r\n"
        )
    });
    let kind = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/sdp\r\n"
    };
    with_body(start, cseq, method, to, number, kind, &body)
}

/// The same with any body, and the header lines that belong to it.
fn with_body(
    start: &str,
    cseq: u32,
    method: &str,
    to: Option<&str>,
    number: u32,
    more: &str,
    body: &str,
) -> Vec<u8> {
    let to = to.map_or(String::new(), |tag| format!(";tag={tag}"));
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 198.51.100.5:5060;branch=z9hG4bK-{number}-{cseq}-524287-1---3f9c5b3d;rport\r\nMax-Forwards: 69\r\n\
         Contact: <sip:15550100@198.51.100.5:5060>\r\nTo: <sip:100@192.0.2.10>{to}\r\n\
         From: \"15550100\" <sip:15550100@198.51.100.5>;tag=gK0c7b1d55\r\nCall-ID: 2018312_{number}_127433@198.51.100.5\r\n\
         CSeq: {cseq} {method}\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, PUBLISH, UPDATE\r\n\
         {more}Supported: replaces, timer\r\nUser-Agent: Softswitch 4.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn ip(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("a datagram");
    let mut packet = vec![0x45, 0];
    packet.extend((length + 20).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    for field in [5060, 5060, length, 0] {
        packet.extend(u16::to_be_bytes(field));
    }
    packet.extend_from_slice(payload);
    packet
}

fn settings() -> Settings {
    Settings {
        pbx: Pbx {
            addresses: vec![IpAddr::V4(PBX)],
            rtp_ports: 10_000..=59_999,
            udptl_ports: None,
            nat: BTreeMap::new(),
            signalling: SignallingPorts::default(),
        },
        providers: vec![Provider {
            name: "provider".to_owned(),
            signalling: vec!["198.51.100.0/28".parse().expect("a prefix")],
            transports: vec![Transport::Udp],
            signalling_ports: SignallingPorts::default(),
            media: Media {
                source: MediaSource::Signalled,
                ports: 20_000..=60_000,
                prefixes: Vec::new(),
                replies: Vec::new(),
                packets_per_second: None,
            },
            early_media: EarlyMedia::OnAnswer,
            rates: SignallingRates::default(),
        }],
        limits: Limits::default(),
        timers: Timers::default(),
        filtering: Default::default(),
    }
}
