//! The runtime directory: one daemon at a time, by a lock that dies with its process.
//!
//! A daemon with privileges writes there, so that nobody else may: a directory that another user prepared could send its files anywhere.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    process::geteuid,
};

/// Where it is unless the operator says otherwise.
pub const DEFAULT: &str = "/run/sipfilter";

/// The lock's name in it.
const LOCK: &str = "lock";

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
    /// Somebody else can change what is in it.
    #[error(
        "runtime directory {path}: {whose}, who could put links in it; give one under /run, or one that only this user may write, with --runtime-dir DIR"
    )]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Who it is.
        whose: String,
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
    lock: File,
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
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(path).map_err(unusable)?;
        // Where the path is a link, both the link and what it names.
        for found in [fs::symlink_metadata(path), fs::metadata(path)] {
            if let Some(whose) = stranger(&found.map_err(unusable)?) {
                return Err(RuntimeDirError::Untrusted {
                    path: path.to_owned(),
                    whose,
                });
            }
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RuntimeDirError::InUse {
                path: path.to_owned(),
            }),
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    /// Makes it again where somebody has taken it or its lock away.
    ///
    /// # Errors
    /// [`RuntimeDirError`], also where another daemon has made its own by now.
    pub fn restore(&mut self) -> Result<(), RuntimeDirError> {
        let place = |found: Metadata| (found.dev(), found.ino());
        let held = self.lock.metadata().map(place).ok();
        let there = fs::symlink_metadata(self.path.join(LOCK)).map(place).ok();
        if held.is_none() || held != there {
            *self = Self::lock(&self.path)?;
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Who besides root and this user can change what is there.
fn stranger(found: &Metadata) -> Option<String> {
    const OTHERS_MAY_WRITE: u32 = 0o002;
    const GROUP_MAY_WRITE: u32 = 0o020;
    let owner = found.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!("it belongs to user {owner}"));
    }
    // The mode of a link says nothing.
    if found.is_symlink() {
        return None;
    }
    if found.mode() & OTHERS_MAY_WRITE != 0 {
        return Some("everybody may write to it".to_owned());
    }
    // Whoever is in the group that may read the control socket is not to put another one in the place of the admin socket.
    let group = found.gid();
    (found.mode() & GROUP_MAY_WRITE != 0 && group != 0)
        .then(|| format!("group {group} may write to it"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory of this test's own, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sfrt-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn one_daemon_at_a_time() {
        let scratch = Scratch::new("one");
        let path = scratch.0.join("new/deep");
        let first = RuntimeDir::lock(&path).unwrap();
        assert!(matches!(
            RuntimeDir::lock(&path),
            Err(RuntimeDirError::InUse { .. })
        ));
        drop(first);
        RuntimeDir::lock(&path).unwrap();
    }

    #[test]
    fn what_was_taken_away_is_made_and_locked_again() {
        let scratch = Scratch::new("gone");
        let path = scratch.0.join("run");
        let mut first = RuntimeDir::lock(&path).unwrap();
        first.restore().unwrap();
        fs::remove_dir_all(&path).unwrap();
        first.restore().unwrap();
        assert!(matches!(
            RuntimeDir::lock(&path),
            Err(RuntimeDirError::InUse { .. })
        ));
        fs::remove_dir_all(&path).unwrap();
        let _second = RuntimeDir::lock(&path).unwrap();
        assert!(matches!(
            first.restore(),
            Err(RuntimeDirError::InUse { .. })
        ));
    }

    #[test]
    fn a_directory_that_everybody_may_write_is_refused() {
        let scratch = Scratch::new("open");
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(
            RuntimeDir::lock(&scratch.0),
            Err(RuntimeDirError::Untrusted { .. })
        ));
    }

    #[test]
    fn a_directory_that_a_group_may_write_is_refused() {
        if !geteuid().is_root() {
            // Only root can give directories to any group.
            return;
        }
        let scratch = Scratch::new("group");
        std::os::unix::fs::chown(&scratch.0, None, Some(65_534)).unwrap();
        RuntimeDir::lock(&scratch.0).unwrap();
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o2770)).unwrap();
        let error = RuntimeDir::lock(&scratch.0).unwrap_err();
        assert!(error.to_string().contains("group 65534"), "{error}");
        // One that is made here is not refused, whatever the group and the mask are.
        RuntimeDir::lock(&scratch.0.join("new")).unwrap();
    }

    #[test]
    fn a_directory_or_a_link_of_another_user_is_refused() {
        if !geteuid().is_root() {
            // Only root can give files away.
            return;
        }
        let scratch = Scratch::new("foreign");
        let (theirs, ours, link) = (
            scratch.0.join("theirs"),
            scratch.0.join("ours"),
            scratch.0.join("link"),
        );
        fs::create_dir(&theirs).unwrap();
        fs::create_dir(&ours).unwrap();
        symlink(&ours, &link).unwrap();
        RuntimeDir::lock(&link).unwrap();
        for path in [&theirs, &link] {
            std::os::unix::fs::lchown(path, Some(65_534), None).unwrap();
            let error = RuntimeDir::lock(path).unwrap_err();
            assert!(error.to_string().contains("user 65534"), "{error}");
        }
    }

    #[test]
    fn a_lock_that_is_a_link_is_not_followed() {
        let scratch = Scratch::new("link");
        let victim = scratch.0.join("victim");
        fs::write(&victim, "precious").unwrap();
        let path = scratch.0.join("run");
        fs::create_dir(&path).unwrap();
        symlink(&victim, path.join("lock")).unwrap();
        assert!(matches!(
            RuntimeDir::lock(&path),
            Err(RuntimeDirError::Unusable { .. })
        ));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
