//! `sipfilterctl top`: calls, pinholes and reasons with their rates, in the terminal, until somebody has seen enough.
//!
//! `reading` asks the daemon and the pinned maps, `tables` says what the columns are, `screen` draws and knows the keys, `terminal`
//! borrows the terminal and gives it back on every way out. Nothing is changed.
//!
//! Invariant: a key is obeyed at once, however long the daemon takes: only the reading thread waits for it.

mod reading;
mod screen;
mod tables;
mod terminal;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    sync::mpsc::{self, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use crossterm::event::{self, Event, KeyEventKind};

use self::{
    reading::Reading,
    screen::{Next, Screen},
    tables::Tab,
    terminal::Borrowed,
};
use super::{CtlError, Outcome, Session, output};
use crate::view::Top;

/// How long the keyboard is waited for before signals and readings are looked at.
const TICK: Duration = Duration::from_millis(100);
/// A daemon that is away for longer is not being restarted.
const AWAY: Duration = Duration::from_secs(10);

/// How it is watched.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one reading, with rates over one interval, and end; with --json it always does
    #[arg(long)]
    once: bool,
    /// How often it is read, in seconds
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text} is not between 0.2 and 60 seconds")),
    }
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let interval = Duration::from_secs_f64(args.interval);
    let is_once = args.once || session.json;
    if !is_once {
        require_terminal()?;
    }
    let first = Reading::take(session.runtime_dir);
    // Whoever never answered is not waited for.
    if let Some(error) = first.daemon_error {
        return Err(error.into());
    }
    if is_once {
        thread::sleep(interval);
        let top = Reading::take(session.runtime_dir).since(&first);
        if session.json {
            output::json(session.out, &top)?;
        } else {
            print(session.out, &top)?;
        }
        return Ok(Outcome::Done);
    }
    watch(first, interval, session.runtime_dir.to_owned())
}

fn require_terminal() -> Result<(), CtlError> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if io::stdout().is_terminal() && !is_dumb {
        return Ok(());
    }
    Err(CtlError::Output(io::Error::other(
        "standard output is no terminal that can be drawn on; `--once` or `--json` prints one reading",
    )))
}

/// One reading as text: every table whole.
fn print(out: &mut dyn Write, top: &Top) -> Result<(), CtlError> {
    writeln!(out, "{}", tables::summary(top))?;
    for error in &top.errors {
        writeln!(out, "! {}", output::plain(error))?;
    }
    for tab in Tab::ALL {
        writeln!(out)?;
        let head: Vec<&str> = tab.columns().iter().map(|column| column.title).collect();
        let rows = tab.rows(top).into_iter();
        let rows = rows.map(|row| row.into_iter().map(|field| field.text).collect());
        output::table(out, &head, rows)?;
    }
    Ok(())
}

fn watch(first: Reading, interval: Duration, runtime_dir: PathBuf) -> Result<Outcome, CtlError> {
    let mut terminal = Borrowed::take()?;
    let (sender, readings) = mpsc::sync_channel(1);
    // It ends with the process, or when nobody takes its readings any more.
    thread::spawn(move || {
        loop {
            thread::sleep(interval);
            if sender.send(Reading::take(&runtime_dir)).is_err() {
                return;
            }
        }
    });
    let mut screen = Screen::default();
    let mut last = first;
    let mut top = last.since(&last);
    let mut answered = Instant::now();
    let mut is_stale = true;
    loop {
        if is_stale {
            terminal.draw(|frame| screen.draw(frame, &top))?;
            is_stale = false;
        }
        // A terminal that has hung up has no keys; SIGHUP tells, or else drawing does.
        let has_event = match event::poll(TICK) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            other => other?,
        };
        if terminal.is_over() {
            return Ok(Outcome::Done);
        }
        if has_event {
            is_stale = true;
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && screen.handle(key) == Next::Leave
            {
                return Ok(Outcome::Done);
            }
        }
        let mut reading = match readings.try_recv() {
            Ok(reading) => reading,
            Err(TryRecvError::Empty) => continue,
            Err(TryRecvError::Disconnected) => {
                let error = io::Error::other("the thread that reads has ended");
                return Err(CtlError::Output(error));
            }
        };
        top = reading.since(&last);
        is_stale = true;
        match reading.daemon_error.take() {
            None => answered = Instant::now(),
            // The terminal is given back first, so that the error is seen.
            Some(error) if answered.elapsed() > AWAY => return Err(error.into()),
            Some(_) => {}
        }
        last = reading;
    }
}
