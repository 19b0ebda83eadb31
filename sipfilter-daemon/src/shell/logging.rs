//! The log: its form for the whole run, its level, which can change, and its way out, which nobody waits for (`queue`).

mod queue;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io, thread,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

pub use queue::Lines;

use super::privacy::{Redactor, log::Redacting};
use crate::config::{Log as Config, LogFormat, LogLevel};

/// How long the end of the process waits for whoever reads the log.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The same after a panic, which need not end it.
const SCREAM: Duration = Duration::from_millis(100);

/// The log of this process.
pub struct Log {
    /// Its level.
    pub level: LevelSwitch,
    /// Its way out.
    pub lines: Lines,
}

/// Another level from now on.
pub struct LevelSwitch(Box<dyn Fn(EnvFilter) + Send>);

impl LevelSwitch {
    /// Sets the level, unless `RUST_LOG` has.
    pub fn set(&self, level: LogLevel) {
        if EnvFilter::try_from_default_env().is_err() {
            (self.0)(EnvFilter::new(level.to_string()));
        }
    }
}

/// Dropped at the end of the process, also by a panic: whatever was logged is written by then, if somebody reads.
#[derive(Debug)]
pub struct Flush(pub Lines);

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush(LAST_WORDS);
    }
}

/// Begins to log to standard error, through what redacts. `RUST_LOG` overrides the configured level, so that one run can be looked at more closely.
///
/// # Errors
/// Where there can be no thread that writes.
pub fn start(log: Config, redactor: Redactor) -> io::Result<Log> {
    let lines = Lines::to_stderr()?;
    let out = Redacting {
        redactor,
        lines: lines.clone(),
    };
    tell_panics(out.clone());
    let level = subscribe(log, out);
    Ok(Log { level, lines })
}

/// A panic is told the same way: on standard error itself it could wait for a reader, and say what is to be redacted.
fn tell_panics(out: Redacting) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("?");
        let mut text = format!("thread '{name}' {panic}\n");
        let trace = Backtrace::capture();
        // As `RUST_BACKTRACE` says.
        if trace.status() == BacktraceStatus::Captured {
            text.push_str(&trace.to_string());
        }
        out.push(&text);
        out.lines.flush(SCREAM);
    }));
}

fn subscribe(log: Config, out: Redacting) -> LevelSwitch {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.level.to_string()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written is lost: saying so on standard error would end the process.
        .log_internal_errors(false)
        .with_writer(out);
    // Set by systemd where standard error is the journal, which notes the time of each line itself.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match log.format {
        LogFormat::Text if is_journal => {
            let builder = builder
                .with_target(false)
                .with_ansi(false)
                .without_time()
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LevelSwitch(Box::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Text => {
            let builder = builder
                .with_target(false)
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            // It can only fail once nothing is logged any more.
            LevelSwitch(Box::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LevelSwitch(Box::new(move |filter| drop(handle.reload(filter))))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::config::Redact;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_told_before_it_goes_on_and_redacted() {
        let out = Out::default();
        tell_panics(Redacting {
            redactor: Redactor::new([1, 2], Redact::Users),
            lines: Lines::to(out.clone()).expect("a thread"),
        });
        let peer = thread::Builder::new().name("peer".to_owned());
        let peer = peer.spawn(|| panic!("cannot read sip:4930123456@example.com"));
        peer.expect("a thread").join().expect_err("a panic");
        drop(std::panic::take_hook());
        let told = String::from_utf8(out.0.lock().expect("whole").clone()).expect("text");
        assert!(told.contains("thread 'peer' panicked at "), "{told}");
        assert!(
            told.contains("cannot read sip:") && told.contains("@example.com"),
            "{told}"
        );
        assert!(!told.contains("4930123456"), "{told}");
    }
}
