//! Lines on their way to standard error, which a thread of their own writes.
//!
//! Whoever logs never waits for whoever reads: neither a pipe that nobody empties nor a terminal that was stopped may stop the task that
//! opens pinholes. What comes meanwhile is kept up to a limit, and beyond that counted. It forms and redacts nothing. Invariants: lines are
//! written whole and in the order in which they came, and the thread holds no lock while it writes.
//!
//! The library for this, tracing-appender, prints to standard output where its queue is full at the end, which may be the same pipe, and
//! limits the number of lines, not their bytes.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Bytes of lines that may wait while others are being written: some ten thousand lines.
const ROOM: usize = 2 * 1024 * 1024;

/// Lines that are written soon. Its copies are one.
#[derive(Debug, Clone)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    more: Condvar,
    /// There is nothing left to write.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    is_writing: bool,
    lost: u64,
}

#[derive(Debug, Default)]
struct Batch {
    text: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Lines {
    /// To standard error, for as long as the process lives.
    ///
    /// # Errors
    /// Where there can be no thread for it.
    pub fn to_stderr() -> io::Result<Self> {
        Self::to(Stderr)
    }

    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writers = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writers.write(out))?;
        Ok(Self(shared))
    }

    /// Takes a line, or several that belong together; never waits.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        let batch = &mut state.waiting;
        if batch.text.len() + line.len() > ROOM {
            state.lost += 1;
            return;
        }
        batch.text.extend_from_slice(line);
        batch.ends.push(batch.text.len());
        self.0.more.notify_one();
    }

    /// Lines that found no room, or could not be written.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Waits until everything is written, but not for ever: nobody may be reading.
    pub fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.0.lock();
        while state.is_writing || !state.waiting.ends.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            let waited = self.0.done.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// What is in here is whole at any moment, whoever has panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: impl Write) {
        let mut told = 0;
        loop {
            let batch = self.take();
            let (mut written, mut failed) = (0_u64, 0_u64);
            for line in batch.lines() {
                match out.write_all(line) {
                    Ok(()) => written += 1,
                    Err(_) => failed += 1,
                }
            }
            let lost = {
                let mut state = self.lock();
                state.lost += failed;
                state.lost
            };
            // Not where nothing can be written: that would be lost, too, and for ever.
            if lost > told && written > 0 {
                tracing::warn!(
                    lines = lost - told,
                    "lines of the log were lost before this one: nobody took them from standard error in time"
                );
                told = lost;
            }
        }
    }

    /// Waits for lines.
    fn take(&self) -> Batch {
        let mut state = self.lock();
        state.is_writing = false;
        while state.waiting.ends.is_empty() {
            self.done.notify_all();
            state = self
                .more
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        std::mem::take(&mut state.waiting)
    }
}

impl Batch {
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = begins.zip(&self.ends);
        ranges.map(|(begin, end)| self.text.get(begin..*end).unwrap_or_default())
    }
}

/// Standard error without the standard library's lock on it, so that whoever else writes there does not wait for this one.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let stderr = rustix::stdio::stderr();
        loop {
            match rustix::io::write(stderr, text) {
                // Somebody who has the same pipe or terminal has made it so.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
                }
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, sync::mpsc};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Writes when it is let to.
    struct Gate {
        open: mpsc::Receiver<bool>,
        out: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            match self.open.recv() {
                Ok(true) => {
                    self.out.lock().expect("whole").extend(text);
                    Ok(text.len())
                }
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Lines, mpsc::Sender<bool>, Arc<Mutex<Vec<u8>>>) {
        let (opens, open) = mpsc::channel();
        let out = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::to(Gate {
            open,
            out: Arc::clone(&out),
        });
        (lines.expect("a thread"), opens, out)
    }

    #[test]
    fn lines_come_in_their_order_and_all_of_them_before_the_end() {
        let (lines, opens, out) = gate();
        let mut expect = Vec::new();
        for number in 0..5_000 {
            let line = format!("line {number}\n");
            lines.push(line.as_bytes());
            expect.extend(line.into_bytes());
            opens.send(true).expect("it writes");
        }
        lines.flush(SOON);
        assert!(
            *out.lock().expect("whole") == expect,
            "others, or in another order"
        );
        assert_eq!(lines.lost(), 0);
    }

    #[test]
    fn nobody_waits_where_nobody_reads() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let lines = Lines::to(writer).expect("a thread");
        let line = [b'x'; 1_023];
        let begin = Instant::now();
        for _ in 0..3 * ROOM / 1_024 {
            lines.push(&[&line[..], b"\n"].concat());
        }
        lines.flush(Duration::from_millis(50));
        assert!(begin.elapsed() < SOON, "somebody waited");
        let lost = lines.lost();
        assert!(lost > 0, "there is room without end");
        // Now somebody does: what was kept is whole.
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            let kept = 3 * ROOM - 1_024 * usize::try_from(lost).expect("few");
            reader
                .take(kept as u64)
                .read_to_end(&mut text)
                .map(|_| text)
        });
        lines.flush(SOON);
        let text = reading.join().expect("no panic").expect("all of it");
        assert!(
            text.chunks(1_024)
                .all(|kept| kept[..1_023] == line && kept[1_023] == b'\n')
        );
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_rest_goes_on() {
        let (lines, opens, out) = gate();
        for (line, works) in [("one\n", true), ("two\n", false), ("three\n", true)] {
            lines.push(line.as_bytes());
            opens.send(works).expect("it writes");
        }
        lines.flush(SOON);
        assert_eq!(*out.lock().expect("whole"), b"one\nthree\n");
        assert_eq!(lines.lost(), 1);
    }
}
