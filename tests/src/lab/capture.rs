//! Captures of what stories put on the outer link, for `sipfilterctl simulate` and for looking at: where `SIPFILTER_LAB_CAPTURES` names
//! a directory, otherwise none are made.
//!
//! It is taken by tcpdump, so that times are the kernel's. No test depends on it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    cleanup,
    topology::{Network, OUTER},
};

const PATIENCE: Duration = Duration::from_secs(5);

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture(Child);

impl Capture {
    /// Captures `NAME.pcap` on the edge's outer interface until it is dropped, if captures are wanted; `NAME.toml` is the configuration
    /// with which a filter would have seen it.
    ///
    /// # Errors
    /// Where tcpdump is missing or the directory cannot be written.
    pub fn start(network: &Network, name: &str, config: &str) -> Result<Option<Self>> {
        let Some(directory) = std::env::var_os("SIPFILTER_LAB_CAPTURES") else {
            return Ok(None);
        };
        std::fs::create_dir_all(&directory)?;
        let file: PathBuf = Path::new(&directory).join(format!("{name}.pcap"));
        std::fs::write(Path::new(&directory).join(format!("{name}.toml")), config)?;
        let _ = std::fs::remove_file(&file);
        let child = network
            .edge
            .command("tcpdump")
            .args([
                "-Z",
                "root",
                "-U",
                "--immediate-mode",
                "-B",
                "8192",
                "-s",
                "0",
                "-ni",
                OUTER,
                "-w",
            ])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start tcpdump: install tcpdump")?;
        cleanup::register_child(child.id());
        let this = Self(child);
        let deadline = Instant::now() + PATIENCE;
        // The file's head is written once the interface is open.
        while std::fs::metadata(&file).map_or(0, |data| data.len()) == 0 {
            if Instant::now() > deadline {
                bail!("tcpdump wrote nothing to {}", file.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(this))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // What has arrived is written packet by packet; only the last ones need a moment.
        thread::sleep(Duration::from_millis(300));
        let _ = self.0.kill();
        let _ = self.0.wait();
        cleanup::forget_child(self.0.id());
    }
}
