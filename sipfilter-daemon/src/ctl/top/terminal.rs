//! The terminal, borrowed: raw and on its alternate screen, and given back whichever way the program ends.
//!
//! Invariant: whoever holds a [`Borrowed`] owns the terminal; its end, a panic of any thread included, gives it back. Signals only set a
//! flag, so that the end is the ordinary one. Standard output is written to without its lock, which the main thread holds for good.

use std::{
    fs::File,
    io::{self, BufWriter},
    os::fd::AsFd,
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor, execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

pub(super) struct Borrowed {
    terminal: Terminal<CrosstermBackend<BufWriter<File>>>,
    over: Arc<AtomicBool>,
}

impl Borrowed {
    /// Takes it.
    pub(super) fn take() -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::clone(&over))?;
        }
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // Before the message, which would be lost with the alternate screen.
            give_back();
            hook(panic);
        }));
        let begun = enable_raw_mode().and_then(|()| {
            let mut output = output()?;
            execute!(output, EnterAlternateScreen, cursor::Hide)?;
            Terminal::new(CrosstermBackend::new(BufWriter::new(output)))
        });
        match begun {
            Ok(terminal) => Ok(Self { terminal, over }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws; a terminal that has changed its size is drawn anew.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// A signal has asked for the end.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        give_back();
    }
}

fn output() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

fn give_back() {
    // There is nobody left to tell of an error.
    let _ = disable_raw_mode();
    if let Ok(mut output) = output() {
        let _ = execute!(output, LeaveAlternateScreen, cursor::Show);
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs::OpenOptions, io::Read, process::Command, thread};

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::tcgetattr,
    };

    use super::*;

    const INSIDE: &str = "SIPFILTER_TEST_INSIDE_A_TERMINAL";

    /// This test runs itself in a terminal, and panics there, on the main thread or on another one.
    #[test]
    fn a_panic_gives_the_terminal_back_before_its_message() {
        if let Some(which) = env::var_os(INSIDE) {
            // The test's thread is not the main one; the lock stands for the program's.
            let _lock = io::stdout().lock();
            let _borrowed = Borrowed::take().expect("a terminal");
            if which == "other" {
                let ended = thread::spawn(|| panic!("it broke")).join();
                assert!(ended.is_err());
            }
            panic!("it broke");
        }
        for which in ["own", "other"] {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
            grantpt(&master).expect("it is ours");
            unlockpt(&master).expect("it is open");
            let name = ptsname(&master, Vec::new()).expect("it has a name");
            let name = name.into_string().expect("a path");
            let open = || OpenOptions::new().read(true).write(true).open(&name);
            let slave = open().expect("the other end");
            let before = tcgetattr(&slave).expect("its settings");
            let status = Command::new(env::current_exe().expect("this program"))
                .args(["--nocapture", "--exact"])
                .arg(
                    "ctl::top::terminal::tests::a_panic_gives_the_terminal_back_before_its_message",
                )
                .env(INSIDE, which)
                .stdin(open().expect("a keyboard"))
                .stdout(open().expect("a screen"))
                .stderr(open().expect("a screen"))
                .status()
                .expect("it runs");
            assert!(!status.success(), "{which}: it did not panic");
            let after = tcgetattr(&slave).expect("its settings");
            assert_eq!(
                format!("{:?}", after.local_modes),
                format!("{:?}", before.local_modes),
                "{which}"
            );
            assert_eq!(after.input_modes, before.input_modes, "{which}");
            drop(slave);
            let mut shown = Vec::new();
            // The other end is closed: that is an error, after everything has been read.
            let _ = File::from(master).read_to_end(&mut shown);
            let shown = String::from_utf8_lossy(&shown);
            let at = |what: &str| {
                shown
                    .find(what)
                    .unwrap_or_else(|| panic!("{which}: no {what:?} in {shown:?}"))
            };
            assert!(
                at("\u{1b}[?1049h") < at("\u{1b}[?1049l"),
                "{which}: {shown:?}"
            );
            assert!(at("\u{1b}[?1049l") < at("it broke"), "{which}: {shown:?}");
        }
    }
}
