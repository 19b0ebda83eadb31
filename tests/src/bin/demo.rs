//! The demonstration: calls through a real filter while strangers try their luck, a live table, then a scoreboard.
//!
//! It only shows and judges; the run itself is [`sipfilter_tests::lab::scoreboard::run`]. Exit 0: every promise held; 1: one broke;
//! 2: the run could not be made.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use sipfilter_tests::lab::{
    address::Family,
    daemon::{Filter, Mode},
    scoreboard::{self, Live, Run, Scoreboard},
    topology::Topology,
};

/// Shows calls keep their audio through sipfilter while strangers get nothing.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// Where the PBX stands: routed, on-host, nat, or nat-private.
    #[arg(long, default_value = "routed")]
    topology: Topology,
    /// How the filter is attached.
    #[arg(long, value_enum, default_value = "native")]
    mode: ModeArgument,
    /// How many calls stand at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    calls: u16,
    /// How many RTP packets each side of each call sends, 20 ms apart.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    packets: u32,
    /// Milliseconds between the last BYE and the RTP that must no longer pass.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    settle: u64,
    /// Print the scoreboard as one JSON line, the last on standard output.
    #[arg(long)]
    json: bool,
    /// Run without sipfilter, as behind an open firewall, to see the promises break.
    #[arg(long)]
    no_filter: bool,
    /// Use IPv6 instead of IPv4.
    #[arg(long)]
    ipv6: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArgument {
    Native,
    Generic,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = Run {
        topology: arguments.topology,
        family: if arguments.ipv6 {
            Family::V6
        } else {
            Family::V4
        },
        filter: match (arguments.no_filter, arguments.mode) {
            (true, _) => Filter::None,
            (false, ModeArgument::Native) => Filter::Sipfilter(Mode::Native),
            (false, ModeArgument::Generic) => Filter::Sipfilter(Mode::Generic),
        },
        calls: arguments.calls,
        packets: arguments.packets,
        settle: Duration::from_millis(arguments.settle),
    };
    let screen = Mutex::new(Screen::new());
    let started = Instant::now();
    let result = scoreboard::run(run, move |live| {
        if let Ok(mut screen) = screen.lock() {
            screen.show(live, run.calls);
        }
    });
    match result {
        Ok(scoreboard) => {
            show_scoreboard(&run, &scoreboard, started.elapsed());
            let broken = scoreboard.broken();
            for message in &broken {
                eprintln!("BROKEN: {message}");
            }
            if arguments.json {
                match serde_json::to_string(&scoreboard) {
                    Ok(line) => println!("{line}"),
                    Err(error) => eprintln!("demo: {error}"),
                }
            }
            ExitCode::from(u8::from(!broken.is_empty()))
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The live table: redrawn in place on a terminal, a line a second elsewhere. It goes to standard error, so that `--json` stays clean.
struct Screen {
    terminal: bool,
    drawn: bool,
    last_line: Option<Instant>,
    last_phase: &'static str,
}

impl Screen {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            drawn: false,
            last_line: None,
            last_phase: "",
        }
    }

    fn show(&mut self, live: Live, calls: u16) {
        let mut out = std::io::stderr().lock();
        if self.terminal {
            if self.drawn {
                let _ = write!(out, "\x1b[7A");
            }
            self.drawn = true;
            for (name, value) in [
                ("now", live.phase.to_owned()),
                ("calls answered", format!("{} of {calls}", live.answered)),
                ("calls ended", live.ended.to_string()),
                ("pinholes", live.pinholes.to_string()),
                ("RTP delivered", live.rtp_delivered.to_string()),
                ("attack packets sent", live.attack_sent.to_string()),
                ("  of them delivered", live.attack_delivered.to_string()),
            ] {
                let _ = writeln!(out, "\x1b[2K  {name:<22}{value}");
            }
            return;
        }
        let due = self
            .last_line
            .is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
        if due || live.phase != self.last_phase {
            self.last_line = Some(Instant::now());
            self.last_phase = live.phase;
            let _ = writeln!(
                out,
                "{}: answered {}/{calls}, ended {}, pinholes {}, RTP {}, attacks {} sent, {} delivered",
                live.phase,
                live.answered,
                live.ended,
                live.pinholes,
                live.rtp_delivered,
                live.attack_sent,
                live.attack_delivered
            );
        }
    }
}

fn show_scoreboard(run: &Run, scoreboard: &Scoreboard, took: Duration) {
    let filter = match run.filter {
        Filter::None => "no filter".to_owned(),
        Filter::Sipfilter(mode) => format!("sipfilter, XDP {}", mode.name()),
    };
    let detail = &scoreboard.detail;
    println!();
    println!("{} · {filter} · {:.1} s", run.topology, took.as_secs_f32());
    println!();
    row("calls answered", scoreboard.answered, scoreboard.calls);
    row(
        "calls heard on both sides",
        scoreboard.heard_calls,
        scoreboard.calls,
    );
    row(
        "RTP packets delivered",
        scoreboard.rtp_delivered,
        scoreboard.rtp_sent,
    );
    row("pinholes during the calls", detail.pinholes_open, "");
    row("pinholes left", scoreboard.pinholes_left, "");
    row(
        "plain TCP visits served",
        detail.tcp.served,
        detail.tcp.tried,
    );
    row("pings answered", detail.ping.served, detail.ping.tried);
    println!();
    println!("  reached the PBX");
    for (kind, sent, delivered) in &detail.attacks {
        row(kind.title(), delivered, sent);
    }
    row(
        "RTP after BYE",
        scoreboard.rtp_after_bye_delivered,
        detail.after_bye_sent,
    );
    println!();
}

fn row(name: &str, count: impl ToString, of: impl ToString) {
    let of = of.to_string();
    let of = if of.is_empty() {
        of
    } else {
        format!(" of {of}")
    };
    println!("  {name:<42}{:>7}{of}", count.to_string());
}
