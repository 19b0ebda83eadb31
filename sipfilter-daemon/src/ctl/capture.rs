//! `sipfilterctl capture`: packets into a pcapng file, each with verdict and reason in its comment.
//!
//! The daemon makes the blocks, this program counts them and writes whole ones only. Invariant: however it ends (limits, Ctrl-C, a full
//! disk, the end of the daemon), what is in the file by then is a valid capture.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    CtlError, Outcome, call_record,
    client::{self, ClientError, Ended},
    output,
};
use crate::{
    shell::api,
    view::{self, Captured, Drops},
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
    /// The file to write, readable for its owner alone; one that is there is overwritten
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
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

pub(super) fn run(
    args: &Args,
    runtime_dir: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, CtlError> {
    let resource = match &args.call {
        Some(id) => match call_record::number(id, runtime_dir) {
            Ok(number) => format!("/v1/capture?call={number}"),
            Err(ClientError::Unknown(error)) => {
                if json {
                    output::json(out, &view::Failure { error })?;
                } else {
                    writeln!(out, "{error}")?;
                }
                return Ok(Outcome::No);
            }
            Err(error) => return Err(error.into()),
        },
        None if args.drops => "/v1/capture?of=drops".to_owned(),
        None => "/v1/capture?of=signalling".to_owned(),
    };
    let before = dropped(runtime_dir)?;
    let mut file = Blocks::create(args)?;
    let limit = Some(Duration::from_secs(args.seconds));
    let ended = client::follow(runtime_dir, api::ADMIN.0, &resource, limit, |bytes| {
        file.take(bytes).map_err(CtlError::from)
    })?;
    let ended = match ended {
        Ended::Daemon => "daemon",
        Ended::Signal => "signal",
        Ended::Time => "seconds",
        Ended::Reader if file.packets >= args.count => "count",
        Ended::Reader => "size",
    };
    // A daemon that has ended tells no more.
    let after = dropped(runtime_dir).unwrap_or(before);
    let captured = Captured {
        file: args.write.display().to_string(),
        packets: file.packets,
        bytes: file.bytes,
        ended: ended.to_owned(),
        dropped_packets: after.0.saturating_sub(before.0),
        dropped_samples: after.1.saturating_sub(before.1),
    };
    if json {
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
        _ => "ended by a signal",
    };
    let mut text = format!(
        "{}: {} packets, {} bytes; {why}",
        captured.file, captured.packets, captured.bytes
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
}

/// An Enhanced Packet Block (pcapng §4.3).
const PACKET: u32 = 6;
/// Type and length.
const HEAD: usize = 8;
/// No block of the daemon's is longer: a packet, its comment, and what surrounds them.
const MAX_BLOCK: u32 = 128 * 1024;

impl<'a> Blocks<'a> {
    fn create(args: &'a Args) -> Result<Self, CaptureError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options
            .open(&args.write)
            .map_err(|source| CaptureError::Open {
                path: args.write.clone(),
                source,
            })?;
        Ok(Self {
            args,
            file,
            pending: Vec::new(),
            packets: 0,
            bytes: 0,
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
