//! `flood`: packets dropped per second, by sipfilter and by what one would otherwise run.
//!
//! Frames come from a program that the kernel runs on live frames and redirects into a veth pair, so that the sender costs little. The
//! receiving end works in the sender's turn, on one processor: a figure holds both, and the sender's share is the same for everybody.

mod victim;

use anyhow::{Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use serde_json::json;

use self::victim::{Defence, Victim};
use super::{
    Options, SubBench,
    outcome::{Chart, Outcome, Table},
    programs::{Plan, Programs, Run},
    statistics::{median, rounded},
};
use crate::{
    lab::{cleanup, namespace::Namespace},
    policy::frame::Frame,
};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "flood",
    about: "packets dropped per second, against XDP_DROP alone and nftables",
    run,
};

/// What the attacker sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// RTP to media ports that no call has negotiated.
    Media,
    /// SIP from strangers.
    Sip,
    /// Half of each.
    Mix,
}

impl Attack {
    const ALL: [Self; 3] = [Self::Media, Self::Sip, Self::Mix];

    fn name(self) -> &'static str {
        match self {
            Self::Media => "media without a pinhole",
            Self::Sip => "strangers' SIP",
            Self::Mix => "half of each",
        }
    }

    /// Any of 256 strangers; media to any of 9 000 ports behind those with pinholes.
    fn plan(self) -> Plan {
        let (first_port, ports, other_port) = match self {
            Self::Media => (victim::CLOSED, 9_000, 0),
            Self::Sip => (victim::SIP, 1, 0),
            Self::Mix => (victim::CLOSED, 9_000, victim::SIP.into()),
        };
        Plan {
            state: 0x2545_f491,
            family: 4,
            address_mask: 0,
            ports,
            first_port: first_port.into(),
            source_mask: 0xff,
            other_port,
        }
    }

    fn frame(self) -> Vec<u8> {
        let payload = match self {
            // 20 ms of G.711 (RFC 3551 §4.5.14).
            Self::Media | Self::Mix => {
                let mut rtp = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
                rtp.resize(172, 0xff);
                rtp
            }
            Self::Sip => {
                let mut options = b"OPTIONS sip:100@203.0.113.10 SIP/2.0\r\n".to_vec();
                options.resize(400, b'x');
                options
            }
        };
        Frame::udp(
            "192.0.2.0:40000",
            &format!("{}:{}", victim::ADDRESS, victim::SIP),
            &payload,
        )
        .build()
    }
}

/// How often everything is set up anew. Where the kernel puts tables and programs in memory shifts the rates by a few per cent, nftables'
/// most of all, and stays as it is for as long as they are there.
const SET_UPS: usize = 4;

fn run(options: &Options) -> Result<Outcome> {
    let packets = if options.quick { 2_000 } else { 100_000 };
    let set_ups = if options.quick { 1 } else { SET_UPS };
    let mut rates = vec![[const { Vec::new() }; Attack::ALL.len()]; Defence::ALL.len()];
    for _ in 0..set_ups {
        let lab = cleanup::unique_name();
        let attacker = Namespace::create(&lab, "attacker")?;
        let mut programs = Programs::load()?;
        let mut victims = Vec::new();
        for defence in Defence::ALL {
            victims.push(Victim::create(&lab, &attacker, defence, &mut programs)?);
        }
        for round in 0..=options.rounds {
            for (victim, rates) in victims.iter().zip(&mut rates) {
                for (attack, rates) in Attack::ALL.iter().zip(rates) {
                    let rate = measure(&attacker, victim, *attack, packets, &mut programs)?;
                    // The first round fills caches and pools of pages.
                    if round > 0 {
                        rates.push(rate);
                    }
                }
            }
        }
    }
    let medians: Vec<Vec<f64>> = rates
        .iter()
        .map(|rates| rates.iter().map(|rates| median(rates)).collect())
        .collect();
    Ok(evaluate(&medians))
}

/// Another try where the kernel let its own thread do the receiver's work, whose time is not ours: packets are then lost between the
/// ends. That happens while others keep the machine busy.
const TRIES: usize = 20;

/// Packets dropped per second of processor time.
fn measure(
    attacker: &Namespace,
    victim: &Victim,
    attack: Attack,
    packets: u32,
    programs: &mut Programs,
) -> Result<f64> {
    let frame = attack.frame();
    let mut received = 0;
    for _ in 0..TRIES {
        let (before, passed) = (victim.received()?, victim.passed()?);
        let spent = attacker.enter(|| {
            let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            let interface = name_to_index(&socket, &victim.attacked_from)?;
            let run = Run {
                packet: &frame,
                repeat: packets,
                arrived_on: 0,
            };
            programs.send(attack.plan(), interface, run)
        })??;
        let passed = victim.passed()? - passed;
        ensure!(
            passed == 0,
            "{}: {passed} packets of an attack ({}) passed",
            victim.defence.name(),
            attack.name()
        );
        received = victim.received()? - before;
        if received * 100 >= u64::from(packets) * 99 {
            return Ok(received as f64 / spent.as_secs_f64());
        }
    }
    bail!(
        "{}: only {received} of {packets} packets arrived, {TRIES} times over; is the machine busy with something else?",
        victim.defence.name()
    )
}

fn evaluate(medians: &[Vec<f64>]) -> Outcome {
    let mut header = vec!["defence"];
    header.extend(Attack::ALL.iter().map(|attack| attack.name()));
    let mut table = Table::new("Packets dropped per second, in millions", &header);
    let mut bars = Vec::new();
    for (defence, rates) in Defence::ALL.iter().zip(medians) {
        let millions: Vec<f64> = rates.iter().map(|rate| rate / 1e6).collect();
        let mut row = vec![defence.name().to_owned()];
        row.extend(millions.iter().map(|rate| format!("{rate:.2}")));
        table.row(row);
        bars.push((defence.name().to_owned(), millions));
    }
    let mut ratios = Table::new("sipfilter's rate as a multiple of others'", &header);
    let ours = Defence::ALL
        .iter()
        .position(|known| *known == Defence::Sipfilter)
        .and_then(|place| medians.get(place));
    for (defence, rates) in Defence::ALL.iter().zip(medians) {
        if *defence == Defence::Sipfilter {
            continue;
        }
        let mut row = vec![defence.name().to_owned()];
        let pairs = ours.into_iter().flatten().zip(rates);
        row.extend(pairs.map(|(ours, theirs)| format!("{:.2}", ours / theirs)));
        ratios.row(row);
    }
    // The attack that is worst for sipfilter counts.
    let worst = |other: Defence| {
        let of = |defence| Defence::ALL.iter().position(|known| *known == defence);
        let (ours, theirs) = (
            of(Defence::Sipfilter).and_then(|place| medians.get(place)),
            of(other).and_then(|place| medians.get(place)),
        );
        let pairs = ours.into_iter().flatten().zip(theirs.into_iter().flatten());
        let ratio = pairs
            .map(|(ours, theirs)| ours / theirs)
            .fold(f64::INFINITY, f64::min);
        rounded(ratio)
    };
    Outcome {
        summary: json!({
            "vs_xdp_drop": worst(Defence::XdpDrop),
            "vs_nft_raw": worst(Defence::NftRaw),
            "vs_nft_helper": worst(Defence::NftHelper),
        }),
        tables: vec![table, ratios],
        charts: vec![Chart {
            file: "flood".into(),
            title: "Packets dropped per second".into(),
            unit: "millions".into(),
            series: Attack::ALL.map(|attack| attack.name().into()).into(),
            bars,
        }],
        notes: vec![
            format!(
                "Each defence knows the same: {} pinholes, one provider's prefix, the SIP port and the RTP range. Packets come from 256 \
                 strangers to 9 000 ports. Each ratio is that of the attack which is worst for sipfilter.",
                victim::PINHOLES
            ),
            "Per second of the one processor's time that sends and receives; XDP_DROP alone is the sender and a veth pair. It is checked \
             that the packets arrived and that none passed."
                .into(),
        ],
    }
}
