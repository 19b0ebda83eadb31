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
            "    round {}: {:.1} % of a core at {RATE} calls/s, {memory:.1} MiB",
            round + 1,
            cpu * 100.0
        );
        busy.push((cpu, memory));
        let (idle, full) = concurrent()?;
        eprintln!(
            "    round {}: {full:.1} MiB with {STANDING} calls, {idle:.1} MiB without",
            round + 1
        );
        standing.push((idle, full));
    }
    let middle =
        |of: &dyn Fn(usize) -> f64, count: usize| median(&(0..count).map(of).collect::<Vec<_>>());
    let cpu = middle(&|round| busy[round].0, busy.len());
    let after = middle(&|round| busy[round].1, busy.len());
    let idle = middle(&|round| standing[round].0, standing.len());
    let full = middle(&|round| standing[round].1, standing.len());
    let mut table = Table::new("sipfilterd", &["", "CPU, one core", "resident MiB"]);
    table.row(["no calls".into(), "-".into(), format!("{idle:.1}")]);
    table.row([
        format!("{RATE} calls per second, for {} s", CALLS / RATE),
        format!("{:.1} %", cpu * 100.0),
        format!("{after:.1}"),
    ]);
    table.row([
        format!("{STANDING} calls at once"),
        "-".into(),
        format!("{full:.1}"),
    ]);
    Ok(Outcome {
        summary: json!({
            "cpu_at_1000_cps": rounded(cpu),
            "rss_mib_at_10000_calls": rounded(full),
        }),
        tables: vec![table],
        notes: vec![
            "CPU is the daemon's user and system time per second of calls: INVITE, 200, ACK, BYE and 200 of each, and its pinholes for RTP and RTCP \
             opened and closed. Memory is the resident set, which leaves out what lies in the kernel's maps and holds the records that \
             `calls show` tells of."
                .into(),
        ],
        ..Outcome::default()
    })
}

/// CPU per second of calls, and resident MiB afterwards.
fn rate() -> Result<(f64, f64)> {
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
        resident(daemon.pid())?,
    ))
}

/// Resident MiB before the first call and with all calls up.
fn concurrent() -> Result<(f64, f64)> {
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
    let idle = resident(daemon.pid())?;
    let full = thread::scope(|scope| -> Result<f64> {
        let calls = scope.spawn(|| trunk.run());
        let mut full = None;
        while !calls.is_finished() {
            if full.is_none() && up.load(Ordering::Relaxed) == STANDING {
                full = Some((resident(daemon.pid())?, daemon.pinholes()?));
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

fn resident(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("no resident set")?
        .parse()?;
    Ok(kib / 1024.0)
}
