//! Removal of what a lab has made, on every way out: drop, panic, SIGINT, SIGTERM, and the next start after a SIGKILL.
//!
//! Everything outside the process carries the process id in its name (`sfl-PID-…`), so a leftover can be told from a lab that is
//! running. Nothing without that prefix is ever touched.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

const PREFIX: &str = "sfl-";
const NETNS_DIR: &str = "/run/netns";
/// Where `sipfilterd` pins its maps, in a directory named after its runtime directory; they outlive it on purpose.
const PINS_DIR: &str = "/sys/fs/bpf/sipfilter";

static LIVE: Mutex<Live> = Mutex::new(Live {
    namespaces: BTreeSet::new(),
    directories: BTreeSet::new(),
    children: BTreeSet::new(),
});

struct Live {
    namespaces: BTreeSet<String>,
    directories: BTreeSet<PathBuf>,
    children: BTreeSet<u32>,
}

fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other lab has, in this process or another: `sfl-PID-N`.
#[must_use]
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{PREFIX}{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Installs the signal handler and removes what dead processes left behind; only the first call in a process does anything.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        remove_leftovers();
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                remove_everything();
                std::process::exit(128 + signal);
            }
        });
    });
}

/// Registers a namespace for removal on a signal.
pub fn register_namespace(name: &str) {
    live().namespaces.insert(name.to_owned());
}

/// Deletes a namespace; whatever still runs in it loses its network.
pub fn remove_namespace(name: &str) {
    delete_namespace(name);
    live().namespaces.remove(name);
}

/// Registers a running child, to be killed on a signal before its namespace goes.
pub fn register_child(id: u32) {
    live().children.insert(id);
}

/// Forgets a child that has been waited for.
pub fn forget_child(id: u32) {
    live().children.remove(&id);
}

/// A directory for configuration and logs, removed with its lab; kept where `SIPFILTER_LAB_KEEP` is set.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes the directory.
    ///
    /// # Errors
    /// Where the system's temporary directory cannot be written.
    pub fn create(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        live().directories.insert(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        live().directories.remove(&self.0);
        remove_directory(&self.0);
        remove_pins(&self.0);
    }
}

fn remove_directory(path: &Path) {
    if std::env::var_os("SIPFILTER_LAB_KEEP").is_none() {
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes the pinned maps of every daemon that had its runtime directory in this one.
fn remove_pins(directory: &Path) {
    let Some(name) = directory.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    // Pinned directories are named with everything but letters and digits replaced.
    let part = format!("{}_", name.replace('-', "_"));
    for entry in fs::read_dir(PINS_DIR).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(&part) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn delete_namespace(name: &str) {
    let _ = Command::new("ip")
        .args(["netns", "delete", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn remove_everything() {
    // The guard is kept, so that no other thread makes anything new while the process goes down.
    let live = live();
    for &id in &live.children {
        kill(id);
    }
    for name in &live.namespaces {
        delete_namespace(name);
    }
    for path in &live.directories {
        remove_directory(path);
        remove_pins(path);
    }
    std::mem::forget(live);
}

fn kill(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn remove_leftovers() {
    for name in leftovers(Path::new(NETNS_DIR)) {
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        for pid in pids
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
            .lines()
        {
            if let Ok(id) = pid.trim().parse() {
                kill(id);
            }
        }
        delete_namespace(&name);
    }
    let temporary = std::env::temp_dir();
    for name in leftovers(&temporary) {
        let path = temporary.join(name);
        remove_directory(&path);
    }
    for entry in fs::read_dir(PINS_DIR).into_iter().flatten().flatten() {
        if pins_owner(&entry.file_name().to_string_lossy()).is_some_and(is_dead) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn leftovers(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(is_dead))
        .collect()
}

fn is_dead(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// The process whose lab had the daemon that pinned under this name.
fn pins_owner(name: &str) -> Option<u32> {
    let (_, rest) = name.split_once(&PREFIX.replace('-', "_"))?;
    rest.split('_').next()?.parse().ok()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_the_prefix_and_a_pid_have_an_owner() {
        for (name, expect) in [
            ("sfl-12-0", Some(12)),
            ("sfl-12-3-edge", Some(12)),
            ("sfl-x-3-edge", None),
            ("edge", None),
            ("vpn-12-0", None),
        ] {
            assert_eq!(owner(name), expect, "{name}");
        }
        for (name, expect) in [
            ("tmp_sfl_12_0_sipfilter_run-25a0b54e", Some(12)),
            ("run_sipfilter-25a0b54e", None),
        ] {
            assert_eq!(pins_owner(name), expect, "{name}");
        }
        assert_eq!(owner(&unique_name()), Some(std::process::id()));
    }
}
