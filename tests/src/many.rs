//! The daemon's core with many calls in it and full ledgers of drops, without sockets and interfaces: for what is asked of it then.
//!
//! Its programs are loaded and its maps are the kernel's, so that looking at a pinhole's traffic costs what it costs. Nothing is attached
//! or pinned, and all of it goes with the value. Needs root.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, time::SystemTime};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, Map, MapData};
use sipfilter_common::{
    abi::map,
    reason::Reason,
    slot::{AsideWords, SlotCounts, SlotWords},
};
use sipfilter_daemon::{
    config::{Config, Redact},
    engine::{Direction, Input, settings::Settings},
    shell::{
        api::Question,
        clock,
        core::{About, Core, Kernel, Keys, Watch},
        datapath::Datapath,
        feed::Feed,
        ledger::Ledger,
        logging::Lines,
        map_writer::MapWriter,
        outer::Outer,
        policy::KernelPolicy,
        pressure::Pressure,
        privacy::Redactor,
        provisional::Provisionals,
        sample::Sample,
    },
};
use tokio::sync::oneshot;

const PBX: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const PROVIDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 5);
const MEDIA: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const PINHOLES: u32 = 65_536;
/// Sources of one call.
const SOURCES: u32 = 8;
/// Places for calls, whatever their number is: ports of the PBX's in pairs.
const MOST_CALLS: u32 = 25_000;

const CONFIG: &str = r#"
interfaces = ["lo"]
[pbx]
addresses = ["203.0.113.10"]
rtp_ports = "10000-59999"
[limits]
calls = 30000
calls_per_provider = 30000
pinholes = 65536
[[provider]]
name = "lab"
signalling = ["198.51.100.0/28"]
transports = ["udp"]
media = { source = "signalled", ports = "20000-60000" }
[[trunk]]
provider = "lab"
"#;

/// A core, and what it shares with whoever looks on.
pub struct Many {
    /// The core.
    pub core: Core,
    /// Who was dropped.
    pub drops: Ledger,
    /// Redacts everything that can be.
    pub redactor: Redactor,
    slots: Array<MapData, SlotWords>,
    asides: Array<MapData, AsideWords>,
    calls: u32,
}

impl Many {
    /// A core without calls.
    ///
    /// # Errors
    /// Without root's privileges.
    pub fn new() -> Result<Self> {
        let file = Path::new("sipfilter.toml");
        let config = Config::parse(file, CONFIG).context("the configuration")?;
        let settings: Settings = config.settings.clone();
        let policy = KernelPolicy::new(&settings);
        let mut datapath = Datapath::load(&policy, PINHOLES, None)?;
        let slots = again(&mut datapath, map::SLOTS)?;
        let asides = again(&mut datapath, map::ASIDES)?;
        let (writer, inheritance) =
            MapWriter::inheriting(&mut datapath, PINHOLES, &settings.providers)?;
        let provisionals = Provisionals::new(&mut datapath, &policy)?;
        let counters = datapath.take(map::COUNTERS)?;
        let outer = Outer::find(&settings.pbx.addresses, &config.interfaces);
        let pressure = Pressure::new(&mut datapath, &counters, outer)?;
        let redactor = Redactor::new([1, 2], Redact::UsersAndAddresses);
        redactor.configure(Redact::UsersAndAddresses, &settings.pbx.addresses);
        let drops = Ledger::new(&settings, SystemTime::now());
        let watch = Watch {
            feed: Feed::default(),
            drops: drops.clone(),
            redactor: redactor.clone(),
            log: Lines::to_stderr()?,
        };
        let about = About {
            config,
            attached: Vec::new(),
            started: clock::now(),
            unconfirmed: None,
            places: BTreeMap::new(),
        };
        let kernel = Kernel {
            writer,
            inheritance,
            provisionals,
            counters,
            pressure,
        };
        let keys = Keys {
            hash: [1, 2],
            label: [3, 4],
        };
        Ok(Self {
            core: Core::new(settings, keys, kernel, about, watch),
            drops,
            redactor,
            slots: slots.try_into()?,
            asides: asides.try_into()?,
            calls: 0,
        })
    }

    /// Makes so many calls more, each with two pinholes. Their numbers begin at 1.
    pub fn call(&mut self, calls: u32) {
        for number in self.calls..self.calls + calls {
            let say = |start: &str, method: &str, to: &str, media: Option<Ipv4Addr>| {
                message(start, method, to, media, number)
            };
            let request = format!("sip:100@{PBX} SIP/2.0");
            let invite = say(&format!("INVITE {request}"), "INVITE", "", Some(MEDIA));
            let answer = say("SIP/2.0 200 OK", "INVITE", ";tag=callee", Some(PBX));
            let ack = say(&format!("ACK {request}"), "ACK", ";tag=callee", None);
            self.take(Direction::Ingress, &invite);
            self.take(Direction::Egress, &answer);
            self.take(Direction::Ingress, &ack);
        }
        self.calls += calls;
    }

    /// Ends the call of this number.
    pub fn end(&mut self, call: u32) {
        let start = format!("BYE sip:100@{PBX} SIP/2.0");
        let bye = message(&start, "BYE", ";tag=callee", None, call - 1);
        self.take(Direction::Ingress, &bye);
    }

    fn take(&mut self, direction: Direction, message: &[u8]) {
        let bytes = &match direction {
            Direction::Ingress => datagram((PROVIDER, 5060), (PBX, 5060), message),
            Direction::Egress => datagram((PBX, 5060), (PROVIDER, 5060), message),
        };
        let input = Input::Packet {
            direction,
            bytes,
            truncated: false,
        };
        self.core.handle(clock::now(), input);
    }

    /// Has strangers send to the ports of the first so many calls.
    pub fn hit(&self, calls: u32) -> Result<()> {
        let mut drops = self.drops.lock();
        drops.handle_count(Reason::WrongSource, u64::from(calls * SOURCES), false);
        for number in 0..calls {
            for source in 0..SOURCES {
                let from = Ipv4Addr::from(0x0a00_0000 + number * SOURCES + source);
                let rtp = [0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
                let packet = datagram((from, 4_000), (PBX, port(number)), &rtp);
                let sample = sample(Reason::WrongSource, &packet)?;
                drops.handle_sample(&sample, 1.0, SystemTime::now());
            }
        }
        Ok(())
    }

    /// Has so many networks knock, every other one in a provider's name.
    pub fn knock(&self, networks: u32) -> Result<()> {
        let mut drops = self.drops.lock();
        drops.handle_count(Reason::UnknownSource, u64::from(networks), false);
        for number in 0..networks {
            let from = Ipv4Addr::from(0x0b00_0000 + number * 256 + 7);
            let domain = ["sip.vapi.ai", "203.0.113.10"][number as usize % 2];
            let invite = format!(
                "INVITE sip:100@{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {from}:5060;branch=z9hG4bK1\r\nFrom: <sip:a@{domain}>;tag=1\r\n\
                 To: <sip:1@{PBX}>\r\nCall-ID: {number}\r\nCSeq: 1 INVITE\r\nUser-Agent: scanner {number}\r\nContent-Length: 0\r\n\r\n"
            );
            let packet = datagram((from, 5060), (PBX, 5060), invite.as_bytes());
            let sample = sample(Reason::UnknownSource, &packet)?;
            drops.handle_sample(&sample, 1.0, SystemTime::now());
        }
        Ok(())
    }

    /// Writes into every slot that something came to its pinhole and was dropped, and has the core look at all of them.
    pub fn drop_everywhere(&mut self) -> Result<()> {
        for number in 0..self.slots.len() {
            let (words, others) = SlotCounts {
                dropped_packets: 7,
                ingress_packets: u64::from(number % 2 * 100),
                ..SlotCounts::of_words(self.slots.get(&number, 0)?, self.asides.get(&number, 0)?)
            }
            .words();
            self.slots.set(number, words, 0)?;
            self.asides.set(number, others, 0)?;
        }
        for _ in 0..PINHOLES / 1_000 {
            self.core.check_losses();
            self.work();
        }
        Ok(())
    }

    /// Does whatever work there is. Tells how many slices it took.
    pub fn work(&mut self) -> usize {
        std::iter::from_fn(|| self.core.has_work().then(|| self.core.work())).count()
    }

    /// Asks, and works until the answer is there.
    ///
    /// # Errors
    /// Where there is none then.
    pub fn ask<T>(&mut self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T> {
        let (asker, mut answer) = oneshot::channel();
        self.core.answer(question(asker));
        self.work();
        Ok(answer.try_recv()?)
    }
}

fn port(number: u32) -> u16 {
    (10_000 + 2 * (number % MOST_CALLS)) as u16
}

fn sample(reason: Reason, packet: &[u8]) -> Result<Sample> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(packet);
    let length = (frame.len() as u32).to_ne_bytes();
    let mut record = Vec::new();
    record.extend((clock::now().0.as_nanos() as u64).to_ne_bytes());
    record.extend(length);
    record.extend(length);
    record.extend(1_u32.to_ne_bytes());
    record.extend((reason as u16).to_ne_bytes());
    record.extend([1, 0]);
    record.extend(frame);
    Sample::read(&record).context("no sample")
}

fn message(start: &str, method: &str, to: &str, media: Option<Ipv4Addr>, number: u32) -> Vec<u8> {
    let body = media.map_or(String::new(), |address| {
        let port = match address {
            PBX => port(number),
            _ => (20_000 + 2 * (number % 10_000)) as u16,
        };
        format!(
            "v=0\r\no=root 1821 1821 IN IP4 {address}\r\ns=call\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 0 101\r\n\
             a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n"
        )
    });
    let kind = match body.is_empty() {
        true => "",
        false => "Content-Type: application/sdp\r\n",
    };
    let cseq = if method == "BYE" { 2 } else { 1 };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP {PROVIDER}:5060;branch=z9hG4bK-{number}-{cseq}-524287;rport\r\nMax-Forwards: 69\r\n\
         Contact: <sip:15550100@{PROVIDER}:5060>\r\nTo: <sip:100@{PBX}>{to}\r\nFrom: \"15550100\" <sip:15550100@{PROVIDER}>;tag=gK0c7b1d55\r\n\
         Call-ID: 2018312_{number}_127433@{PROVIDER}\r\nCSeq: {cseq} {method}\r\n{kind}User-Agent: Softswitch 4.1\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn datagram(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() + 8) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((length + 20).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.0.octets());
    packet.extend(destination.0.octets());
    for field in [source.1, destination.1, length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend_from_slice(payload);
    packet
}

/// An array that the core takes as well.
fn again(datapath: &mut Datapath, name: &'static str) -> Result<Map> {
    match datapath.ebpf().map(name).context(name)? {
        Map::Array(array) => Ok(Map::Array(MapData::from_id(array.info()?.id())?)),
        other => bail!("{name} is {other:?}"),
    }
}
