//! `media`: accepted RTP that reaches a socket, by no filter, sipfilter and nftables with conntrack.
//!
//! One thread does everything in turn: the kernel sends live frames on a veth pair, whose other end works in the sender's turn, then the
//! thread reads what has reached the sockets. So nothing is lost for want of a reader, all of the work is on one processor's account, and
//! what other programs take of the machine is not counted as anybody's. Sender and reader cost the same for all.

use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, SocketType, netdevice::name_to_index, socket,
    sockopt::set_socket_recv_buffer_size_force,
};
use serde_json::json;
use sipfilter_daemon::{
    config::XdpMode,
    engine::pinhole::{Pinhole, PinholeAction, PinholeResult},
    shell::{clock, datapath::Datapath, map_writer::MapWriter, policy::KernelPolicy},
};

use super::{
    Options, SubBench,
    outcome::{Chart, Outcome, Table},
    programs::{Plan, Programs, Run, processor_time},
    statistics::{median, rounded},
};
use crate::{
    lab::{
        cleanup,
        namespace::{self, Namespace},
    },
    policy::{
        cases::{pinholes, settings},
        frame::Frame,
    },
};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "media",
    about: "accepted RTP delivered to a socket per second and processor time per packet, against nftables with conntrack",
    run,
};

/// The PBX of the policy's cases, and the provider's media that its first pinhole lets in.
const PBX: &str = "203.0.113.10";
const PROVIDER: &str = "198.51.100.20";
const PROVIDER_PORT: u16 = 40_000;
const FIRST_PORT: u16 = 10_000;
const STREAMS: u16 = 16;
/// Frames sent before the sockets are read.
const BURST: u32 = 16_384;
/// Bursts of one measurement.
const BURSTS: u32 = 8;
const INTERFACE: &str = "outer0";
const RECEIVE_BUFFER: usize = 64 << 20;
/// How long a burst may take to arrive where another thread of the kernel had to finish it.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Nothing,
    Sipfilter,
    Conntrack,
}

impl Filter {
    const ALL: [Self; 3] = [Self::Nothing, Self::Sipfilter, Self::Conntrack];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no filter",
            Self::Sipfilter => "sipfilter",
            Self::Conntrack => "nftables with conntrack",
        }
    }
}

/// A PBX with one of the filters, behind a veth pair.
struct Host {
    sockets: Vec<UdpSocket>,
    /// The sender's interface towards it.
    reached_by: String,
    _datapath: Option<Datapath>,
    _namespace: Namespace,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Per second of one processor's time.
    per_second: f64,
    cpu_nanos: f64,
}

fn run(options: &Options) -> Result<Outcome> {
    let lab = cleanup::unique_name();
    let sender = Namespace::create(&lab, "sender")?;
    let mut programs = Programs::load()?;
    let hosts = Filter::ALL
        .iter()
        .enumerate()
        .map(|(number, filter)| Host::create(&lab, &sender, number, *filter))
        .collect::<Result<Vec<_>>>()?;
    let mut samples = vec![Vec::new(); hosts.len()];
    for round in 0..=options.rounds {
        for (host, samples) in hosts.iter().zip(&mut samples) {
            let sample = sender.enter(|| host.measure(&mut programs))??;
            // The first round fills caches and pools of pages.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let of = |figure: fn(&Sample) -> f64| -> Vec<f64> {
        let medians = samples
            .iter()
            .map(|samples| median(&samples.iter().map(figure).collect::<Vec<_>>()));
        medians.collect()
    };
    Ok(evaluate(
        &of(|sample| sample.per_second),
        &of(|sample| sample.cpu_nanos),
    ))
}

fn evaluate(per_second: &[f64], cpu_nanos: &[f64]) -> Outcome {
    let mut table = Table::new(
        "RTP delivered",
        &["", "thousand packets/s", "processor ns per packet"],
    );
    let mut bars = Vec::new();
    for ((filter, rate), nanos) in Filter::ALL.iter().zip(per_second).zip(cpu_nanos) {
        table.row([
            filter.name().to_owned(),
            format!("{:.0}", rate / 1e3),
            format!("{nanos:.0}"),
        ]);
        bars.push((filter.name().to_owned(), vec![*nanos]));
    }
    let ratio = |figures: &[f64]| match figures {
        [_, ours, theirs] => rounded(ours / theirs),
        _ => 0.0,
    };
    Outcome {
        summary: json!({
            "vs_nft_conntrack": ratio(per_second),
            "cpu_vs_nft_conntrack": ratio(cpu_nanos),
        }),
        tables: vec![table],
        charts: vec![Chart {
            file: "media".into(),
            title: "Processor time per delivered RTP packet, sender and reader included".into(),
            unit: "ns".into(),
            series: vec!["ns".into()],
            bars,
        }],
        notes: vec![format!(
            "{STREAMS} streams of 20 ms PCMU to {STREAMS} sockets, every packet accepted and every packet counted at its socket. The kernel's generator \
             of live frames sends {BURST} of them over a veth pair, then the same thread reads the sockets: the figures hold sender, filter, \
             network stack and reader on one processor. They are those of the \
             thread's processor time, so that other work on the machine counts for nobody. conntrack knows each stream in both directions, and its rule for established \
             connections is the first."
        )],
    }
}

impl Host {
    fn create(lab: &str, sender: &Namespace, number: usize, filter: Filter) -> Result<Self> {
        let namespace = Namespace::create(lab, &format!("host{number}"))?;
        let reached_by = format!("to{number}");
        namespace::join((sender, &reached_by), (&namespace, INTERFACE))?;
        // The address that the cases' frames are sent to.
        namespace.ip(&format!("link set {INTERFACE} address 02:00:00:00:00:01"))?;
        namespace.ip(&format!("address add {PBX}/24 dev {INTERFACE}"))?;
        namespace.ip(&format!("route add {PROVIDER} dev {INTERFACE}"))?;
        namespace.ip(&format!(
            "neigh add {PROVIDER} lladdr 02:00:00:00:00:02 dev {INTERFACE}"
        ))?;
        // Without a program of its own, a veth takes redirected frames only where it merges packets (GRO), as network cards do.
        let mut ethtool = namespace.command("ethtool");
        namespace::run(ethtool.args(["-K", INTERFACE, "gro", "on"]))?;
        let datapath = match filter {
            Filter::Nothing => None,
            Filter::Sipfilter => Some(attach(&namespace)?),
            Filter::Conntrack => {
                track(namespace.command("sh"))?;
                None
            }
        };
        let sockets = namespace.enter(|| -> Result<Vec<UdpSocket>> {
            (FIRST_PORT..FIRST_PORT + STREAMS)
                .map(|port| {
                    let socket = UdpSocket::bind(("0.0.0.0", port))?;
                    socket.set_nonblocking(true)?;
                    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
                    // The PBX talks, too, so that a tracked connection has both directions.
                    socket.send_to(&rtp(), (PROVIDER, PROVIDER_PORT))?;
                    Ok(socket)
                })
                .collect()
        })??;
        Ok(Self {
            sockets,
            reached_by,
            _datapath: datapath,
            _namespace: namespace,
        })
    }

    /// Runs in the sender's namespace.
    fn measure(&self, programs: &mut Programs) -> Result<Sample> {
        let frame = frame();
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let interface = name_to_index(&any, &self.reached_by)?;
        let plan = Plan {
            state: 0x2545_f491,
            family: 4,
            ports: STREAMS.into(),
            first_port: FIRST_PORT.into(),
            ..Plan::default()
        };
        let run = Run {
            packet: &frame,
            repeat: BURST,
            arrived_on: 0,
        };
        let start = processor_time();
        for burst in 0..BURSTS {
            programs.send(plan, interface, run)?;
            let delivered = self.read(BURST);
            ensure!(
                delivered == BURST,
                "{}: of burst {burst}'s {BURST} packets {delivered} reached their sockets",
                self.reached_by
            );
        }
        let spent = processor_time().saturating_sub(start).as_secs_f64();
        let packets = f64::from(BURST * BURSTS);
        Ok(Sample {
            per_second: packets / spent,
            cpu_nanos: spent * 1e9 / packets,
        })
    }

    /// Reads so many packets, or what has come when it seems that no more will.
    fn read(&self, expected: u32) -> u32 {
        let mut buffer = [0_u8; 2048];
        let mut delivered = 0;
        let start = Instant::now();
        loop {
            for socket in &self.sockets {
                while socket.recv(&mut buffer).is_ok() {
                    delivered += 1;
                }
            }
            if delivered >= expected || start.elapsed() > PATIENCE {
                return delivered;
            }
            thread::yield_now();
        }
    }
}

/// sipfilter with a pinhole for each stream.
fn attach(namespace: &Namespace) -> Result<Datapath> {
    let capacity = 1_024;
    let mut datapath = Datapath::load(&KernelPolicy::new(&settings()), capacity, None)?;
    let mut writer = MapWriter::new(&mut datapath, capacity)?;
    let template = pinholes().into_iter().next().context("no pinhole")?;
    for port in FIRST_PORT..FIRST_PORT + STREAMS {
        let pinhole = Pinhole {
            local: SocketAddr::new(PBX.parse()?, port),
            ..template.clone()
        };
        let done = writer.apply(&PinholeAction::Open(pinhole), clock::now());
        ensure!(
            done == PinholeResult::Done,
            "a pinhole was refused: {done:?}"
        );
    }
    namespace.enter(|| datapath.attach(INTERFACE, XdpMode::Native))??;
    Ok(datapath)
}

/// What providers' documents ask for: a range that is open to everybody, and the connection table for the rest.
fn track(mut shell: Command) -> Result<()> {
    let last = FIRST_PORT + 10_000;
    let rules = format!(
        "table inet bench {{\n\
         chain input {{ type filter hook input priority filter; policy drop;\n\
         ct state established,related accept\n\
         iifname lo accept\n\
         udp dport {FIRST_PORT}-{last} accept\n\
         }}\n\
         }}\n"
    );
    namespace::run(shell.args(["-c", &format!("nft -f - <<'END'\n{rules}\nEND")]))
        .context("nft did not take the rules")?;
    Ok(())
}

/// 20 ms of PCMU (RFC 3551 §4.5.14).
fn rtp() -> Vec<u8> {
    let mut bytes = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
    bytes.resize(172, 0xff);
    bytes
}

/// The frame of which only the port differs. The network stack looks at the header's checksum, unlike the policy.
fn frame() -> Vec<u8> {
    let mut frame = Frame::udp(
        &format!("{PROVIDER}:{PROVIDER_PORT}"),
        &format!("{PBX}:{FIRST_PORT}"),
        &rtp(),
    )
    .build();
    frame[24..26].fill(0);
    let words = frame[14..34].chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}
