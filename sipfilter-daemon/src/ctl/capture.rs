//! `sipfilterctl capture`: packets into a pcapng file, each with verdict and reason in its comment.
//!
//! The daemon makes the blocks, without credentials; this program counts them and writes whole ones only. Invariants: however it ends
//! (limits, Ctrl-C, a full disk, the end of the daemon), what is in the file by then is a valid capture; no file is lost by a slip of
//! the fingers.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Seek, Write},
    ops::ControlFlow,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    CtlError, Outcome, Session, call_record,
    client::{self, ClientError, Ended, Stream},
    output,
};
use crate::{
    shell::api,
    view::{Captured, Drops},
};

/// What to capture, and how much of it.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true))]
pub struct Args {
    /// Packets that are dropped, as far as the kernel shows them: their first 1024 bytes, at most 64 for each reason in a tenth of a second
    #[arg(long, group = "subject")]
    drops: bool,
    /// The signalling that passes, in both directions
    #[arg(long, group = "subject")]
    signalling: bool,
    /// One call's signalling, and drops that nearly belonged to it; by its number, its Call-ID or the beginning of that
    #[arg(long, value_name = "ID", group = "subject")]
    call: Option<String>,
    /// The file to write, readable for its owner alone; `-` is standard output, and what is said then goes to standard error
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// Replace the file if there is one, instead of refusing
    #[arg(long)]
    force: bool,
    /// End after so many packets
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    count: u64,
    /// End after so many seconds
    #[arg(long, value_name = "N", default_value_t = 3_600)]
    seconds: u64,
    /// End before the file is larger than so many bytes; K, M and G are understood
    #[arg(long, value_name = "BYTES", default_value = "100M", value_parser = size)]
    size: u64,
}

/// Why a capture cannot be written on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is one already.
    #[error("{} is there already; name another file, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// Nobody reads a capture on a screen.
    #[error("standard output is a terminal; pipe it (... -w - | tshark -r -), or name a file")]
    Terminal,
    /// The file cannot be made.
    #[error("cannot write {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written on.
    #[error("cannot write on {}: {source}; its {packets} packets so far are a valid capture", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Packets in it.
        packets: u64,
        /// What the system said.
        source: io::Error,
    },
    /// What the daemon sends is no capture.
    #[error(
        "sipfilterd sent a block of {0} bytes, which is none of ours; are they of one version?"
    )]
    Block(u32),
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let resource = match &args.call {
        Some(id) => match call_record::number(id, session.runtime_dir) {
            Ok(number) => format!("/v1/capture?call={number}"),
            Err(ClientError::Unknown(error)) => return session.refuse(error),
            Err(error) => return Err(error.into()),
        },
        None if args.drops => "/v1/capture?of=drops".to_owned(),
        None => "/v1/capture?of=signalling".to_owned(),
    };
    let before = dropped(session.runtime_dir)?;
    let mut file = Blocks::create(args)?;
    let limit = Some(Duration::from_secs(args.seconds));
    let stream = Stream::open(session.runtime_dir, api::ADMIN.0, &resource)?;
    let ended = stream.follow(limit, |bytes| file.take(bytes))?;
    let ended = match ended {
        Ended::Daemon => "daemon",
        Ended::Signal => "signal",
        Ended::Time => "seconds",
        Ended::Reader if file.is_unread => "reader",
        Ended::Reader if file.packets >= args.count => "count",
        Ended::Reader => "size",
    };
    // A daemon that has ended tells no more.
    let after = dropped(session.runtime_dir).unwrap_or(before);
    let captured = Captured {
        file: args.write.display().to_string(),
        packets: file.packets,
        bytes: file.bytes,
        ended: ended.to_owned(),
        dropped_packets: after.0.saturating_sub(before.0),
        dropped_samples: after.1.saturating_sub(before.1),
    };
    // Among the packets there is no place for words.
    let mut stderr = io::stderr();
    let out = if is_stdout(&args.write) {
        &mut stderr
    } else {
        &mut *session.out
    };
    if session.json {
        output::json(out, &captured)?;
    } else {
        writeln!(out, "{}", text(&captured, args))?;
    }
    Ok(Outcome::Done)
}

fn text(captured: &Captured, args: &Args) -> String {
    let why = match captured.ended.as_str() {
        "count" => "as many as it should have (--count)",
        "seconds" => "the time is up (--seconds)",
        "size" => "the file is as large as it may be (--size)",
        "daemon" => "sipfilterd has ended",
        "reader" => "its reader has had enough",
        _ => "ended by a signal",
    };
    let mut text = format!(
        "{}: {} packets, {} bytes; {why}",
        name(&args.write),
        captured.packets,
        captured.bytes
    );
    if !args.signalling {
        text.push_str(&format!(
            "\nof {} packets that were dropped meanwhile, {} were looked at",
            captured.dropped_packets, captured.dropped_samples
        ));
    }
    text
}

/// Packets dropped so far, and those that were looked at.
fn dropped(runtime_dir: &Path) -> Result<(u64, u64), ClientError> {
    let drops: Drops = client::get(runtime_dir, "/v1/drops?limit=0")?;
    let reasons = drops.reasons.iter();
    Ok(reasons.fold((0, 0), |(packets, samples), row| {
        (packets + row.packets, samples + row.samples)
    }))
}

/// The file, block by block.
struct Blocks<'a> {
    args: &'a Args,
    file: File,
    pending: Vec<u8>,
    packets: u64,
    bytes: u64,
    /// It is a pipe without a reader.
    is_unread: bool,
}

/// An Enhanced Packet Block (pcapng §4.3).
const PACKET: u32 = 6;
/// Type and length.
const HEAD: usize = 8;
/// No block of the daemon's is longer: a packet, its comment, and what surrounds them.
const MAX_BLOCK: u32 = 128 * 1024;

impl<'a> Blocks<'a> {
    fn create(args: &'a Args) -> Result<Self, CaptureError> {
        Ok(Self {
            args,
            file: open(args)?,
            pending: Vec::new(),
            packets: 0,
            bytes: 0,
            is_unread: false,
        })
    }

    /// Writes what is whole of it, as far as the limits allow.
    fn take(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, CaptureError> {
        self.pending.extend_from_slice(bytes);
        while let Some((kind, length)) = head(&self.pending)? {
            let Some(block) = self.pending.get(..length) else {
                break;
            };
            let larger = self.bytes + length as u64;
            if kind == PACKET && (larger > self.args.size || self.packets >= self.args.count) {
                return Ok(ControlFlow::Break(()));
            }
            if let Err(source) = self.file.write_all(block) {
                // Whoever reads the pipe has had enough.
                if source.kind() == io::ErrorKind::BrokenPipe {
                    self.is_unread = true;
                    return Ok(ControlFlow::Break(()));
                }
                // Half a block would be no capture any more.
                let _ = self.file.set_len(self.bytes);
                let _ = self.file.seek(io::SeekFrom::Start(self.bytes));
                return Err(CaptureError::Write {
                    path: self.args.write.clone(),
                    packets: self.packets,
                    source,
                });
            }
            self.pending.drain(..length);
            self.bytes = larger;
            self.packets += u64::from(kind == PACKET);
            if self.packets >= self.args.count {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The file to write. A pipe or a device that is there is written to; a file that is there is somebody's, and a link may lead to one.
fn open(args: &Args) -> Result<File, CaptureError> {
    let path = &args.write;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CaptureError::Exists(path.clone()),
        _ => CaptureError::Open {
            path: path.clone(),
            source,
        },
    };
    if is_stdout(path) {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(CaptureError::Terminal);
        }
        let stdout = stdout.as_fd().try_clone_to_owned();
        return stdout.map(File::from).map_err(failed);
    }
    let mut options = OpenOptions::new();
    options.write(true);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() && !found.is_symlink() => {}
        Ok(_) if args.force => {
            fs::remove_file(path).map_err(failed)?;
            options.create_new(true).mode(0o600);
        }
        // What is wrong with one that cannot be looked at, opening it tells.
        Ok(_) | Err(_) => {
            options.create_new(true).mode(0o600);
        }
    }
    options.open(path).map_err(failed)
}

fn name(path: &Path) -> String {
    match path {
        path if is_stdout(path) => "standard output".to_owned(),
        path => path.display().to_string(),
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// A block's type and length; `None` where its head is not there yet. The daemon writes little-endian.
fn head(bytes: &[u8]) -> Result<Option<(u32, usize)>, CaptureError> {
    let Some(([a, b, c, d, e, f, g, h], _)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let kind = u32::from_le_bytes([*a, *b, *c, *d]);
    let length = u32::from_le_bytes([*e, *f, *g, *h]);
    if !(12..=MAX_BLOCK).contains(&length) {
        return Err(CaptureError::Block(length));
    }
    Ok(Some((kind, length as usize)))
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("{text:?} is no number of bytes, like 500K or 100M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(directory: &Path, count: u64, size: u64) -> Args {
        Args {
            drops: true,
            signalling: false,
            call: None,
            write: directory.join("file"),
            force: true,
            count,
            seconds: 1,
            size,
        }
    }

    fn block(kind: u32, length: u32) -> Vec<u8> {
        let mut block = vec![0; length as usize];
        block[..4].copy_from_slice(&kind.to_le_bytes());
        block[4..8].copy_from_slice(&length.to_le_bytes());
        block
    }

    #[test]
    fn only_whole_blocks_are_written_and_no_more_than_allowed() {
        let directory = tempfile::tempdir().expect("a directory");
        let stream = [block(1, 28), block(PACKET, 40), block(PACKET, 60)].concat();
        for (count, size, packets, bytes) in [
            (9, 1_000, 2, 128),
            (1, 1_000, 1, 68),
            (9, 127, 1, 68),
            (9, 68, 1, 68),
            (9, 67, 0, 28),
        ] {
            let args = args(directory.path(), count, size);
            let mut file = Blocks::create(&args).expect("a file");
            for piece in stream.chunks(7) {
                if file.take(piece).expect("room").is_break() {
                    break;
                }
            }
            assert_eq!((file.packets, file.bytes), (packets, bytes));
            let written = std::fs::read(&args.write).expect("the file");
            assert_eq!(written, stream[..bytes as usize]);
        }
    }

    #[test]
    fn a_full_disk_is_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut args = args(directory.path(), 9, 1_000);
        args.write = "/dev/full".into();
        let mut file = Blocks::create(&args).expect("a device");
        let error = file.take(&block(1, 28)).expect_err("it is full");
        let text = error.to_string();
        assert!(
            text.contains("/dev/full") && text.contains("valid capture"),
            "{text}"
        );
        args.write = directory.path().join("no/such/directory");
        let error = Blocks::create(&args).err().expect("no directory");
        assert!(error.to_string().contains("no/such/directory"), "{error}");
    }

    #[test]
    fn a_file_that_is_there_is_not_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut args = args(directory.path(), 9, 1_000);
        let (file, link) = (args.write.clone(), directory.path().join("link"));
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        fs::write(&file, "mine").expect("a file");
        args.force = false;
        for path in [&link, &file] {
            args.write.clone_from(path);
            let error = Blocks::create(&args).err().expect("it is there");
            assert!(error.to_string().contains("--force"), "{error}");
        }
        // What the link leads to stays, even then.
        args.force = true;
        args.write.clone_from(&link);
        Blocks::create(&args).expect("a new file");
        assert_eq!(fs::read(&file).expect("the file"), b"mine");
        args.write.clone_from(&file);
        Blocks::create(&args).expect("a new file");
        assert_eq!(fs::read(&file).expect("the file"), b"");
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for length in [0, 11, MAX_BLOCK + 1] {
            assert!(
                head(
                    &[6, 0, 0, 0]
                        .into_iter()
                        .chain(length.to_le_bytes())
                        .collect::<Vec<_>>()
                )
                .is_err()
            );
        }
        assert!(matches!(head(&[0; 7]), Ok(None)));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("12"), Ok(12));
        assert_eq!(size("2K"), Ok(2_048));
        assert_eq!(size("100M"), Ok(100 << 20));
        for wrong in ["", "0", "M", "1T", "-1", "99999999999G", "é"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
