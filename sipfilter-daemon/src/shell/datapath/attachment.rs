//! The programs on interfaces: links that are pinned, so that they outlive the process, and that change their program in one step.
//!
//! The file names say which interface and how: `xdp_native_4`, `egress_4`. Kernels before 6.6 have no such link for TC; there the filter
//! stays attached by itself, is replaced in place, and a pinned program named `filter_4` says that it is ours. Which programs are right is not
//! decided here. Invariant: where something of ours is attached it is replaced, never taken away and put back, unless the operator asks for
//! another mode of XDP, which the kernel cannot change.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaXdpMode,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle},
        xdp::{XdpLink, XdpLinkId},
    },
    util::KernelVersion,
};
use sipfilter_common::abi::program;

use super::{
    Attached, Datapath, DatapathError, Occupied,
    error::{is_occupied, os_error},
};
use crate::{
    config::XdpMode,
    error_text,
    shell::{
        interface::{self, Index},
        pins::{Pins, remove_pin},
    },
};

/// Where our filter is among those of TC: found again by whoever comes next.
const FILTER: tc::NlOptions = tc::NlOptions {
    priority: 0x5350,
    handle: TcHandle::new(0, 0x5350),
    classid: None,
};

/// How long the kernel may take to let go of a link whose file is gone: a grace period and a turn of its worker, on a busy machine.
const LET_GO: Duration = Duration::from_millis(500);

const NATIVE: &str = "xdp_native_";
const GENERIC: &str = "xdp_generic_";
const EGRESS: &str = "egress_";
const FILTERED: &str = "filter_";

/// An interface that something is pinned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The interface.
    pub index: Index,
}

impl Datapath {
    /// Attaches both programs to an interface for as long as this value lives: for a test of the programs alone.
    ///
    /// # Errors
    /// [`DatapathError::NoInterface`] or [`DatapathError::Attach`]; nothing stays attached to this interface then.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, DatapathError> {
        interface::check(interface)?;
        // Egress first: the first call's offer may leave while ingress attaches.
        let egress = self.attach_egress(interface)?;
        match self.attach_ingress(interface, mode) {
            Ok((_, attached)) => Ok(attached),
            Err(error) => {
                let program: &mut SchedClassifier = self.program(program::EGRESS)?;
                // The first error is the one to report.
                let _ = program.detach(egress);
                Err(error)
            }
        }
    }

    /// Puts both programs on an interface, in the place of any others of this instance, to stay there when the process ends.
    ///
    /// # Errors
    /// [`DatapathError::NoInterface`] or [`DatapathError::Attach`]; what was attached before still is.
    pub fn attach_pinned(
        &mut self,
        pins: &Pins,
        interface: &str,
        mode: XdpMode,
    ) -> Result<Attached, DatapathError> {
        let index = interface::check(interface)?;
        let is_new = self.pin_egress(pins, interface, index)?;
        self.pin_ingress(pins, interface, index, mode)
            .inspect_err(|_| {
                if is_new {
                    detach_egress(pins, index);
                }
            })
    }

    /// Puts both programs in the place of others on every interface where this instance is attached.
    ///
    /// # Errors
    /// [`DatapathError`]; some interfaces may have these programs then, and others their old ones.
    pub fn replace(&mut self, pins: &Pins) -> Result<(), DatapathError> {
        for Attachment { index } in attachments(pins) {
            // A link whose interface is gone is nobody's.
            let Some(name) = interface::name(index) else {
                continue;
            };
            self.pin_egress(pins, &name, index)?;
            for prefix in [NATIVE, GENERIC] {
                let path = pins.path(&file(prefix, index));
                if path.exists() {
                    self.update_ingress(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Puts these programs in the place of `old`, and where nothing of this instance is yet: on all of these interfaces, or on none.
    /// Each packet meets either the old or the new programs.
    ///
    /// # Errors
    /// [`DatapathError`]; everything is as it was then.
    pub fn take_over(
        &mut self,
        old: &mut Self,
        pins: &Pins,
        interfaces: &[String],
        mode: XdpMode,
    ) -> Result<Vec<(String, Attached)>, DatapathError> {
        let is_known = |index| attachments(pins).contains(&Attachment { index });
        let mut targets = Vec::new();
        for interface in interfaces {
            let index = interface::check(interface)?;
            check_mode(pins, interface, index, mode)?;
            targets.push((is_known(index), interface, index));
        }
        // Where nothing of ours is yet, somebody else may be.
        targets.sort_by_key(|(is_known, ..)| *is_known);
        let mut done = Vec::new();
        for &(is_known, interface, index) in &targets {
            match self.attach_pinned(pins, interface, mode) {
                Ok(attached) => done.push((is_known, interface, index, attached)),
                Err(error) => {
                    for (is_known, interface, index, _) in done {
                        if !is_known {
                            detach(pins, index);
                        } else if let Err(error) = old.attach_pinned(pins, interface, mode) {
                            tracing::error!(%error, interface, "the earlier programs could not be put back");
                        }
                    }
                    return Err(error);
                }
            }
        }
        let name = |(_, interface, _, attached): (_, &String, _, _)| (interface.clone(), attached);
        Ok(done.into_iter().map(name).collect())
    }

    fn pin_ingress(
        &mut self,
        pins: &Pins,
        interface: &str,
        index: Index,
        mode: XdpMode,
    ) -> Result<Attached, DatapathError> {
        for (prefix, attached, other) in [
            (NATIVE, Attached::Native, XdpMode::Generic),
            (GENERIC, Attached::Generic, XdpMode::Native),
        ] {
            let path = pins.path(&file(prefix, index));
            if !path.exists() {
                continue;
            }
            if mode != other && self.update_ingress(&path)? {
                return Ok(attached);
            }
            if mode == other {
                tracing::warn!(
                    interface,
                    "XDP changes its mode: for a moment, nothing is filtered"
                );
            }
            remove(&path)?;
        }
        let (link, attached) = self.attach_ingress(interface, mode)?;
        let program: &mut Xdp = self.program(program::INGRESS)?;
        let prefix = match attached {
            Attached::Native => NATIVE,
            Attached::Generic | Attached::Fallback { .. } => GENERIC,
        };
        let path = pins.path(&file(prefix, index));
        pin(&path, program.take_link(link))?;
        Ok(attached)
    }

    fn update_ingress(&mut self, path: &Path) -> Result<bool, DatapathError> {
        let program: &mut Xdp = self.program(program::INGRESS)?;
        update(path, |link: XdpLink| {
            let link = program.attach_to_link(link)?;
            program.take_link(link).map(drop)
        })
    }

    fn update_egress(&mut self, path: &Path) -> Result<bool, DatapathError> {
        let program: &mut SchedClassifier = self.program(program::EGRESS)?;
        update(path, |link: SchedClassifierLink| {
            let link = program.attach_to_link(link)?;
            program.take_link(link).map(drop)
        })
    }

    /// Tells whether it was not attached before.
    fn pin_egress(
        &mut self,
        pins: &Pins,
        interface: &str,
        index: Index,
    ) -> Result<bool, DatapathError> {
        if !has_tcx() {
            return self.pin_filter(pins, interface, index);
        }
        let path = pins.path(&file(EGRESS, index));
        if path.exists() {
            if self.update_egress(&path)? {
                return Ok(false);
            }
            remove(&path)?;
        }
        let link = self.attach_egress(interface)?;
        let program: &mut SchedClassifier = self.program(program::EGRESS)?;
        pin(&path, program.take_link(link))?;
        Ok(true)
    }

    fn pin_filter(
        &mut self,
        pins: &Pins,
        interface: &str,
        index: Index,
    ) -> Result<bool, DatapathError> {
        let path = pins.path(&file(FILTERED, index));
        let is_ours = path.exists();
        let mut replaced = None;
        if is_ours {
            let program: &mut SchedClassifier = self.program(program::EGRESS)?;
            let link = filter(interface).map_err(|error| lost(&path, error))?;
            // Where the filter is gone (with its interface, or by hand), there is nothing to replace.
            replaced = program.attach_to_link(link).ok();
            remove(&path)?;
        }
        let link = match replaced {
            Some(link) => link,
            None => self.attach_egress(interface)?,
        };
        let program: &mut SchedClassifier = self.program(program::EGRESS)?;
        let link = program
            .take_link(link)
            .map_err(|error| lost(&path, error))?;
        program.pin(&path).map_err(|error| lost(&path, error))?;
        // Dropped, it would detach; it holds nothing that could leak.
        std::mem::forget(link);
        Ok(!is_ours)
    }

    fn attach_ingress(
        &mut self,
        interface: &str,
        mode: XdpMode,
    ) -> Result<(XdpLinkId, Attached), DatapathError> {
        let program: &mut Xdp = self.program(program::INGRESS)?;
        let failed = |mode, source| {
            let found = interface::index(interface)
                .filter(|_| is_occupied(&source))
                .and_then(|index| Occupied::look(interface, index));
            match found {
                Some(occupied) => DatapathError::Occupied(Box::new(occupied)),
                None => DatapathError::Attach {
                    interface: interface.to_owned(),
                    mode,
                    source: Box::new(source),
                },
            }
        };
        let mut fallback = None;
        if mode != XdpMode::Generic {
            match once_free(|| program.attach(interface, AyaXdpMode::Driver)) {
                Ok(link) => return Ok((link, Attached::Native)),
                // A program that is there already is there in either mode: falling back would only hide who it is.
                Err(error) if mode == XdpMode::Native || is_occupied(&error) => {
                    return Err(failed("native XDP", error));
                }
                Err(error) => fallback = Some(error_text::with_causes(&error)),
            }
        }
        let link = once_free(|| program.attach(interface, AyaXdpMode::Skb))
            .map_err(|source| failed("generic XDP", source))?;
        let attached = match fallback {
            Some(why) => Attached::Fallback { why },
            None => Attached::Generic,
        };
        Ok((link, attached))
    }

    fn attach_egress(&mut self, interface: &str) -> Result<SchedClassifierLinkId, DatapathError> {
        let options = if has_tcx() {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            // The qdisc may be there already.
            let _ = tc::qdisc_add_clsact(interface);
            TcAttachOptions::Netlink(FILTER)
        };
        let program: &mut SchedClassifier = self.program(program::EGRESS)?;
        program
            .attach_with_options(interface, TcAttachType::Egress, options)
            .map_err(|source| DatapathError::Attach {
                interface: interface.to_owned(),
                mode: "TC egress",
                source: Box::new(source),
            })
    }
}

/// Has `replace` put a program into the link that is pinned there. Tells whether the link is alive: one whose interface is gone never is
/// again.
fn update<L: TryFrom<FdLink>>(
    path: &Path,
    replace: impl FnOnce(L) -> Result<(), ProgramError>,
) -> Result<bool, DatapathError> {
    let Some(link) = open(path)? else {
        return Ok(false);
    };
    let Ok(link) = L::try_from(link) else {
        no_link(path);
        return Ok(false);
    };
    match replace(link) {
        Ok(()) => Ok(true),
        Err(error) if is_defunct(&error) => Ok(false),
        Err(error) if is_no_link(&error) => {
            no_link(path);
            Ok(false)
        }
        Err(error) => Err(lost(path, error)),
    }
}

/// Pins a link that was just made.
fn pin<L>(path: &Path, link: Result<L, ProgramError>) -> Result<(), DatapathError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    let link = link.map_err(|error| lost(path, error))?;
    let link = FdLink::try_from(link).map_err(|error| lost(path, error))?;
    link.pin(path).map_err(|error| lost(path, error))?;
    Ok(())
}

/// Attaches, and where something is attached waits a moment for its end: the kernel lets go of a link some time after its file is
/// removed, and whoever stops a daemon and starts the next would find the first one's.
fn once_free<T>(mut attach: impl FnMut() -> Result<T, ProgramError>) -> Result<T, ProgramError> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match attach() {
            Err(error) if is_occupied(&error) && Instant::now() < deadline => {
                thread::sleep(LET_GO / 100);
            }
            result => return result,
        }
    }
}

/// The interfaces that something of this instance is attached to, or was when they were there.
pub fn attachments(pins: &Pins) -> Vec<Attachment> {
    let mut found: Vec<Attachment> = pins
        .files()
        .iter()
        .filter_map(|name| {
            let index = [NATIVE, GENERIC, EGRESS, FILTERED]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))?;
            Some(Attachment {
                index: Index(index.parse().ok()?),
            })
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether programs can take the place of those that are attached, as far as the mode goes.
fn check_mode(
    pins: &Pins,
    interface: &str,
    index: Index,
    mode: XdpMode,
) -> Result<(), DatapathError> {
    for (prefix, found, other) in [
        (NATIVE, "native", XdpMode::Generic),
        (GENERIC, "generic", XdpMode::Native),
    ] {
        if mode == other && pins.path(&file(prefix, index)).exists() {
            return Err(DatapathError::OtherMode {
                interface: interface.to_owned(),
                found,
                wanted: mode.to_string(),
            });
        }
    }
    Ok(())
}

/// Takes both programs of this instance off an interface, if they are there.
pub fn detach(pins: &Pins, index: Index) {
    for prefix in [NATIVE, GENERIC] {
        forget(&pins.path(&file(prefix, index)));
    }
    detach_egress(pins, index);
}

fn detach_egress(pins: &Pins, index: Index) {
    forget(&pins.path(&file(EGRESS, index)));
    let path = pins.path(&file(FILTERED, index));
    if path.exists() {
        if let Some(link) = interface::name(index).and_then(|name| filter(&name).ok()) {
            // A link that stands for a filter takes it away when it is dropped.
            drop(link);
        }
        forget(&path);
    }
}

fn filter(interface: &str) -> io::Result<SchedClassifierLink> {
    let tc::NlOptions {
        priority,
        handle,
        classid,
    } = FILTER;
    SchedClassifierLink::attached(interface, TcAttachType::Egress, priority, handle, classid)
}

/// TCX came with Linux 6.6; before it, filters hang on a clsact qdisc.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn file(prefix: &str, index: Index) -> String {
    format!("{prefix}{}", index.0)
}

/// `None` where a directory lies there, which the kernel would only say is not permitted.
fn open(path: &Path) -> Result<Option<FdLink>, DatapathError> {
    if path.is_dir() {
        no_link(path);
        return Ok(None);
    }
    PinnedLink::from_pin(path)
        .map(|link| Some(FdLink::from(link)))
        .map_err(|error| lost(path, error))
}

fn no_link(path: &Path) {
    tracing::warn!(path = %path.display(), "what is pinned there is no link of ours: removed, and attached anew");
}

fn remove(path: &Path) -> Result<(), DatapathError> {
    remove_pin(path).map_err(|source| DatapathError::Link {
        path: path.to_owned(),
        source,
    })
}

fn forget(path: &Path) {
    if let Err(error) = remove_pin(path) {
        tracing::error!(path = %path.display(), %error, "cannot detach: remove the file by hand");
    }
}

/// The interface is gone, and the link with it.
fn is_defunct(error: &ProgramError) -> bool {
    os_error(error) == Some(rustix::io::Errno::NOLINK.raw_os_error())
}

/// The kernel says so of an object of another kind.
fn is_no_link(error: &ProgramError) -> bool {
    os_error(error) == Some(rustix::io::Errno::INVAL.raw_os_error())
}

fn lost(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> DatapathError {
    DatapathError::Link {
        path: path.to_owned(),
        source: io::Error::other(error_text::with_causes(&error)),
    }
}
