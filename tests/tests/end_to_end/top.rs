//! `sipfilterctl top` in a real terminal: what it shows at which size, and that the terminal is what it was before after every way out.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sipfilter_tests::lab::{
    address::Family,
    daemon::{Filter, Mode, find_program},
    sipp::{Answer, Progress},
    stage::Stage,
    terminal::Terminal,
    topology::{Network, Topology},
};

use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("top_shows_calls_pinholes_and_reasons_at_every_size", shows),
        Test::new("top_gives_the_terminal_back_on_every_way_out", gives_back),
    ]
}

fn stage() -> Result<Stage> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    Ok(stage)
}

fn top(stage: &Stage, size: (u16, u16)) -> Result<Terminal> {
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let program = find_program("sipfilterctl")?.display().to_string();
    Terminal::start(&stage.network.edge, size, &program, |command| {
        command
            .env("TERM", "xterm-256color")
            .arg("--runtime-dir")
            .arg(daemon.runtime())
            .args(["top", "--interval", "0.5"]);
    })
}

fn shows() -> Result<()> {
    let mut stage = stage()?;
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let reading = daemon.ctl(&["top", "--json"])?;
    for (list, expected) in [("calls", 2), ("pinholes", 4)] {
        let count = reading[list].as_array().map(Vec::len);
        ensure!(count == Some(expected), "{list}: {reading}");
    }
    let mut terminal = top(&stage, (120, 30))?;
    terminal.wait_for("both calls are drawn", |screen| {
        screen.contains("2 calls")
            && screen.contains("inbound-1@lab")
            && screen.contains("outbound")
    })?;
    ensure!(!terminal.has_colour(), "something is told by colour");
    stage.talk(|_| true, 150)?;
    // 50 packets a second each way, less where an interval began before them.
    let rates = terminal.pictures().into_iter().any(|picture| {
        let mut calls = picture.lines().filter(|line| line.contains(" confirmed "));
        calls.any(|call| {
            let numbers = call.split_whitespace().filter_map(|word| word.parse().ok());
            numbers.filter(|rate: &u32| (30..70).contains(rate)).count() == 2
        })
    });
    ensure!(rates, "no call at 50 packets/s: {:#?}", terminal.pictures());
    terminal.press("2")?;
    terminal.wait_for("pinholes are drawn", |screen| {
        screen.contains("[2 pinholes (4)]") && screen.matches(" rtcp ").count() == 2
    })?;
    terminal.press("\t")?;
    terminal.wait_for("reasons are drawn", |screen| {
        screen.contains("[3 reasons") && screen.contains("media")
    })?;
    terminal.press("1")?;
    for (columns, rows) in [(80, 24), (40, 8), (20, 3), (120, 30)] {
        terminal.resize(columns, rows)?;
        terminal
            .wait_for("it fits", |screen| {
                let mut lines = screen.lines();
                let summary = lines
                    .next()
                    .is_some_and(|line| line.starts_with("sipfilter up"));
                let calls = lines
                    .filter(|line| line.trim_start().starts_with(['1', '2']))
                    .count();
                let keys = screen.lines().nth(usize::from(rows) - 1);
                let keys = keys.is_some_and(|line| line.starts_with("q quit"));
                summary && calls >= usize::from(rows > 3) * 2 && keys == (rows > 6)
            })
            .with_context(|| format!("{columns} by {rows}"))?;
    }
    terminal.press("q")?;
    let status = terminal.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Q,
    ControlC,
    Terminate,
    DaemonGone,
}

fn gives_back() -> Result<()> {
    let stage = stage()?;
    let daemon = stage.daemon.as_ref().context("a filter")?;
    // Whoever closes the window, or loses the connection, leaves no program behind.
    let mut closed = top(&stage, (80, 24))?;
    closed.wait_for("a call is drawn", |screen| screen.contains(" confirmed "))?;
    closed.hang_up();
    closed.wait()?;
    for way in [Way::Q, Way::ControlC, Way::Terminate, Way::DaemonGone] {
        let mut terminal = top(&stage, (80, 24))?;
        terminal.wait_for("a call is drawn", |screen| screen.contains(" confirmed "))?;
        ensure!(terminal.is_taken(), "{way:?}: no alternate screen");
        let before = terminal.settings_before().to_owned();
        ensure!(
            terminal.settings()? != before,
            "{way:?}: the terminal is not raw"
        );
        match way {
            Way::Q => terminal.press("q")?,
            Way::ControlC => terminal.press("\x03")?,
            Way::Terminate => terminal.signal(Signal::TERM)?,
            Way::DaemonGone => {
                let pid = Pid::from_raw(i32::try_from(daemon.pid())?);
                kill_process(pid.context("the daemon's process")?, Signal::KILL)?;
                terminal.wait_for("it says so", |screen| {
                    screen.starts_with("sipfilterd does not answer;") && screen.contains("\n! ")
                })?;
            }
        }
        let status = terminal.wait()?;
        ensure!(
            !terminal.is_taken(),
            "{way:?}: the terminal was not given back"
        );
        let after = terminal.settings()?;
        ensure!(after == before, "{way:?}: {before} became {after}");
        let screen = terminal.screen();
        let (code, last) = match way {
            Way::DaemonGone => (2, "sipfilterctl: sipfilterd is not running"),
            _ => (0, ""),
        };
        ensure!(status.code() == Some(code), "{way:?}: {status}\n{screen}");
        ensure!(screen.contains(last), "{way:?}: {screen}");
        ensure!(
            !screen.contains("confirmed"),
            "{way:?}: it left its drawing: {screen}"
        );
    }
    Ok(())
}
