//! What is dropped, seen by an operator: samples in `drops`, `strangers` and `monitor`, each saying what it has not looked at.

use std::{
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sipfilter_daemon::view::{DroppedSource, Drops, Event, Happening, Occurrence, Strangers};
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    daemon::{Daemon, Filter, Mode, find_program},
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use crate::Test;

const PATIENCE: Duration = Duration::from_secs(15);
/// More than is sampled in any tenth of a second.
const FLOOD: u64 = 5_000;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("drops_tell_who_and_which_call::ipv4", || drops(Family::V4)),
        Test::new("drops_tell_who_and_which_call::ipv6", || drops(Family::V6)),
        Test::new("monitor_ends_cleanly", monitor_ends),
    ]
}

/// A command that goes on until something ends it, and what it has printed by then.
pub struct Following {
    child: Child,
    output: std::path::PathBuf,
}

impl Following {
    pub fn start(stage: &Stage, name: &str, arguments: &[&str]) -> Result<Self> {
        let daemon = stage.daemon.as_ref().context("a filter")?;
        let output = stage.network.directory.path().join(name);
        let child = ctl(daemon.runtime())?
            .args(arguments)
            .stdout(File::create(&output)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, output })
    }

    pub fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.output)?)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(
            pid.context("a process has a number")?,
            signal,
        )?)
    }

    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, self.text()?));
            }
            ensure!(
                Instant::now() < deadline,
                "it does not end: {}",
                self.text()?
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn ctl(runtime: &Path) -> Result<Command> {
    let mut command = Command::new(find_program("sipfilterctl")?);
    command.arg("--runtime-dir").arg(runtime);
    Ok(command)
}

/// Asks until the answer is as it should be.
pub fn until<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    daemon: &Daemon,
    arguments: &[&str],
    is_so: impl Fn(&T) -> bool,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer: T = serde_json::from_value(daemon.ctl(arguments)?)?;
        if is_so(&answer) {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("{arguments:?}: {answer:#?}\n{}", daemon.log());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A stranger's call to whoever listens, in the name of a provider.
pub fn scan(pbx: SocketAddr) -> String {
    format!(
        "INVITE sip:900@{pbx} SIP/2.0\r\nVia: SIP/2.0/UDP gw.lab.example;branch=z9hG4bK1\r\n\
         From: <sip:100@gw.lab.example>;tag=1\r\nTo: <sip:900@{pbx}>\r\nCall-ID: scan\r\nCSeq: 1 INVITE\r\n\
         User-Agent: friendly\u{1b}[31m-scanner\r\nContent-Length: 0\r\n\r\n"
    )
}

pub fn rtp() -> Vec<u8> {
    let mut packet = vec![0; 172];
    packet[0] = 0x80;
    packet
}

fn packets(drops: &Drops, reason: &str) -> (u64, u64) {
    let mut rows = drops.reasons.iter();
    rows.find(|row| row.reason == reason)
        .map_or((0, 0), |row| (row.packets, row.samples))
}

fn drops(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    let monitor = Following::start(&stage, "monitor", &["--json", "monitor"])?;
    let told = Following::start(&stage, "told", &["monitor"])?;
    // They must not miss the beginning.
    thread::sleep(Duration::from_millis(300));
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 5)?;

    let stranger = Place::Stranger.address(family);
    let pbx = SocketAddr::new(Place::PbxCallee.address(family), SIP_PORT);
    let media = stage.calls[0].pbx_media;
    let beside = SocketAddr::new(media.ip(), media.port() + 2);
    let far = SocketAddr::new(media.ip(), media.port() + 5_000);
    stage.network.stranger.enter(|| -> std::io::Result<()> {
        let sip = UdpSocket::bind(SocketAddr::new(stranger, 5_060))?;
        let rtp_socket = UdpSocket::bind(SocketAddr::new(stranger, 45_678))?;
        for _ in 0..20 {
            sip.send_to(scan(pbx).as_bytes(), pbx)?;
        }
        for _ in 0..10 {
            rtp_socket.send_to(&rtp(), media)?;
            rtp_socket.send_to(&rtp(), beside)?;
        }
        Ok(())
    })??;

    let daemon = stage.daemon.as_ref().context("a filter")?;
    let seen = until(daemon, &["drops", "--json"], |drops: &Drops| {
        packets(drops, "unknown_source") == (20, 20)
            && packets(drops, "wrong_source") == (10, 10)
            && packets(drops, "no_pinhole") == (10, 10)
    })?;
    let row = |reason: &str| -> Result<&DroppedSource> {
        let mut rows = seen.sources.iter();
        let found = rows.find(|row| row.reason == reason);
        found.with_context(|| format!("no row of {reason}: {seen:#?}"))
    };
    for (reason, packets, to, near) in [
        ("unknown_source", 20, pbx, None),
        ("wrong_source", 10, media, Some("same_port")),
        ("no_pinhole", 10, beside, Some("next_port")),
    ] {
        let row = row(reason)?;
        let how = row.near.as_ref().map(|near| near.how.as_str());
        ensure!(
            row.source.contains(&stranger)
                && (row.packets, row.samples) == (packets, packets)
                && row.destination == Some(to)
                && how == near,
            "{row:#?}"
        );
    }

    let strangers: Strangers = serde_json::from_value(daemon.ctl(&["strangers", "--json"])?)?;
    let [knocking] = strangers.strangers.as_slice() else {
        bail!("{strangers:#?}");
    };
    ensure!(
        knocking.claims.as_deref() == Some("lab")
            && knocking.is_trunk
            && knocking.methods.get("INVITE") == Some(&20)
            && knocking.domains == ["gw.lab.example"]
            && knocking.addresses == [stranger],
        "{knocking:#?}"
    );
    for (arguments, expect) in [
        (&["drops"][..], "20 of 20"),
        (&["strangers"], "systemctl reload sipfilterd"),
    ] {
        let output = ctl(daemon.runtime())?.args(arguments).output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && text.contains(expect), "{text}");
        ensure!(
            !text.contains('\u{1b}'),
            "a peer moves the cursor: {text:?}"
        );
        if std::env::var_os("SIPFILTER_SHOW").is_some() {
            eprintln!("$ sipfilterctl {}\n{text}", arguments.join(" "));
        }
    }

    // More than is looked at: all of it is counted, and estimated where it came from.
    stage.network.stranger.enter(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(stranger, 45_678))?;
        for _ in 0..FLOOD {
            socket.send_to(&rtp(), far)?;
        }
        Ok(())
    })??;
    let all = FLOOD + 10;
    let seen = until(daemon, &["drops", "--json"], |drops: &Drops| {
        packets(drops, "no_pinhole").0 == all
    })?;
    let (_, samples) = packets(&seen, "no_pinhole");
    ensure!(samples < all, "a flood was looked at whole: {samples}");
    let estimate = seen
        .sources
        .iter()
        .find(|row| row.reason == "no_pinhole")
        .map_or(0, |row| row.packets);
    ensure!(
        estimate.abs_diff(all) <= all / 2,
        "{estimate} is no estimate of {all}"
    );

    stage
        .daemon
        .take()
        .context("a filter")?
        .stop(Signal::TERM)?;
    let (_, text) = told.end()?;
    for what in [
        "INVITE (SDP)",
        "pinhole opened",
        "claims gw.lab.example",
        "are shown",
    ] {
        ensure!(text.contains(what), "{what}: {text}");
    }
    if std::env::var_os("SIPFILTER_SHOW").is_some() {
        eprintln!("$ sipfilterctl monitor\n{text}");
    }
    let (status, text) = monitor.end()?;
    ensure!(status.success(), "{status}");
    let mut events = Vec::new();
    for line in text.lines() {
        let event: Event = serde_json::from_str(line).with_context(|| line.to_owned())?;
        events.push(event.what);
    }
    let count = |is_so: fn(&Occurrence) -> bool| events.iter().filter(|one| is_so(one)).count();
    for (what, found) in [
        (
            "call started",
            count(|one| matches!(one, Occurrence::CallStarted { .. })) == 2,
        ),
        (
            "messages",
            count(|one| {
                matches!(
                    one,
                    Occurrence::Call {
                        what: Happening::Message { .. },
                        ..
                    }
                )
            }) >= 6,
        ),
        (
            "pinholes",
            count(|one| {
                matches!(
                    one,
                    Occurrence::Call {
                        what: Happening::Pinhole { .. },
                        ..
                    }
                )
            }) >= 4,
        ),
        (
            "strangers' packets",
            count(
                |one| matches!(one, Occurrence::Drop(packet) if packet.reason == "unknown_source" && packet.sip.is_some()),
            ) == 20,
        ),
        (
            "near misses",
            count(|one| matches!(one, Occurrence::Drop(packet) if packet.near.is_some())) == 20,
        ),
        (
            "what is not shown",
            count(
                |one| matches!(one, Occurrence::Counted { packets, samples, .. } if packets > samples),
            ) > 0,
        ),
    ] {
        ensure!(found, "{what}: {events:#?}");
    }
    Ok(())
}

/// By Ctrl-C, by a reader who has had enough, and refused where nobody runs.
fn monitor_ends() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 0)?;
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let following = Following::start(&stage, "interrupted", &["monitor"])?;
    thread::sleep(Duration::from_millis(300));
    following.signal(Signal::INT)?;
    let (status, _) = following.end()?;
    ensure!(status.success(), "Ctrl-C: {status}");

    let mut piped = ctl(daemon.runtime())?
        .arg("monitor")
        .stdout(Stdio::piped())
        .spawn()?;
    drop(piped.stdout.take());
    let stranger = Place::Stranger.address(Family::V4);
    let pbx = SocketAddr::new(Place::PbxCallee.address(Family::V4), SIP_PORT);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        stage
            .network
            .stranger
            .enter(|| -> std::io::Result<usize> {
                UdpSocket::bind((stranger, 0))?.send_to(b"x", pbx)
            })??;
        if let Some(status) = piped.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = piped.kill();
            let _ = piped.wait();
            bail!("it goes on without a reader");
        }
        thread::sleep(Duration::from_millis(100));
    };
    ensure!(status.success(), "a broken pipe: {status}");

    let nowhere = stage.network.directory.path().join("nowhere");
    for command in ["monitor", "drops", "strangers"] {
        let output = ctl(&nowhere)?.arg(command).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2) && text.contains("not running"),
            "{command}: {text}"
        );
    }
    Ok(())
}
