//! Where the kernel objects of one instance are pinned, and how they are opened again.
//!
//! An instance is named after its runtime directory, so that the daemon and the control program find the same files without talking to
//! each other. Nothing is attached or loaded here (`datapath` does).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use aya::maps::{Map, MapData, MapError};
use rustix::{
    fs::{Access, FlockOperation, access, flock},
    io::Errno,
};
use sipfilter_common::{
    abi::{self, ABI_VERSION},
    value::Stamp,
};

/// Where the BPF file system is by convention.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The magic number of a BPF file system (`BPF_FS_MAGIC`).
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// The end of a name that is to take the place of the same without it.
const NEXT: &str = "_next";

/// Why pinned objects could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// No BPF file system, and none could be mounted.
    #[error("no BPF file system at {BPFFS} ({source}); as root: mount -t bpf bpf {BPFFS}")]
    NoBpffs {
        /// What mounting said.
        source: io::Error,
    },
    /// The instance's directory cannot be written.
    #[error(
        "the maps at {path} cannot be pinned: {source}; remount it for writing (mount -o remount,rw {BPFFS}), or let the unit write there \
         (ReadWritePaths={BPFFS})"
    )]
    Unwritable {
        /// The instance's directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A daemon that lives has them, though not the runtime directory's lock.
    #[error(
        "another sipfilterd has the maps at {path}, though its runtime directory was taken away; stop it, or give this one another \
         directory with --runtime-dir DIR"
    )]
    InUse {
        /// The instance's directory.
        path: PathBuf,
    },
    /// Nothing is pinned for this instance.
    #[error(
        "nothing is pinned at {path}: no sipfilterd has run with this runtime directory since the last boot"
    )]
    Absent {
        /// The instance's directory.
        path: PathBuf,
    },
    /// The pinned maps belong to another version of sipfilter.
    #[error(
        "the maps at {path} have ABI version {found}, this program reads version {ABI_VERSION}; \
         use the sipfilterctl of the sipfilterd that made them, or restart sipfilterd"
    )]
    WrongAbi {
        /// The instance's directory.
        path: PathBuf,
        /// The version found.
        found: u16,
    },
    /// A file-system operation failed.
    #[error("{path}: {source}")]
    File {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A map could not be opened or read.
    #[error("map {name} at {path}: {source}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// The instance's directory.
        path: PathBuf,
        /// What the system said.
        source: Box<MapError>,
    },
}

/// The pinned objects of one instance.
#[derive(Debug, Clone)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The pins of the instance that uses this runtime directory.
    pub fn of_runtime_dir(runtime_dir: &Path) -> Self {
        let canonical = fs::canonicalize(runtime_dir).unwrap_or_else(|_| runtime_dir.to_path_buf());
        Self {
            directory: Path::new(BPFFS)
                .join("sipfilter")
                .join(instance_name(&canonical)),
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of one map.
    pub fn path(&self, map: &str) -> PathBuf {
        self.directory.join(map)
    }

    /// Where a map or program lies until it takes the place of its predecessor.
    pub fn next_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{NEXT}"))
    }

    /// What lies in the directory.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    }

    /// Puts a map or program in the place of its predecessor, in one step.
    ///
    /// # Errors
    /// [`PinError::File`].
    pub fn promote(&self, name: &str) -> Result<(), PinError> {
        let (next, path) = (self.next_path(name), self.path(name));
        if path.is_dir() {
            // A file takes no directory's place.
            remove_file(path.clone())?;
        }
        fs::rename(&next, path).map_err(|source| PinError::File { path: next, source })
    }

    /// Removes a map, if it is there.
    ///
    /// # Errors
    /// [`PinError::File`].
    pub fn remove_map(&self, name: &str) -> Result<(), PinError> {
        remove_file(self.path(name))
    }

    /// Removes what never took its predecessor's place.
    ///
    /// # Errors
    /// [`PinError::File`].
    pub fn remove_pending(&self) -> Result<(), PinError> {
        let mut files = self.files().into_iter();
        files.try_for_each(|name| match name.ends_with(NEXT) {
            true => remove_file(self.path(&name)),
            false => Ok(()),
        })
    }

    /// The same for a load that has failed already: where that fails, too, the log says so.
    pub fn give_up_pending(&self) {
        if let Err(error) = self.remove_pending() {
            tracing::warn!(%error, "maps stay pinned");
        }
    }

    /// Makes sure that there is a BPF file system and the instance's directory in it.
    ///
    /// # Errors
    /// [`PinError::NoBpffs`] or [`PinError::File`].
    pub fn create(&self) -> Result<(), PinError> {
        if !is_bpffs(Path::new(BPFFS)) {
            rustix::mount::mount(
                "bpf",
                BPFFS,
                "bpf",
                rustix::mount::MountFlags::empty(),
                None,
            )
            .map_err(|errno| PinError::NoBpffs {
                source: errno.into(),
            })?;
        }
        // The kernel's own word for it names no path.
        fs::create_dir_all(&self.directory)
            .and_then(|()| Ok(access(&self.directory, Access::WRITE_OK)?))
            .map_err(|source| PinError::Unwritable {
                path: self.directory.clone(),
                source,
            })
    }

    /// Locks the directory, which must be there, for as long as the file is open. Somebody may take the runtime directory away, and its
    /// lock with it, under a daemon that lives; two that write the same maps would undo each other's pinholes.
    ///
    /// # Errors
    /// [`PinError::InUse`] or [`PinError::File`].
    pub fn lock(&self) -> Result<File, PinError> {
        let failed = |source| PinError::File {
            path: self.directory.clone(),
            source,
        };
        let directory = File::open(&self.directory).map_err(failed)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(directory),
            Err(Errno::WOULDBLOCK) => Err(PinError::InUse {
                path: self.directory.clone(),
            }),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Ends what an earlier run began that died while it put its objects in the place of their predecessors: the stamp is taken away first
    /// and put there last, so that without one everything that still waits belongs to what is there.
    ///
    /// # Errors
    /// [`PinError::File`].
    pub fn finish_commit(&self) -> Result<(), PinError> {
        let exists = |path: PathBuf| fs::symlink_metadata(path).is_ok();
        if exists(self.path(abi::map::STAMP)) || !exists(self.next_path(abi::map::STAMP)) {
            return Ok(());
        }
        let files = self.files();
        let waiting = files.iter().filter_map(|name| name.strip_suffix(NEXT));
        for name in waiting.filter(|name| *name != abi::map::STAMP) {
            self.promote(name)?;
        }
        self.promote(abi::map::STAMP)
    }

    /// The stamp of the pinned maps.
    ///
    /// # Errors
    /// [`PinError::Absent`], or [`PinError::Map`] if it cannot be read.
    pub fn stamp(&self) -> Result<Stamp, PinError> {
        let map = aya::maps::Array::<_, Stamp>::try_from(self.open_unchecked(abi::map::STAMP)?)
            .and_then(|array| array.get(&0, 0));
        map.map_err(|source| self.map_error(abi::map::STAMP, source))
    }

    /// Opens a pinned map after checking that it is of this program's ABI.
    ///
    /// # Errors
    /// [`PinError::Absent`], [`PinError::WrongAbi`] or [`PinError::Map`].
    pub fn open(&self, name: &'static str) -> Result<Map, PinError> {
        let found = self.stamp()?.abi_version;
        if found != ABI_VERSION {
            return Err(PinError::WrongAbi {
                path: self.directory.clone(),
                found,
            });
        }
        self.open_unchecked(name)
    }

    /// Removes everything that is pinned: links, too, so that programs detach. Maps live on while programs use them.
    ///
    /// # Errors
    /// [`PinError::File`].
    pub fn remove(&self) -> Result<(), PinError> {
        match fs::remove_dir_all(&self.directory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PinError::File {
                path: self.directory.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    fn open_unchecked(&self, name: &'static str) -> Result<Map, PinError> {
        let path = self.path(name);
        if let Err(source) = fs::symlink_metadata(&path) {
            return Err(match source.kind() {
                io::ErrorKind::NotFound => PinError::Absent {
                    path: self.directory.clone(),
                },
                _ => PinError::File { path, source },
            });
        }
        MapData::from_pin(path)
            .and_then(Map::from_map_data)
            .map_err(|source| self.map_error(name, source))
    }

    /// An error of one of the maps, with its place.
    pub fn map_error(&self, name: &'static str, source: MapError) -> PinError {
        PinError::Map {
            name,
            path: self.directory.clone(),
            source: Box::new(source),
        }
    }
}

fn remove_file(path: PathBuf) -> Result<(), PinError> {
    remove_pin(&path).map_err(|source| PinError::File { path, source })
}

/// Removes what is pinned there, if anything is; also a directory, which is nothing that we have made.
///
/// # Errors
/// What the system says.
pub fn remove_pin(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 & 0xffff_ffff == BPFFS_MAGIC)
}

/// A file name for a directory: its path in letters that bpffs allows, and a hash so that no two directories share one.
fn instance_name(directory: &Path) -> String {
    let text = directory.to_string_lossy();
    let readable: String = text
        .trim_matches('/')
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let tail = readable
        .get(readable.len().saturating_sub(48)..)
        .unwrap_or(&readable);
    format!(
        "{tail}-{:08x}",
        super::policy::fnv1a(text.as_bytes()) as u32
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_names_of_their_own_without_dots() {
        let names: Vec<String> = [
            "/run/sipfilter",
            "/run/sip_filter",
            "/run/sip.filter",
            "/run/sip/filter",
        ]
        .map(|d| instance_name(Path::new(d)))
        .into();
        for (index, name) in names.iter().enumerate() {
            assert!(!name.contains(['.', '/']), "{name}");
            assert!(!names[..index].contains(name), "{name} twice");
        }
    }
}
