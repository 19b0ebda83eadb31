//! Why programs cannot be loaded or attached, and what to do about it.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, xdp::XdpError},
};

use super::occupied::Occupied;
use crate::shell::pins::PinError;

/// Why the datapath could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel refused the object.
    #[error("the kernel refused the programs: {0}{hint}", hint = privilege_hint(.0))]
    Load(#[from] EbpfError),
    /// A program could not be loaded.
    #[error("program {name}: {source}{hint}", hint = program_hint(.source))]
    Program {
        /// The program.
        name: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// A program could not be attached.
    #[error("cannot attach to interface {interface:?} ({mode}): {source}{hint}", hint = program_hint(.source))]
    Attach {
        /// The interface.
        interface: String,
        /// How it was tried.
        mode: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// Somebody else's XDP program is there.
    #[error(transparent)]
    Occupied(Box<Occupied>),
    /// The interface does not exist.
    #[error(
        "interface {0:?} does not exist; `ip link` lists those that do; correct `interfaces` in the configuration"
    )]
    NoInterface(String),
    /// The kernel does not say whether the interface is there.
    #[error("cannot ask for interface {interface:?}: {source}")]
    Unasked {
        /// The interface.
        interface: String,
        /// What it said.
        source: io::Error,
    },
    /// The interface has no Ethernet header in front of its packets: the programs would take every packet for something else.
    #[error(
        "interface {0:?} is no Ethernet: packets of tunnels, PPP and the like cannot be filtered yet; name the Ethernet interface on which plain IP arrives"
    )]
    NotEthernet(String),
    /// A map is missing from the object or cannot be written.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: Box<MapError>,
    },
    /// The object has no such map or program.
    #[error(
        "the eBPF object has no {0}; it was built from another version of sipfilter: rebuild with `cargo xtask build`"
    )]
    Missing(&'static str),
    /// A link could not be kept.
    #[error("link {path}: {source}")]
    Link {
        /// Where it is pinned, or was to be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What this run has pinned is there no more.
    #[error(
        "the maps that this run has pinned at {path} are gone, or another's; restart sipfilterd"
    )]
    NotOurs {
        /// Where they were.
        path: PathBuf,
    },
    /// There would be less room for pinholes than there are.
    #[error(
        "`pinholes = {limit}` under [limits] is less than the {open} that are open; write at least {open}, or wait for calls to end"
    )]
    TooManyPinholes {
        /// How many there are.
        open: usize,
        /// How many there would be room for.
        limit: u32,
    },
    /// The kernel cannot change how a program is attached.
    #[error(
        "`mode = \"{wanted}\"` under [xdp]: {interface} is filtered in {found} mode, which the kernel cannot change without a moment unfiltered; restart sipfilterd for it"
    )]
    OtherMode {
        /// The interface.
        interface: String,
        /// How the programs are attached there.
        found: &'static str,
        /// How they should be.
        wanted: String,
    },
    /// Pinning failed.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl DatapathError {
    /// What the kernel said of this map.
    pub fn of_map(name: &'static str) -> impl Fn(MapError) -> Self + Copy {
        move |source| Self::Map {
            name,
            source: Box::new(source),
        }
    }

    /// What it said of this program.
    pub(super) fn of_program(name: &'static str) -> impl Fn(ProgramError) -> Self + Copy {
        move |source| Self::Program {
            name,
            source: Box::new(source),
        }
    }
}

pub(super) fn is_occupied(error: &ProgramError) -> bool {
    os_error(error).is_some_and(means_occupied)
}

fn means_occupied(code: i32) -> bool {
    code == rustix::io::Errno::BUSY.raw_os_error()
        || code == rustix::io::Errno::EXIST.raw_os_error()
}

pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(cause) = error {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        error = cause.source();
    }
    None
}

fn privilege_hint(error: &EbpfError) -> &'static str {
    errno_hint(os_error(error))
}

fn program_hint(error: &ProgramError) -> &'static str {
    if let ProgramError::XdpError(XdpError::NetlinkError(_)) = error {
        return "";
    }
    errno_hint(os_error(error))
}

fn errno_hint(code: Option<i32>) -> &'static str {
    let Some(code) = code else { return "" };
    if code == rustix::io::Errno::PERM.raw_os_error()
        || code == rustix::io::Errno::ACCESS.raw_os_error()
    {
        "; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    } else if means_occupied(code) {
        "; another XDP program is attached: `ip -details link show` names it; stop its owner, or detach it with `ip link set dev … xdp off`"
    } else if code == rustix::io::Errno::OPNOTSUPP.raw_os_error() {
        "; the driver has no native XDP: set `mode = \"generic\"` or \"auto\" under [xdp]"
    } else {
        ""
    }
}
