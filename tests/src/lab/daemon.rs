//! `sipfilterd` and `sipfilterctl` as an operator uses them: a configuration file, a process in the foreground, signals, JSON.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use serde_json::Value;

use super::{
    address::{Family, PBX_RTP_FIRST, PBX_RTP_LAST, PROVIDER_RTP_FIRST, PROVIDER_RTP_LAST, Place},
    cleanup,
    rehearsal::Reasons,
    schema,
    topology::{Network, OUTER, Topology},
};

/// How long the daemon may take to load its programs, also on a busy machine.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(10);
/// How long it may take to say something.
const SAYS: Duration = Duration::from_secs(20);
/// How soon the last pinhole is closed.
const CLOSED: Duration = Duration::from_secs(2);

/// How the filter is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, for drivers without XDP.
    Generic,
}

impl Mode {
    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What stands between the outside and the PBX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Nothing: the open firewall that sipfilter replaces, and the proof that the scoreboard can fail.
    None,
    /// sipfilter.
    Sipfilter(Mode),
}

/// A running `sipfilterd`.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    file: PathBuf,
    runtime: PathBuf,
    log: PathBuf,
    namespace: String,
}

/// What the service runs under, too (`config/systemd/sipfilterd.service`).
const NICENESS: i32 = -10;

impl Daemon {
    /// Starts the daemon on the edge's outer interface and waits until it says that it is ready.
    ///
    /// # Errors
    /// Where the programs are missing or the daemon gives up; the message carries its log.
    pub fn start(network: &Network, mode: Mode) -> Result<Self> {
        Self::start_with(network, "sipfilter", &config(network, &[OUTER], mode))
    }

    /// The same with a given configuration, under a name of its own.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_with(network: &Network, name: &str, config: &str) -> Result<Self> {
        let mut this = Self::begin(network, name, config)?;
        this.wait_until_ready()?;
        Ok(this)
    }

    /// The same, of a given binary, with these words before it: a program that runs it somewhere else.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_program(
        network: &Network,
        name: &str,
        config: &str,
        wrapper: &[&str],
        program: &Path,
    ) -> Result<Self> {
        let mut this = Self::spawn(network, name, config, wrapper, program)?;
        this.wait_until_ready()?;
        Ok(this)
    }

    /// The same, and does not wait: what it says may go somewhere else than into its log.
    ///
    /// # Errors
    /// Where the programs are missing.
    pub fn begin_program(
        network: &Network,
        name: &str,
        config: &str,
        wrapper: &[&str],
        program: &Path,
    ) -> Result<Self> {
        Self::spawn(network, name, config, wrapper, program)
    }

    /// Starts it and does not wait: it may be killed before it is ready.
    ///
    /// # Errors
    /// Where the programs are missing.
    pub fn begin(network: &Network, name: &str, config: &str) -> Result<Self> {
        Self::spawn(network, name, config, &[], &find_program("sipfilterd")?)
    }

    fn spawn(
        network: &Network,
        name: &str,
        config: &(impl AsRef<[u8]> + ?Sized),
        wrapper: &[&str],
        program: &Path,
    ) -> Result<Self> {
        let runtime = network.directory.path().join(format!("{name}.run"));
        Self::spawn_in(network, name, &runtime, config, wrapper, program)
    }

    fn spawn_in(
        network: &Network,
        name: &str,
        runtime: &Path,
        config: &(impl AsRef<[u8]> + ?Sized),
        wrapper: &[&str],
        program: &Path,
    ) -> Result<Self> {
        let directory = network.directory.path();
        let file = directory.join(format!("{name}.toml"));
        fs::write(&file, config)?;
        let log = directory.join(format!("{name}.log"));
        let mut words: Vec<&Path> = wrapper.iter().map(Path::new).collect();
        words.push(program);
        let mut command = network.edge.command(&words[0].display().to_string());
        let child = command
            .args(&words[1..])
            .arg("--config")
            .arg(&file)
            .arg("--runtime-dir")
            .arg(runtime)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start sipfilterd")?;
        cleanup::register_child(child.id());
        // Its threads are not there yet; they will have what it has.
        setpriority_process(Some(Pid::from_child(&child)), NICENESS)
            .context("cannot put sipfilterd before ordinary work")?;
        Ok(Self {
            child,
            file,
            runtime: runtime.to_owned(),
            log,
            namespace: network.edge.name().to_owned(),
        })
    }

    /// Starts it with a runtime directory that may be another one's, and does not wait.
    ///
    /// # Errors
    /// Where the programs are missing.
    pub fn begin_in(network: &Network, name: &str, runtime: &Path, config: &str) -> Result<Self> {
        let program = find_program("sipfilterd")?;
        Self::spawn_in(network, name, runtime, config, &[], &program)
    }

    /// Waits until it ends by itself; gives how it did and what it said.
    ///
    /// # Errors
    /// Where it does not within the time that it has for a start.
    pub fn ended(mut self) -> Result<(ExitStatus, String)> {
        let status = self.wait_until_gone(START)?;
        Ok((status, self.log()))
    }

    /// Whether its process is there.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Runs the daemon on a configuration that it must refuse; gives how it ended and what it said.
    ///
    /// # Errors
    /// Where it does not end within the time that it has for a start.
    pub fn refused(
        network: &Network,
        name: &str,
        config: &(impl AsRef<[u8]> + ?Sized),
    ) -> Result<(ExitStatus, String)> {
        Self::refused_within(network, name, config, &[], &find_program("sipfilterd")?)
    }

    /// The same, of a given binary with these words before it.
    ///
    /// # Errors
    /// As [`Daemon::refused`].
    pub fn refused_within(
        network: &Network,
        name: &str,
        config: &(impl AsRef<[u8]> + ?Sized),
        wrapper: &[&str],
        program: &Path,
    ) -> Result<(ExitStatus, String)> {
        Self::spawn(network, name, config, wrapper, program)?.ended()
    }

    /// The same, run by a user without any privilege.
    ///
    /// # Errors
    /// As [`Daemon::refused`].
    pub fn refused_without_privilege(
        network: &Network,
        name: &str,
        config: &str,
    ) -> Result<(ExitStatus, String)> {
        let nobody = [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ];
        // The build directory may be closed to other users.
        let directory = network.directory.path();
        let copy = directory.join("sipfilterd");
        fs::copy(find_program("sipfilterd")?, &copy)?;
        // What is refused must be the privilege, not the directory.
        let runtime = directory.join(format!("{name}.run"));
        fs::create_dir_all(&runtime)?;
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777))?;
        Self::refused_within(network, name, config, &nobody, &copy)
    }

    /// What `sipfilterctl` prints for these arguments, as JSON.
    ///
    /// # Errors
    /// Where it fails or prints something else.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        ctl(&self.namespace, &self.runtime, arguments)
    }

    /// Writes another configuration into its file and has it read that; gives what `sipfilterctl reload --json` says.
    ///
    /// # Errors
    /// As [`Daemon::ctl`].
    pub fn reload(&self, config: &str) -> Result<Value> {
        fs::write(&self.file, config)?;
        self.ctl(&["reload", "--json"])
    }

    /// Has it read its configuration again, by signal.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Its configuration.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its socket and state are.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// How many pinholes are open, by `sipfilterctl pinholes --json`.
    ///
    /// # Errors
    /// As [`Daemon::ctl`].
    pub fn pinholes(&self) -> Result<usize> {
        let answer = self.ctl(&["pinholes", "--json"])?;
        count_list(&answer, "pinholes")
            .with_context(|| format!("sipfilterctl pinholes --json holds no list: {answer}"))
    }

    /// Waits until no pinhole is open, which is soon after the end of the last call.
    ///
    /// # Errors
    /// As [`Daemon::pinholes`], or where some are left.
    pub fn wait_until_closed(&self) -> Result<()> {
        let deadline = Instant::now() + CLOSED;
        loop {
            match self.pinholes()? {
                0 => return Ok(()),
                left => ensure!(
                    Instant::now() < deadline,
                    "{left} pinholes are left after all calls ended"
                ),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The daemon's number for a call, which is that of its arrival: of two that are placed at once either may be the first.
    ///
    /// # Errors
    /// As [`Daemon::ctl`].
    pub fn call_number(&self, call_id: &str) -> Result<u64> {
        let record = self.ctl(&["--json", "calls", "show", call_id])?;
        record["number"].as_u64().context("a call has a number")
    }

    /// The kernel's packet counters by reason, once nothing is counted any more.
    ///
    /// # Errors
    /// As [`Daemon::ctl`], or where packets keep coming.
    pub fn settled_reasons(&self) -> Result<Reasons> {
        let deadline = Instant::now() + SETTLE;
        let mut before = None;
        loop {
            let answer = self.ctl(&["stats", "--json"])?;
            let counters = answer.get("counters").and_then(Value::as_array);
            let reasons: Reasons = counters
                .context("sipfilterctl stats --json holds no counters")?
                .iter()
                .filter(|counter| counter.get("kind").and_then(Value::as_str) != Some("note"))
                .filter_map(|counter| {
                    let name = counter.get("name")?.as_str()?;
                    Some((name.to_owned(), counter.get("packets")?.as_u64()?))
                })
                .collect();
            if before.as_ref() == Some(&reasons) {
                return Ok(reasons);
            }
            if Instant::now() > deadline {
                bail!("packets keep coming: {before:?}, then {reasons:?}");
            }
            before = Some(reasons);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Everything that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it says so after the first `said` bytes of its log.
    ///
    /// # Errors
    /// With the log, where it does not, or panics.
    pub fn wait_for(&self, said: usize, words: &str) -> Result<()> {
        let deadline = Instant::now() + SAYS;
        loop {
            let log = self.log();
            ensure!(!log.contains("panicked"), "{log}");
            if log.get(said..).is_some_and(|log| log.contains(words)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "nothing is said of `{words}`:\n{log}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal and waits until the daemon is gone.
    ///
    /// # Errors
    /// Where it does not end within ten seconds.
    pub fn stop(mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal);
        self.wait_until_gone(STOP)
    }

    fn wait_until_gone(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "sipfilterd still runs after {} s:\n{}",
            patience.as_secs(),
            self.log()
        )
    }

    /// Sends a signal and does not wait.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if self.log().lines().any(|line| line.contains("ready")) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("sipfilterd ended at its start ({status}):\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!(
                    "sipfilterd was not ready within {} s:\n{}",
                    START.as_secs(),
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        cleanup::forget_child(self.child.id());
    }
}

/// Runs `sipfilterctl` against a runtime directory, whether or not its daemon lives.
///
/// # Errors
/// Where it fails or prints something that is not JSON, or not as its schema says.
pub fn ctl(namespace: &str, runtime: &Path, arguments: &[&str]) -> Result<Value> {
    let program = find_program("sipfilterctl")?;
    let output = std::process::Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg(program)
        .arg("--runtime-dir")
        .arg(runtime)
        .args(arguments)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = serde_json::from_str(&text).with_context(|| {
        format!(
            "sipfilterctl {}: {}: {text}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    schema::check(arguments, &answer)?;
    Ok(answer)
}

/// The daemon's configuration for a lab, on these interfaces of the edge.
#[must_use]
pub fn config(network: &Network, interfaces: &[&str], mode: Mode) -> String {
    config_with(network, interfaces, mode, &[], &[])
}

/// The same with more addresses of the PBX and more signalling addresses of the provider.
#[must_use]
pub fn config_with(
    network: &Network,
    interfaces: &[&str],
    mode: Mode,
    more_pbx: &[IpAddr],
    more_provider: &[IpAddr],
) -> String {
    let families: &[Family] = if network.topology.is_nat() {
        &[Family::V4]
    } else {
        &[Family::V4, Family::V6]
    };
    let list = |places: &[Place], more: &[IpAddr], suffix: [&str; 2]| -> String {
        let mut quoted: Vec<String> = families
            .iter()
            .zip(suffix)
            .flat_map(|(&family, suffix)| {
                places
                    .iter()
                    .map(move |place| format!("\"{}{suffix}\"", place.address(family)))
            })
            .collect();
        quoted.extend(
            more.iter()
                .map(|ip| format!("\"{ip}{}\"", suffix[usize::from(ip.is_ipv6())])),
        );
        quoted.join(", ")
    };
    let interfaces: Vec<String> = interfaces
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    let nat = if network.topology == Topology::NatPrivate {
        let pairs: String = [Place::PbxCallee, Place::PbxCaller]
            .into_iter()
            .map(|outside| {
                format!(
                    "\"{}\" = \"{}\"\n",
                    network.inside(outside).address(Family::V4),
                    outside.address(Family::V4)
                )
            })
            .collect();
        format!("\n[pbx.nat]\n{pairs}")
    } else {
        String::new()
    };
    format!(
        r#"interfaces = [{interfaces}]

[pbx]
rtp_ports = "{PBX_RTP_FIRST}-{PBX_RTP_LAST}"
addresses = [{pbx}]
{nat}
[xdp]
mode = "{mode}"

[[provider]]
name = "lab"
signalling = [{signalling}]
transports = ["udp", "tcp"]
media = {{ source = "signalled", ports = "{PROVIDER_RTP_FIRST}-{PROVIDER_RTP_LAST}" }}

[[trunk]]
provider = "lab"
"#,
        interfaces = interfaces.join(", "),
        pbx = list(&[Place::PbxCallee, Place::PbxCaller], more_pbx, ["", ""]),
        signalling = list(
            &[Place::ProviderCaller, Place::ProviderCallee],
            more_provider,
            ["/32", "/128"]
        ),
        mode = mode.name(),
    )
}

/// A program of this project: in `SIPFILTER_BIN_DIR`, or where this one was built.
///
/// # Errors
/// Where it is in neither place.
pub fn find_program(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("SIPFILTER_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let own = std::env::current_exe()?;
            let mut directory = own.parent().map(Path::to_path_buf).unwrap_or_default();
            // Test programs are built one level below the others.
            if directory.file_name().is_some_and(|last| last == "deps") {
                directory.pop();
            }
            directory
        }
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!(
            "there is no {name} in {}: build it (cargo xtask build), or set SIPFILTER_BIN_DIR to the directory that holds it",
            directory.display()
        );
    }
    Ok(path)
}

/// The length of a JSON answer that is a list or an object with one under `key`.
fn count_list(answer: &Value, key: &str) -> Option<usize> {
    answer
        .as_array()
        .or_else(|| answer.get(key)?.as_array())
        .map(Vec::len)
}
