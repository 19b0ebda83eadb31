//! The runtime directory: one daemon at a time, by a lock that dies with its process.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Where it is unless the operator says otherwise.
pub const DEFAULT: &str = "/run/sipfilter";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It cannot be made or written.
    #[error(
        "runtime directory {path}: {source}; give one that this user may write with --runtime-dir DIR"
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "another sipfilterd uses the runtime directory {path}; give each one its own with --runtime-dir DIR"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// The lock; dropping it frees the directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    _lock: File,
}

impl RuntimeDir {
    /// Makes the directory if need be, and locks it.
    ///
    /// # Errors
    /// [`RuntimeDirError`].
    pub fn lock(path: &Path) -> Result<Self, RuntimeDirError> {
        let unusable = |source| RuntimeDirError::Unusable {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(unusable)?;
        let lock = File::create(path.join("lock")).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RuntimeDirError::InUse {
                path: path.to_owned(),
            }),
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
