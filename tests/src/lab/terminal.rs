//! A terminal without a person: a real pseudo-terminal with a program in it, and what stands on its screen.
//!
//! The test is the person: it presses keys, changes the size, looks, and hangs up. Invariant: the program does not outlive its terminal.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Write},
    num::NonZero,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};
use vt100::Parser;

use super::namespace::Namespace;

const PATIENCE: Duration = Duration::from_secs(20);
/// So many pictures are remembered.
const PICTURES: usize = 1000;

/// The terminal and the program in it.
#[derive(Debug)]
pub struct Terminal {
    /// The person's end; `None` once it was hung up.
    person: Option<File>,
    /// The program's end, kept open so that what became of it can be asked afterwards.
    program: OwnedFd,
    settings_before: String,
    child: Child,
    seen: Arc<Seen>,
    reader: Option<JoinHandle<()>>,
}

struct Seen {
    screen: Mutex<(Parser, VecDeque<String>)>,
    is_over: AtomicBool,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.screen().0.screen().contents())
    }
}

impl Seen {
    fn screen(&self) -> MutexGuard<'_, (Parser, VecDeque<String>)> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terminal {
    /// Starts a program in a terminal of so many columns and rows, as its controlling one.
    ///
    /// # Errors
    /// Where the system gives none, or the program cannot be run.
    pub fn start(
        namespace: &Namespace,
        (columns, rows): (u16, u16),
        program: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags).context("no pseudo-terminal")?;
        grantpt(&person)?;
        unlockpt(&person)?;
        let inside = ioctl_tiocgptpeer(&person, flags)?;
        tcsetwinsize(&inside, size(columns, rows))?;
        let settings_before = format!("{:?}", tcgetattr(&inside)?);
        let mut command = namespace.command("setsid");
        command.args(["--ctty", program]);
        prepare(&mut command);
        let child = command
            .stdin(inside.try_clone()?)
            .stdout(inside.try_clone()?)
            .stderr(inside.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let person = File::from(person);
        let seen = Arc::new(Seen {
            screen: Mutex::new((Parser::new(cells(rows), cells(columns), 0), VecDeque::new())),
            is_over: AtomicBool::new(false),
        });
        let (reading, watching) = (person.try_clone()?, Arc::clone(&seen));
        let reader = thread::spawn(move || watch(reading, &watching));
        Ok(Self {
            person: Some(person),
            program: inside,
            settings_before,
            child,
            seen,
            reader: Some(reader),
        })
    }

    /// What stands on the screen, line by line.
    #[must_use]
    pub fn screen(&self) -> String {
        self.seen.screen().0.screen().contents()
    }

    /// What stood on it before, picture by picture.
    #[must_use]
    pub fn pictures(&self) -> Vec<String> {
        self.seen.screen().1.iter().cloned().collect()
    }

    /// The program has the alternate screen, or hides the cursor.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let guard = self.seen.screen();
        let screen = guard.0.screen();
        screen.alternate_screen() || screen.hide_cursor()
    }

    /// Some character has a colour.
    #[must_use]
    pub fn has_colour(&self) -> bool {
        let guard = self.seen.screen();
        let screen = guard.0.screen();
        let (rows, columns) = screen.size();
        (0..rows.get()).any(|row| {
            (0..columns.get()).any(|column| {
                screen.cell(row, column).is_some_and(|cell| {
                    cell.fgcolor() != vt100::Color::Default
                        || cell.bgcolor() != vt100::Color::Default
                })
            })
        })
    }

    /// How the terminal is set (termios), in words that can be compared.
    ///
    /// # Errors
    /// After it was hung up.
    pub fn settings(&self) -> Result<String> {
        Ok(format!("{:?}", tcgetattr(&self.program)?))
    }

    /// How it was set before the program began.
    #[must_use]
    pub fn settings_before(&self) -> &str {
        &self.settings_before
    }

    /// Presses keys.
    ///
    /// # Errors
    /// After it was hung up.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        let person = self.person.as_mut().context("it was hung up")?;
        Ok(person.write_all(keys.as_bytes())?)
    }

    /// Gives it another size; the program is told by SIGWINCH.
    ///
    /// # Errors
    /// After it was hung up.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        let person = self.person.as_ref().context("it was hung up")?;
        self.seen
            .screen()
            .0
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        Ok(tcsetwinsize(person, size(columns, rows))?)
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Closes the person's end, as a connection that breaks.
    pub fn hang_up(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It only reads: there is nothing to tell.
            let _ = reader.join();
        }
        self.person = None;
    }

    /// Waits until the screen is as it should be.
    ///
    /// # Errors
    /// With the screen, where it does not become so.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if is_so(&self.screen()) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "{what}: not within {} s:\n{}",
            PATIENCE.as_secs(),
            self.screen()
        )
    }

    /// Waits until the program has ended and everything it said is on the screen.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                // The end of the program is no end of the terminal, which is held open here.
                thread::sleep(Duration::from_millis(200));
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "it does not end within {} s:\n{}",
            PATIENCE.as_secs(),
            self.screen()
        )
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.hang_up();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// At least one.
fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap_or(NonZero::<u16>::MIN)
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn watch(mut terminal: File, seen: &Seen) {
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let mut buffer = [0; 65536];
    while !seen.is_over.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(&terminal, PollFlags::IN)];
        if !matches!(poll(&mut ready, Some(&tick)), Ok(1..)) {
            continue;
        }
        let Ok(read @ 1..) = terminal.read(&mut buffer) else {
            return;
        };
        let mut screen = seen.screen();
        let (parser, pictures) = &mut *screen;
        parser.process(buffer.get(..read).unwrap_or_default());
        let picture = parser.screen().contents();
        if pictures.back() != Some(&picture) {
            pictures.push_back(picture);
        }
        if pictures.len() > PICTURES {
            pictures.pop_front();
        }
    }
}
