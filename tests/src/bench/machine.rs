//! The machine that measures and the day on which it does: figures mean nothing without them.

use std::{fmt, fs, process::Command};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::lab::namespace;

/// What a reader must know to compare figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The day, as YYYY-MM-DD in UTC.
    pub date: String,
    /// The processor's model.
    pub cpu: String,
    /// Processors that are online.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Whether a hypervisor is underneath.
    pub virtual_machine: bool,
    /// How many programs wanted a processor in the minute before; others' work makes figures worse.
    pub load: f64,
}

impl Machine {
    /// Asks `/proc` and `date`.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn look() -> Result<Self> {
        let cpuinfo = read("/proc/cpuinfo")?;
        let field = |name: &str| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
        };
        let memory = read("/proc/meminfo")?;
        let kib = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        Ok(Self {
            date: namespace::run(Command::new("date").args(["-u", "+%F"]))?
                .trim()
                .to_owned(),
            cpu: field("model name")
                .or_else(|| field("Model"))
                .unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            virtual_machine: field("flags")
                .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
            load: read("/proc/loadavg")?
                .split_whitespace()
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
        })
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.virtual_machine {
            " (virtual machine)"
        } else {
            ""
        };
        write!(
            f,
            "{}: {}, {} cores, {} MiB{kind}, Linux {}, load {:.1}",
            self.date, self.cpu, self.cores, self.memory_mib, self.kernel, self.load
        )
    }
}
