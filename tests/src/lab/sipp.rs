//! SIP agents: SIPp with the scenarios of `tests/scenarios`, one process for each role and direction.
//!
//! The lab hears of a call's progress from SIPp's own log, and steers it by cues: SIP requests with the call's Call-ID, sent from the
//! agent's own host so that they never cross the filter. Nothing here reads the traffic between the agents.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    address::{Place, SIP_PORT},
    call::{Call, Direction, Role, call_id},
    cleanup,
    namespace::Namespace,
    topology::Network,
};

/// An emulated machine takes its time.
const BINDING: Duration = Duration::from_secs(30);
const CALLER: &str = include_str!("../../scenarios/caller.xml");
const CALLEE: &str = include_str!("../../scenarios/callee.xml");
const CALLEE_EARLY: &str = include_str!("../../scenarios/callee-early.xml");

/// How the callee answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 180, then 200 with SDP.
    AtOnce,
    /// 183 with SDP; 200 when it is told to.
    AfterEarlyMedia,
}

/// What the lab tells an agent to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cue {
    /// Send BYE; as caller without an answer, CANCEL; as callee with early media, answer.
    Proceed,
    /// As caller: re-INVITE with `a=sendonly`.
    Hold,
    /// As caller: re-INVITE with `a=sendrecv`.
    Resume,
}

impl Cue {
    fn method(self) -> &'static str {
        match self {
            Self::Proceed => "INFO",
            Self::Hold => "MESSAGE",
            Self::Resume => "SUBSCRIBE",
        }
    }
}

/// What SIPp logs of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The caller has a 183.
    Early,
    /// The caller has the 200; the callee has the ACK.
    Established,
    /// The caller has the 200 to its hold.
    Hold,
    /// The caller has the 200 to its resume.
    Resume,
    /// BYE or CANCEL is answered.
    Ended,
}

impl Progress {
    fn word(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Established => "established",
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Ended => "ended",
        }
    }
}

/// The agents of one direction's calls: a caller and a callee.
#[derive(Debug)]
pub struct Pair {
    direction: Direction,
    caller: Agent,
    callee: Agent,
}

impl Pair {
    /// Starts the callee, then the caller, which places all of its calls at `rate` a second.
    ///
    /// # Errors
    /// Where SIPp is missing or does not start.
    pub fn start(
        network: &Network,
        calls: &[Call],
        direction: Direction,
        answer: Answer,
        rate: u16,
    ) -> Result<Self> {
        let calls: Vec<&Call> = calls
            .iter()
            .filter(|call| call.direction == direction)
            .collect();
        let callee = Agent::start(network, &calls, direction, Role::Callee, answer, rate)?;
        callee.wait_until_bound()?;
        let caller = Agent::start(network, &calls, direction, Role::Caller, answer, rate)?;
        Ok(Self {
            direction,
            caller,
            callee,
        })
    }

    /// Which calls these agents hold.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The numbers of the calls for which both sides have come so far; for what only a caller logs, the caller.
    #[must_use]
    pub fn reached(&self, progress: Progress) -> BTreeSet<u16> {
        let caller = self.caller.logged(progress);
        match progress {
            Progress::Established | Progress::Ended => caller
                .intersection(&self.callee.logged(progress))
                .copied()
                .collect(),
            Progress::Early | Progress::Hold | Progress::Resume => caller,
        }
    }

    /// Tells one of a call's agents what to do next.
    ///
    /// # Errors
    /// Where the cue cannot be sent.
    pub fn cue(&self, call: &Call, role: Role, cue: Cue) -> Result<()> {
        match role {
            Role::Caller => self.caller.cue(call, cue),
            Role::Callee => self.callee.cue(call, cue),
        }
    }

    /// What went wrong in SIPp's own view, for a report on failure.
    #[must_use]
    pub fn complaints(&self) -> String {
        format!("{}{}", self.caller.complaints(), self.callee.complaints())
    }
}

/// One SIPp process.
#[derive(Debug)]
struct Agent {
    child: Child,
    at: SocketAddr,
    log: PathBuf,
    errors: PathBuf,
    fatal: PathBuf,
    cues: UdpSocket,
    cue_number: AtomicU32,
}

impl Agent {
    fn start(
        network: &Network,
        calls: &[&Call],
        direction: Direction,
        role: Role,
        answer: Answer,
        rate: u16,
    ) -> Result<Self> {
        let (namespace, local, remote) = ends(network, direction, role);
        let name = match (direction, role) {
            (Direction::Inbound, Role::Caller) => "inbound-caller",
            (Direction::Inbound, Role::Callee) => "inbound-callee",
            (Direction::Outbound, Role::Caller) => "outbound-caller",
            (Direction::Outbound, Role::Callee) => "outbound-callee",
        };
        let file = |kind: &str| network.directory.path().join(format!("{name}.{kind}"));
        // SIPp knows an injection file by its name without directories only.
        let table_name = format!("{name}.csv");
        fs::write(file("csv"), media_table(calls, on_pbx(direction, role)))?;
        let scenario = match (role, answer) {
            (Role::Caller, _) => CALLER,
            (Role::Callee, Answer::AtOnce) => CALLEE,
            (Role::Callee, Answer::AfterEarlyMedia) => CALLEE_EARLY,
        };
        fs::write(file("xml"), scenario.replace("CALLS", &table_name))?;
        let mut command = namespace.command("sipp");
        command.current_dir(network.directory.path());
        if role == Role::Caller {
            command
                .arg(SocketAddr::new(remote, SIP_PORT).to_string())
                .args(["-cid_str", &call_id(direction, "%u")])
                .args([
                    "-m",
                    &calls.len().to_string(),
                    "-l",
                    &calls.len().to_string(),
                ])
                .args(["-r", &rate.to_string()]);
        }
        command
            .arg("-sf")
            .arg(file("xml"))
            .arg("-inf")
            .arg(&table_name);
        if role == Role::Callee {
            command.arg("-infindex").arg(&table_name).arg("0");
        }
        // Each process needs a media and a control port of its own, although it uses neither; the callee's and the caller's hosts may be one.
        let spare = 6000
            + 100
                * (2 * u16::from(direction == Direction::Outbound)
                    + u16::from(role == Role::Callee));
        let child = command
            .args([
                "-i",
                &local.to_string(),
                "-bind_local",
                "-p",
                &SIP_PORT.to_string(),
            ])
            .args(["-mp", &spare.to_string(), "-cp", &(spare + 50).to_string()])
            // On a busy machine a 180 to a repeated INVITE comes after the 200: that is no reason to give a call up.
            .args(["-default_behaviors", "all,-abortunexp"])
            .args(["-nostdin", "-trace_logs", "-log_file"])
            .arg(file("log"))
            .args(["-trace_err", "-error_file"])
            .arg(file("errors"))
            .stdin(Stdio::null())
            .stdout(File::create(file("out"))?)
            .stderr(File::create(file("err"))?)
            .spawn()
            .context("cannot start sipp: install sip-tester")?;
        cleanup::register_child(child.id());
        Ok(Self {
            child,
            at: SocketAddr::new(local, SIP_PORT),
            log: file("log"),
            errors: file("errors"),
            fatal: file("err"),
            cues: namespace.enter(|| UdpSocket::bind(SocketAddr::new(local, 0)))??,
            cue_number: AtomicU32::new(1000),
        })
    }

    fn wait_until_bound(&self) -> Result<()> {
        let deadline = Instant::now() + BINDING;
        // A socket table entry is the first sign that SIPp takes calls; it logs nothing before its first.
        while Instant::now() < deadline {
            let table = format!(
                "/proc/{}/net/udp{}",
                self.child.id(),
                if self.at.is_ipv6() { "6" } else { "" }
            );
            let bound = fs::read_to_string(table).unwrap_or_default();
            if bound
                .lines()
                .any(|line| line.contains(&socket_table_form(self.at)))
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "sipp did not bind {} within {} s: {}",
            self.at,
            BINDING.as_secs(),
            self.complaints()
        )
    }

    fn logged(&self, progress: Progress) -> BTreeSet<u16> {
        fs::read_to_string(&self.log)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                line.trim()
                    .strip_prefix(progress.word())?
                    .trim()
                    .parse()
                    .ok()
            })
            .collect()
    }

    fn cue(&self, call: &Call, cue: Cue) -> Result<()> {
        let number = self.cue_number.fetch_add(1, Ordering::Relaxed);
        let method = cue.method();
        // No tag in From: SIPp would take it for the peer's.
        let request = format!(
            "{method} sip:agent@lab SIP/2.0\r\nVia: SIP/2.0/UDP lab;branch=z9hG4bKcue{number}\r\nFrom: <sip:cue@lab>\r\n\
             To: <sip:agent@lab>\r\nCall-ID: {}\r\nCSeq: {number} {method}\r\nContent-Length: 0\r\n\r\n",
            call.call_id()
        );
        self.cues.send_to(request.as_bytes(), self.at)?;
        Ok(())
    }

    fn complaints(&self) -> String {
        [&self.fatal, &self.errors]
            .into_iter()
            .flat_map(|file| {
                let text = fs::read_to_string(file).unwrap_or_default();
                text.lines()
                    .take(8)
                    .map(|line| format!("{line}\n"))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        cleanup::forget_child(self.child.id());
    }
}

fn on_pbx(direction: Direction, role: Role) -> bool {
    matches!(
        (direction, role),
        (Direction::Inbound, Role::Callee) | (Direction::Outbound, Role::Caller)
    )
}

/// Where an agent lives, its own address, and its peer's.
fn ends(network: &Network, direction: Direction, role: Role) -> (&Namespace, IpAddr, IpAddr) {
    let (provider, pbx) = match direction {
        Direction::Inbound => (Place::ProviderCaller, Place::PbxCallee),
        Direction::Outbound => (Place::ProviderCallee, Place::PbxCaller),
    };
    let provider = provider.address(network.family);
    if on_pbx(direction, role) {
        (
            network.pbx(),
            network.inside(pbx).address(network.family),
            provider,
        )
    } else {
        (&network.provider, provider, pbx.address(network.family))
    }
}

/// SIPp's injection file: number, media address, media port.
fn media_table(calls: &[&Call], pbx: bool) -> String {
    let mut text = String::from("SEQUENTIAL\n");
    for call in calls {
        let media = if pbx {
            call.pbx_media_in_sdp
        } else {
            call.provider_media
        };
        text += &format!("{};{};{}\n", call.label(), media.ip(), media.port());
    }
    text
}

/// An address and port as /proc/net/udp writes them: 32-bit words in the host's order, in hexadecimal.
fn socket_table_form(at: SocketAddr) -> String {
    let octets = match at.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words: String = octets
        .chunks_exact(4)
        .map(|word| {
            format!(
                "{:08X}",
                u32::from_ne_bytes([word[0], word[1], word[2], word[3]])
            )
        })
        .collect();
    format!("{words}:{:04X}", at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_socket_is_found_in_the_kernels_table() {
        assert_eq!(
            socket_table_form("127.0.0.1:5060".parse().unwrap()),
            "0100007F:13C4"
        );
    }
}
