//! What crosses the edge's outer link, recorded and written as a capture file, for `sipfilterctl simulate` and for looking at.
//!
//! The recorder listens at the other end of the link, where every frame towards the edge is seen before a filter can drop it: what it
//! holds is exactly what the filter was asked about, in the same order. Times are those of reading, a moment later. The kernel takes a
//! VLAN tag out of a frame before a packet socket sees it, so that on a tagged link this is no copy of the wire.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    link::Link,
    topology::{Network, OUTER_PEER},
};

/// Where this names a directory, captures and their configurations are kept there.
const KEEP: &str = "SIPFILTER_LAB_CAPTURES";
const ETHERNET_HEADER: usize = 14;

/// A running recorder.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Frame>>,
}

#[derive(Debug)]
struct Frame {
    /// Since 1970.
    time: Duration,
    bytes: Vec<u8>,
}

impl Capture {
    /// Starts recording.
    ///
    /// # Errors
    /// Without root's privileges.
    pub fn start(network: &Network) -> Result<Self> {
        let link = Link::port(&network.switch, OUTER_PEER)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut frames = Vec::new();
            let mut buffer = vec![0_u8; 65_536];
            loop {
                match link.receive(&mut buffer) {
                    Some(bytes) => frames.push(Frame {
                        time: SystemTime::now()
                            .duration_since(SystemTime::UNIX_EPOCH)
                            .unwrap_or_default(),
                        bytes: bytes.to_vec(),
                    }),
                    None if stopped.load(Ordering::Relaxed) => return frames,
                    None => {}
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// Stops once the link is idle.
    ///
    /// # Errors
    /// Where the recording thread panicked.
    pub fn finish(self) -> Result<Film> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map(Film)
            .map_err(|_| anyhow!("the recorder panicked"))
    }
}

/// What frames in a capture file begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkLayer {
    /// As they were.
    Ethernet,
    /// With a VLAN tag (IEEE 802.1Q).
    Vlan,
    /// With a service tag and a customer tag (IEEE 802.1ad).
    Tagged2,
    /// Linux cooked, version 1.
    Cooked,
    /// Linux cooked, version 2.
    Cooked2,
    /// The IP packet alone; other frames are left out.
    Raw,
}

impl LinkLayer {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ethernet,
        Self::Vlan,
        Self::Tagged2,
        Self::Cooked,
        Self::Cooked2,
        Self::Raw,
    ];

    /// The tcpdump project's number for it.
    fn number(self) -> u32 {
        match self {
            Self::Ethernet | Self::Vlan | Self::Tagged2 => 1,
            Self::Cooked => 113,
            Self::Cooked2 => 276,
            Self::Raw => 101,
        }
    }

    fn of_ethernet(self, frame: &[u8]) -> Option<Vec<u8>> {
        let (header, packet) = frame.split_at_checked(ETHERNET_HEADER)?;
        let (addresses, ethertype) = header.split_at(12);
        let tagged = |tags: &[u8]| [addresses, tags, ethertype, packet].concat();
        Some(match self {
            Self::Ethernet => frame.to_vec(),
            Self::Vlan => tagged(&[0x81, 0, 0, 5]),
            Self::Tagged2 => tagged(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5]),
            // Received for us, Ethernet, a source address of six bytes and two of padding.
            Self::Cooked => [
                &[0, 0, 0, 1, 0, 6],
                &addresses[6..],
                &[0, 0],
                ethertype,
                packet,
            ]
            .concat(),
            Self::Cooked2 => [
                ethertype,
                &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6],
                &addresses[6..],
                &[0, 0],
                packet,
            ]
            .concat(),
            Self::Raw if matches!(ethertype, [0x08, 0x00] | [0x86, 0xdd]) => packet.to_vec(),
            Self::Raw => return None,
        })
    }
}

/// The frames of a finished recording.
#[derive(Debug)]
pub struct Film(Vec<Frame>);

impl Film {
    /// The frames, in their order.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|frame| frame.bytes.as_slice())
    }

    /// Writes a capture file (draft-ietf-opsawg-pcap) with times in nanoseconds.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, file: &Path, link: LinkLayer) -> Result<()> {
        let write = || {
            let mut out = BufWriter::new(File::create(file)?);
            for word in [
                0xa1b2_3c4d,
                u32::from_le_bytes([2, 0, 4, 0]),
                0,
                0,
                262_144,
                link.number(),
            ] {
                out.write_all(&word.to_le_bytes())?;
            }
            for Frame { time, bytes } in &self.0 {
                let Some(bytes) = link.of_ethernet(bytes) else {
                    continue;
                };
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
                for word in [seconds, time.subsec_nanos(), length, length] {
                    out.write_all(&word.to_le_bytes())?;
                }
                out.write_all(&bytes)?;
            }
            out.flush()
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    /// Keeps it as `NAME.pcap` beside `NAME.toml`, the filter's configuration, if captures are wanted.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn keep(&self, name: &str, config: &str) -> Result<()> {
        let Some(directory) = std::env::var_os(KEEP) else {
            return Ok(());
        };
        let directory = Path::new(&directory);
        fs::create_dir_all(directory)?;
        fs::write(directory.join(format!("{name}.toml")), config)?;
        self.write(&directory.join(format!("{name}.pcap")), LinkLayer::Ethernet)
    }
}
