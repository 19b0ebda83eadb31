//! What the daemon itself takes of a machine: CPU time at a thousand calls per second, memory with ten thousand calls up.
//!
//! Both are the kernel's own accounts of the process, so other programs on the machine disturb them little; nothing is asked of the daemon.

use std::{fs, sync::atomic::Ordering, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{
    Options, SubBench,
    outcome::{Outcome, Table},
    statistics::{median, rounded},
    trunk::{Plan, Trunk},
};
use crate::lab::{
    address::{Family, PBX_RTP_FIRST, PBX_RTP_LAST},
    daemon::{self, Daemon, Mode},
    topology::{Network, OUTER, Topology},
};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "load",
    about: "CPU and memory of sipfilterd at 1 000 calls per second and with 10 000 calls up",
    run,
};

const RATE: u32 = 1_000;
const CALLS: u32 = 10_000;
/// So many calls need longer to be set up than the generator's peers would wait, were it faster.
const STANDING_RATE: u32 = 500;
const STANDING: u32 = 10_000;

fn run(options: &Options) -> Result<Outcome> {
    let mut busy = Vec::new();
    let mut standing = Vec::new();
    for round in 0..options.rounds.min(3) {
        let (cpu, memory) = rate()?;
        eprintln!(
            "    round {}: {:.1} % of a core at {RATE} calls/s, {:.1} MiB",
            round + 1,
            cpu * 100.0,
            memory.resident
        );
        busy.push((cpu, memory));
        let (idle, full) = concurrent()?;
        eprintln!(
            "    round {}: {:.1} MiB with {STANDING} calls, {:.1} MiB without",
            round + 1,
            full.resident,
            idle.resident
        );
        standing.push((idle, full));
    }
    let cpu = median(&busy.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>());
    let after = Memory::median(busy.iter().map(|(_, after)| after));
    let idle = Memory::median(standing.iter().map(|(idle, _)| idle));
    let full = Memory::median(standing.iter().map(|(_, full)| full));
    let mut table = Table::new(
        "sipfilterd",
        &["", "CPU, one core", "resident MiB", "its own of that"],
    );
    let mut row = |what: String, cpu: String, memory: &Memory| {
        let cells = [memory.resident, memory.own].map(|mib| format!("{mib:.1}"));
        table.row([what, cpu].into_iter().chain(cells));
    };
    row("no calls".into(), "-".into(), &idle);
    row(
        format!("{RATE} calls per second, for {} s", CALLS / RATE),
        format!("{:.1} %", cpu * 100.0),
        &after,
    );
    row(format!("{STANDING} calls at once"), "-".into(), &full);
    Ok(Outcome {
        summary: json!({
            "cpu_at_1000_cps": rounded(cpu),
            "rss_mib_at_10000_calls": rounded(full.resident),
        }),
        tables: vec![table],
        notes: vec![
            "CPU is the daemon's user and system time per second of calls: INVITE, 200, ACK, BYE and 200 of each, and its pinholes for RTP and RTCP \
             opened and closed. Memory is the resident set. Besides what is the process's own, which the records that `calls show` tells of are part \
             of, it holds the program's text and 36 MiB of ring buffers: the kernel maps each of them twice in a row, so that no record is \
             ever cut in two, and both count. Other maps of the kernel are not in it."
                .into(),
        ],
        ..Outcome::default()
    })
}

/// What a process takes of memory, in MiB.
struct Memory {
    /// All of it that lies in memory.
    resident: f64,
    /// What of it is neither a file's nor shared with the kernel.
    own: f64,
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let mib = |name: &str| -> Result<f64> {
            let kib: f64 = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|rest| rest.split_whitespace().next())
                .with_context(|| format!("{path} has no {name}"))?
                .parse()?;
            Ok(kib / 1024.0)
        };
        Ok(Self {
            resident: mib("VmRSS")?,
            own: mib("RssAnon")?,
        })
    }

    fn median<'a>(of: impl Iterator<Item = &'a Self>) -> Self {
        let (resident, own): (Vec<_>, Vec<_>) =
            of.map(|memory| (memory.resident, memory.own)).unzip();
        Self {
            resident: median(&resident),
            own: median(&own),
        }
    }
}

/// CPU per second of calls, and what they take of memory afterwards.
fn rate() -> Result<(f64, Memory)> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let daemon = Daemon::start(&network, Mode::Native)?;
    let plan = Plan {
        rate: RATE,
        calls: CALLS,
        hold: Duration::from_millis(100),
        ..Plan::default()
    };
    let trunk = Trunk::new(&network, plan)?;
    let before = cpu_time(daemon.pid())?;
    let tally = trunk.run()?;
    let spent = cpu_time(daemon.pid())? - before;
    tally.expect_all_calls(&plan)?;
    Ok((
        spent.as_secs_f64() / tally.took.as_secs_f64(),
        Memory::of(daemon.pid())?,
    ))
}

/// Memory before the first call and with all calls up.
fn concurrent() -> Result<(Memory, Memory)> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    // Two ports per call, on two addresses.
    let ports = format!("\"{PBX_RTP_FIRST}-{PBX_RTP_LAST}\"");
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    if !config.contains(&ports) {
        bail!("the lab's configuration has no RTP ports {ports}");
    }
    let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
    let plan = Plan {
        rate: STANDING_RATE,
        calls: STANDING,
        hold: Duration::from_secs(u64::from(STANDING / STANDING_RATE) + 5),
        ports: STANDING,
        ..Plan::default()
    };
    let trunk = Trunk::new(&network, plan)?;
    let up = trunk.standing();
    let idle = Memory::of(daemon.pid())?;
    let full = thread::scope(|scope| -> Result<Memory> {
        let calls = scope.spawn(|| trunk.run());
        let mut full = None;
        while !calls.is_finished() {
            if full.is_none() && up.load(Ordering::Relaxed) == STANDING {
                full = Some((Memory::of(daemon.pid())?, daemon.pinholes()?));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let tally = calls
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        tally.expect_all_calls(&plan)?;
        let (full, pinholes) = full.context("the calls were never all up")?;
        if pinholes != 2 * STANDING as usize {
            bail!("{STANDING} calls had {pinholes} pinholes instead of two each");
        }
        Ok(full)
    })?;
    Ok((idle, full))
}

/// User and system time, in ticks of a hundredth of a second.
fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name in brackets may hold spaces.
    let (_, fields) = text.rsplit_once(") ").context("a strange stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields
        .get(11..13)
        .context("a short stat")?
        .iter()
        .map(|field| field.parse::<u64>())
        .sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
