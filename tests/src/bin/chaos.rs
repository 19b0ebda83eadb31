//! Chaos: calls talk on while the filter is killed, restarted, upgraded and changed, and strangers try their luck.
//!
//! It only shows and judges; the run itself is [`sipfilter_tests::lab::chaos::run`]. Exit 0: every promise held; 1: one broke; 2: the run
//! could not be made.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use sipfilter_tests::lab::{
    chaos::{self, Phase, Report, Run},
    daemon::Mode,
};

/// Shows calls keep their audio while the filter under them is killed, restarted, upgraded and changed.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// How many calls are in progress; each sends 50 RTP packets a second each way.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    calls: u16,
    /// How the filter is attached.
    #[arg(long, value_enum, default_value = "native")]
    mode: ModeArgument,
    /// Only these phases, in this order.
    #[arg(long, value_delimiter = ',', value_parser = phase)]
    phases: Vec<Phase>,
    /// Milliseconds without a daemon after the kill.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    dead: u64,
    /// Print the result as one JSON line, the last on standard output.
    #[arg(long)]
    json: bool,
    /// Run without sipfilter, as behind an open firewall, to see the promises break.
    #[arg(long)]
    no_filter: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArgument {
    Native,
    Generic,
}

fn phase(name: &str) -> Result<Phase, String> {
    Phase::ALL
        .into_iter()
        .find(|phase| phase.name() == name)
        .ok_or_else(|| {
            let names = Phase::ALL.map(Phase::name).join(", ");
            format!("no phase is called `{name}`; there are {names}")
        })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = Run {
        calls: arguments.calls,
        filter: match (arguments.no_filter, arguments.mode) {
            (true, _) => None,
            (false, ModeArgument::Native) => Some(Mode::Native),
            (false, ModeArgument::Generic) => Some(Mode::Generic),
        },
        phases: match arguments.phases.is_empty() {
            true => Phase::ALL.to_vec(),
            false => arguments.phases,
        },
        dead: Duration::from_millis(arguments.dead),
    };
    match chaos::run(&run, |what| eprintln!("{what}")) {
        Ok(report) => {
            show(&report);
            let broken = report.broken();
            for message in &broken {
                eprintln!("BROKEN: {message}");
            }
            if arguments.json {
                match serde_json::to_string(&report) {
                    Ok(line) => println!("{line}"),
                    Err(error) => eprintln!("chaos: {error}"),
                }
            }
            ExitCode::from(u8::from(!broken.is_empty()))
        }
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn show(report: &Report) {
    println!();
    println!(
        "  {} calls in progress, {:.1} s",
        report.established, report.seconds
    );
    println!();
    println!(
        "  {:<16}{:>10}{:>8}{:>12}{:>10}{:>9}{:>10}{:>10}",
        "", "RTP SENT", "LOST", "STRANGERS", "ARRIVED", "PROBES", "ARRIVED", "PINHOLES"
    );
    let open = &report.open;
    println!(
        "  {:<16}{:>10}{:>8}{:>12}{:>10}{:>9}{:>10}{:>10}",
        "(no filter)",
        "-",
        "-",
        open.strangers_sent,
        open.strangers_delivered,
        open.probes_sent,
        open.probes_delivered,
        "-"
    );
    for (name, counted) in &report.phases {
        let strangers = &counted.strangers;
        println!(
            "  {name:<16}{:>10}{:>8}{:>12}{:>10}{:>9}{:>10}{:>10}",
            counted.rtp_sent,
            counted.rtp_lost,
            strangers.strangers_sent,
            strangers.strangers_delivered,
            strangers.probes_sent,
            strangers.probes_delivered,
            counted.pinholes
        );
    }
    println!();
    println!(
        "  after the calls: {} of {} RTP packets arrived, {} pinholes are left",
        report.after_bye_delivered, report.after_bye_sent, report.pinholes_left
    );
    println!();
}
