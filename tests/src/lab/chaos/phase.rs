//! What happens to the filter in each phase.
//!
//! A step ends when the daemon that it leaves is ready. What is lost meanwhile is not counted here.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::Run;
use crate::lab::{
    daemon::{self, Daemon, Mode, find_program},
    namespace::run,
    topology::{Attachments, Network, OUTER},
};

const NAME: &str = "sipfilter";
/// How long a daemon is away that is only restarted.
const AWAY: Duration = Duration::from_millis(300);
/// How long a configuration may take to be loaded, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that happens to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: what is measured without a filter.
    Nothing,
    /// `kill -9`, some seconds without a daemon, a start.
    Kill,
    /// SIGTERM with `on_stop = "keep"`, a start.
    Restart,
    /// SIGUSR2, and a copy of the binary at another path takes over.
    BinaryUpgrade,
    /// A daemon whose settings make another program of it, with maps of another size.
    ProgramUpgrade,
    /// SIGHUP with another configuration: other programs, and maps of another size.
    Reload,
    /// `sipfilterctl apply --confirm 5s` of another configuration, which nobody confirms.
    ApplyRollback,
    /// SIGTERM with `on_stop = "detach"`, a start: a moment without a filter, which a run must notice.
    Gap,
}

impl Phase {
    /// All that a filter must get through, in their order.
    pub const ALL: [Self; 6] = [
        Self::Kill,
        Self::Restart,
        Self::BinaryUpgrade,
        Self::ProgramUpgrade,
        Self::Reload,
        Self::ApplyRollback,
    ];

    /// As `--json` and `--phases` name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::BinaryUpgrade => "binary_upgrade",
            Self::ProgramUpgrade => "program_upgrade",
            Self::Reload => "reload",
            Self::ApplyRollback => "apply_rollback",
            Self::Gap => "gap",
        }
    }

    /// A few words for a person.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happens",
            Self::Kill => "kill -9, dead for a while, start",
            Self::Restart => "SIGTERM with on_stop = \"keep\", start",
            Self::BinaryUpgrade => "a copy of the binary takes over",
            Self::ProgramUpgrade => "another program, maps of another size",
            Self::Reload => "SIGHUP with another configuration",
            Self::ApplyRollback => "apply --confirm 5s, which nobody confirms",
            Self::Gap => "SIGTERM that detaches, start",
        }
    }
}

/// The daemon's configuration, and how it goes from one phase to the next.
pub struct Step<'a> {
    network: &'a Network,
    dead: Duration,
    config: String,
}

impl<'a> Step<'a> {
    /// For a run in a network.
    ///
    /// # Errors
    /// Where a program is missing.
    pub fn new(network: &'a Network, run: &Run) -> Result<Self> {
        let mode = run.filter.unwrap_or(Mode::Native);
        let config = daemon::config(network, &[OUTER], mode);
        Ok(Self {
            network,
            dead: run.dead,
            config: format!("on_stop = \"keep\"\n{config}"),
        })
    }

    /// The first daemon.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start(&self) -> Result<Daemon> {
        Daemon::start_with(self.network, NAME, &self.config)
    }

    /// Lets a phase happen; gives the daemon that filters afterwards.
    ///
    /// # Errors
    /// Where a daemon does not end or start, or where the phase did not do what it is for.
    pub fn take(&self, phase: Phase, daemon: Daemon) -> Result<Daemon> {
        let before = Program::attached(self.network)?;
        let daemon = match phase {
            Phase::Nothing => return Ok(daemon),
            Phase::Kill => {
                daemon.stop(Signal::KILL)?;
                thread::sleep(self.dead);
                self.start()?
            }
            Phase::Restart => {
                let status = daemon.stop(Signal::TERM)?;
                ensure!(status.success(), "sipfilterd ended with {status}");
                thread::sleep(AWAY);
                self.start()?
            }
            Phase::BinaryUpgrade => {
                let copy = self.copy_binary()?;
                daemon.stop(Signal::USR2)?;
                let daemon = Daemon::start_program(self.network, NAME, &self.config, &[], &copy)?;
                let runs = fs::read_link(format!("/proc/{}/exe", daemon.pid()))?;
                ensure!(runs == copy, "{} runs, not the copy", runs.display());
                daemon
            }
            Phase::ProgramUpgrade => {
                daemon.stop(Signal::USR2)?;
                Daemon::start_with(self.network, NAME, &self.other_config())?
            }
            Phase::Reload => {
                self.reload(&daemon)?;
                daemon
            }
            Phase::ApplyRollback => {
                self.apply_and_forget(&daemon, before)?;
                daemon
            }
            Phase::Gap => {
                daemon.stop(Signal::USR2)?;
                let config = self.config.replacen("keep", "detach", 1);
                let daemon = Daemon::start_with(self.network, NAME, &config)?;
                daemon.stop(Signal::TERM)?;
                thread::sleep(AWAY);
                self.start()?
            }
        };
        let after = Program::attached(self.network)?;
        ensure!(
            after.id != before.id,
            "the program was not replaced: {after:?}"
        );
        if phase == Phase::ProgramUpgrade {
            ensure!(
                after.bytes != before.bytes,
                "the program is the same: {before:?}, then {after:?}"
            );
        }
        Ok(daemon)
    }

    /// One that needs another program and maps of another size.
    fn other_config(&self) -> String {
        let keys = "egress = \"enforce\"\nprovisional = false\n";
        let limits = "\n[limits]\npinholes = 4096\n";
        format!("{keys}{}{limits}", self.config)
    }

    /// The one of the two configurations that is not in the daemon's file.
    fn another(&self) -> Result<String> {
        Ok(match fs::read_to_string(self.file())? == self.config {
            true => self.other_config(),
            false => self.config.clone(),
        })
    }

    fn file(&self) -> PathBuf {
        let directory = self.network.directory.path();
        directory.join(format!("{NAME}.toml"))
    }

    fn reload(&self, daemon: &Daemon) -> Result<()> {
        fs::write(self.file(), self.another()?)?;
        let said = daemon.log().len();
        daemon.signal(Signal::HUP);
        wait_for(daemon, said, "reloaded")
    }

    /// What was applied must be in force at first, and gone in the end.
    fn apply_and_forget(&self, daemon: &Daemon, before: Program) -> Result<()> {
        let file = self.file().with_file_name("candidate.toml");
        fs::write(&file, self.another()?)?;
        let said = daemon.log().len();
        let name = file.display().to_string();
        let answer = daemon.ctl(&["apply", &name, "--confirm", "5s", "--json"])?;
        let applied = Program::attached(self.network)?;
        ensure!(
            applied.id != before.id && applied.bytes != before.bytes,
            "nothing was applied: {before:?}, {applied:?}; {answer}"
        );
        wait_for(daemon, said, "rolled back")?;
        let after = Program::attached(self.network)?;
        ensure!(
            after.id != applied.id && after.bytes == before.bytes,
            "it was not rolled back: {before:?}, {applied:?}, {after:?}"
        );
        Ok(())
    }

    fn copy_binary(&self) -> Result<PathBuf> {
        let copy = self.network.directory.path().join("sipfilterd-next");
        fs::copy(find_program("sipfilterd")?, &copy)?;
        Ok(copy)
    }
}

/// Waits until the daemon says so after what it has said.
fn wait_for(daemon: &Daemon, said: usize, words: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = daemon.log();
        let since = log.get(said..).unwrap_or_default();
        ensure!(
            !since.contains("nothing has changed"),
            "it is refused: {since}"
        );
        if since.contains(words) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "nothing is said of `{words}`: {log}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// The XDP program on the edge's outer interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Program {
    id: u64,
    /// Of the program as the kernel has verified it: what cannot be reached is not in it.
    bytes: u64,
}

impl Program {
    fn attached(network: &Network) -> Result<Self> {
        let attached = Attachments::on(&network.edge, OUTER)?;
        let ([line], 1) = (attached.xdp.as_slice(), attached.egress) else {
            bail!("one program of each kind belongs on {OUTER}: {attached:?}");
        };
        let mut words = line.split_whitespace().skip_while(|word| *word != "id");
        let id: u64 = words
            .nth(1)
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("bpftool names no program: {line}"))?;
        let text = run(std::process::Command::new("bpftool").args([
            "--json",
            "prog",
            "show",
            "id",
            &id.to_string(),
        ]))?;
        let shown: Value = serde_json::from_str(&text)?;
        let bytes = shown["bytes_xlated"]
            .as_u64()
            .with_context(|| format!("bpftool tells no size: {text}"))?;
        Ok(Self { id, bytes })
    }
}
