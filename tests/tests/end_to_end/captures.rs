//! `sipfilterctl capture`: what is written while calls talk and strangers knock, read back by tshark; whom it refuses, what it leaves
//! out, and what a full disk does to it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use sipfilter_daemon::view::Captured;
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    daemon::{Filter, Mode, find_program},
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use crate::{
    Test,
    drops::{Following, ctl, rtp, scan},
};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("captures_hold_what_they_say", captures),
        Test::new("captures_hold_no_credentials", credentials),
        Test::new("captures_are_the_owners_and_lose_nobodys_file", refusals),
        Test::new("a_full_disk_ends_a_capture_and_nothing_else", full_disk),
    ]
}

/// The packets of a capture as tshark reads it, a line each: its comment and its SIP method or status.
fn read(file: &Path) -> Result<Vec<String>> {
    run(Command::new("capinfos").arg(file))?;
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-T", "fields", "-r"]).arg(file);
    for field in ["frame.comment", "sip.Method", "sip.Status-Code"] {
        tshark.args(["-e", field]);
    }
    Ok(run(&mut tshark)?.lines().map(str::to_owned).collect())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if std::env::var_os("SIPFILTER_SHOW").is_some() {
        eprintln!("$ {command:?}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

/// How many packets have a comment like this.
fn count(file: &Path, comment: &str) -> Result<usize> {
    let packets = read(file)?;
    Ok(packets.iter().filter(|line| line.contains(comment)).count())
}

fn captures() -> Result<()> {
    let family = Family::V4;
    let network = Network::build(Topology::Routed, family, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    let directory = stage.network.directory.path().to_owned();
    let file = |name: &str| directory.join(format!("{name}.pcapng"));
    let start = |stage: &Stage, name: &str, arguments: &[&str]| {
        let path = file(name);
        let path = path.to_str().context("a plain path")?;
        let all = [&["--json", "capture", "-w", path], arguments].concat();
        Following::start(stage, name, &all)
    };
    let signalling = start(&stage, "signalling", &["--signalling"])?;
    let drops = start(&stage, "drops", &["--drops", "--count", "15"])?;
    let small = start(&stage, "small", &["--drops", "--size", "1K"])?;
    let short = start(&stage, "short", &["--drops", "--seconds", "1"])?;
    thread::sleep(Duration::from_millis(500));
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let number = daemon.call_number("inbound-1")?;
    let one = start(&stage, "one", &["--call", &number.to_string()])?;
    let told = file("told");
    let arguments = [
        "capture",
        "--call",
        "inbound-1",
        "-w",
        told.to_str().context("a plain path")?,
    ];
    let telling = Following::start(&stage, "telling", &arguments)?;
    thread::sleep(Duration::from_millis(500));
    let stranger = Place::Stranger.address(family);
    let pbx = SocketAddr::new(Place::PbxCallee.address(family), SIP_PORT);
    let media = stage.calls[0].pbx_media;
    stage.network.stranger.enter(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(stranger, 5_060))?;
        for _ in 0..10 {
            socket.send_to(scan(pbx).as_bytes(), pbx)?;
            socket.send_to(&rtp(), media)?;
        }
        Ok(())
    })??;
    thread::sleep(Duration::from_millis(500));

    let ended = |following: Following, why: &str| -> Result<Captured> {
        let (status, text) = following.end()?;
        ensure!(status.success(), "{status}: {text}");
        let captured: Captured = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(captured.ended == why, "{captured:?}");
        let packets = read(Path::new(&captured.file))?;
        ensure!(
            packets.len() as u64 == captured.packets,
            "{captured:?}: {packets:#?}"
        );
        let found = std::fs::metadata(&captured.file)?;
        ensure!(found.len() == captured.bytes, "{captured:?}");
        ensure!(
            found.permissions().mode() & 0o777 == 0o600,
            "others may read it"
        );
        Ok(captured)
    };
    let captured = ended(drops, "count")?;
    ensure!(captured.packets == 15, "{captured:?}");
    let strangers = count(&file("drops"), "drop: unknown_source, in by outer0")?;
    let near = count(
        &file("drops"),
        &format!("drop: wrong_source, in by outer0, near call {number}: same_port"),
    )?;
    ensure!(
        strangers >= 5 && strangers + near == 15,
        "{strangers} and {near}"
    );
    // In the order in which they came, whatever they were dropped for.
    let packets = read(&file("drops"))?;
    let same = packets.windows(2).filter(|two| two.first() == two.last());
    ensure!(same.count() < 3, "{packets:#?}");
    let captured = ended(small, "size")?;
    ensure!(
        captured.packets > 0 && captured.bytes <= 1_024,
        "{captured:?}"
    );
    let captured = ended(short, "seconds")?;
    ensure!(captured.packets == 0, "{captured:?}");

    one.signal(Signal::INT)?;
    let captured = ended(one, "signal")?;
    ensure!(
        captured.packets == 10 && captured.dropped_packets == 20 && captured.dropped_samples == 20,
        "{captured:?}"
    );
    telling.signal(Signal::TERM)?;
    let (status, text) = telling.end()?;
    if std::env::var_os("SIPFILTER_SHOW").is_some() {
        eprintln!("$ sipfilterctl {}\n{text}", arguments.join(" "));
    }
    ensure!(
        status.success()
            && text.contains(": 10 packets, ")
            && text.contains("of 20 packets that were dropped meanwhile, 20"),
        "{status}: {text}"
    );
    let missing = ctl(stage.daemon.as_ref().context("a filter")?.runtime())?
        .args(["capture", "--call", "no-such-call", "-w"])
        .arg(file("none"))
        .output()?;
    ensure!(missing.status.code() == Some(1), "{missing:?}");

    stage
        .daemon
        .take()
        .context("a filter")?
        .stop(Signal::TERM)?;
    let captured = ended(signalling, "daemon")?;
    let packets = read(Path::new(&captured.file))?;
    let invites = packets
        .iter()
        .filter(|line| line.contains("\tINVITE\t"))
        .count();
    // Two INVITEs, their answers and the ACKs.
    ensure!(captured.packets >= 8 && invites >= 2, "{packets:#?}");
    for comment in [
        format!("pass: signalling, call {number}"),
        format!("pass: egress_signalling, call {number}"),
    ] {
        if count(&file("signalling"), &comment)? == 0 {
            bail!("no {comment:?} in {}", captured.file);
        }
    }
    Ok(())
}

/// What proves who somebody is, in a message.
fn register(secret: &str) -> String {
    format!(
        "REGISTER sip:gw.lab.example SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.11;branch=z9hG4bK2\r\nFrom: <sip:pbx@gw.lab.example>;tag=2\r\n\
         To: <sip:pbx@gw.lab.example>\r\nCall-ID: register-{secret}\r\nCSeq: 2 REGISTER\r\n\
         Authorization: Digest username=\"pbx\", realm=\"lab\", nonce=\"1\",\r\n response=\"{secret}\", uri=\"sip:gw.lab.example\"\r\n\
         Contact: <sip:pbx:{secret}@203.0.113.11>\r\nContent-Length: 0\r\n\r\n"
    )
    .replace(&format!("register-{secret}"), "register")
}

/// By UDP and by TCP, there cut within the secret; from the PBX, and from a stranger.
fn credentials() -> Result<()> {
    const SECRET: &str = "6629fae49393a05397450978507c4ef1";
    let family = Family::V4;
    let network = Network::build(Topology::Routed, family, &[])?;
    let stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    let directory = stage.network.directory.path().to_owned();
    let start = |name: &str, what: &str| {
        let path = directory.join(format!("{name}.pcapng"));
        let path = path.to_str().context("a plain path")?;
        Following::start(&stage, name, &["--json", "capture", what, "-w", path])
    };
    let signalling = start("signalling", "--signalling")?;
    let drops = start("drops", "--drops")?;
    thread::sleep(Duration::from_millis(500));

    let place = |place: Place| SocketAddr::new(place.address(family), SIP_PORT);
    let (provider, pbx) = (place(Place::ProviderCallee), place(Place::PbxCallee));
    let message = register(SECRET);
    let cut = message.find(SECRET).context("it is there")? + 7;
    let (head, tail) = message.split_at(cut);
    let listener = stage
        .network
        .provider
        .enter(|| TcpListener::bind(provider))??;
    stage.network.pbx().enter(|| -> std::io::Result<()> {
        let from = SocketAddr::new(Place::PbxCaller.address(family), 0);
        UdpSocket::bind(from)?.send_to(message.as_bytes(), provider)?;
        let mut stream = TcpStream::connect(provider)?;
        stream.set_nodelay(true)?;
        for part in [head, tail] {
            stream.write_all(part.as_bytes())?;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    })??;
    drop(listener);
    stage.network.stranger.enter(|| {
        UdpSocket::bind((Place::Stranger.address(family), 0))?.send_to(message.as_bytes(), pbx)
    })??;
    thread::sleep(Duration::from_millis(500));

    for (following, name, expect) in [
        (
            signalling,
            "signalling",
            ["REGISTER sip:gw.lab.example", "Call-ID: register"].as_slice(),
        ),
        (drops, "drops", &["REGISTER sip:gw.lab.example", "WWW"][..1]),
    ] {
        following.signal(Signal::INT)?;
        let (status, text) = following.end()?;
        ensure!(status.success(), "{status}: {text}");
        let file = directory.join(format!("{name}.pcapng"));
        let bytes = fs::read(&file)?;
        let text = String::from_utf8_lossy(&bytes);
        for expect in expect {
            ensure!(text.contains(expect), "{name} has no {expect:?}: {text}");
        }
        for part in SECRET.as_bytes().chunks(6) {
            let part = std::str::from_utf8(part)?;
            ensure!(!text.contains(part), "{name} has {part:?}: {text}");
        }
        // By UDP one packet, by TCP the two halves.
        let blanked = count(&file, "bytes of credentials blanked")?;
        let wanted = if name == "drops" { 1 } else { 3 };
        ensure!(blanked == wanted, "{name}: {blanked}: {:#?}", read(&file)?);
    }
    Ok(())
}

/// Only the owner of the daemon may; no file is overwritten; a pipe may have enough.
fn refusals() -> Result<()> {
    let family = Family::V4;
    let network = Network::build(Topology::Routed, family, &[])?;
    let stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    let runtime = stage.daemon.as_ref().context("a filter")?.runtime();
    let file = stage.network.directory.path().join("mine");
    fs::write(&file, "mine")?;
    let capture = |more: &[&str]| -> Result<Command> {
        let mut command = ctl(runtime)?;
        command.args(["capture", "--signalling", "--seconds", "1", "-w"]);
        command.arg(&file).args(more);
        Ok(command)
    };
    let output = capture(&[])?.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2)
            && text.contains("is there already")
            && text.contains("--force"),
        "{output:?}"
    );
    ensure!(fs::read(&file)? == b"mine", "it is overwritten");
    run(&mut capture(&["--force"])?)?;
    ensure!(read(&file)?.is_empty(), "nothing was said");

    // Whoever may ask may not see what is said.
    let (mut stream, mut answer) = (
        UnixStream::connect(runtime.join("control.sock"))?,
        String::new(),
    );
    stream.write_all(
        b"GET /v1/capture?of=signalling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )?;
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let mode = fs::metadata(runtime.join("admin.sock"))?
        .permissions()
        .mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");

    // What a pipe's reader gets is a capture, and ends with its reader.
    let mut writer = ctl(runtime)?
        .args(["capture", "--drops", "-w", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let piped = writer.stdout.take().context("a pipe")?;
    let reader = Command::new("tshark")
        .args([
            "-n",
            "-c",
            "3",
            "-T",
            "fields",
            "-e",
            "frame.comment",
            "-r",
            "-",
        ])
        .stdin(piped)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stranger = Place::Stranger.address(family);
    let pbx = SocketAddr::new(Place::PbxCallee.address(family), SIP_PORT);
    for _ in 0..100 {
        stage
            .network
            .stranger
            .enter(|| UdpSocket::bind((stranger, 0))?.send_to(scan(pbx).as_bytes(), pbx))??;
        thread::sleep(Duration::from_millis(100));
        if writer.try_wait()?.is_some() {
            break;
        }
    }
    let _ = writer.kill();
    let said = writer.wait_with_output()?;
    let text = String::from_utf8_lossy(&said.stderr);
    if std::env::var_os("SIPFILTER_SHOW").is_some() {
        eprintln!("{text}");
    }
    ensure!(
        said.status.success() && text.contains("its reader has had enough"),
        "{said:?}"
    );
    let read = String::from_utf8(reader.wait_with_output()?.stdout)?;
    let expect = "drop: unknown_source, in by outer0";
    ensure!(
        read.lines().count() == 3 && read.lines().all(|line| line == expect),
        "{read}"
    );
    Ok(())
}

/// A file system of 64 KiB, which nobody else sees.
fn full_disk() -> Result<()> {
    let family = Family::V4;
    let network = Network::build(Topology::Routed, family, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let directory = stage.network.directory.path().to_owned();
    let disk = directory.join("disk");
    fs::create_dir(&disk)?;
    let runtime = stage
        .daemon
        .as_ref()
        .context("a filter")?
        .runtime()
        .to_owned();
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=64k tmpfs \"$1\" || exit 9\n\"$2\" --runtime-dir \"$3\" capture --drops -w \"$1/full\"\nstatus=$?\ncp \"$1/full\" \"$1.pcapng\"\nexit $status")
        .arg("sh")
        .arg(&disk)
        .arg(find_program("sipfilterctl")?)
        .arg(&runtime)
        .stderr(Stdio::piped());
    let mut child = inside.spawn()?;
    let stranger = Place::Stranger.address(family);
    let pbx = SocketAddr::new(Place::PbxCallee.address(family), SIP_PORT);
    let mut ended = false;
    for _ in 0..100 {
        stage.network.stranger.enter(|| -> std::io::Result<()> {
            let socket = UdpSocket::bind((stranger, 0))?;
            for _ in 0..20 {
                socket.send_to(scan(pbx).as_bytes(), pbx)?;
            }
            Ok(())
        })??;
        thread::sleep(Duration::from_millis(100));
        ended = child.try_wait()?.is_some();
        if ended {
            break;
        }
    }
    let _ = child.kill();
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if std::env::var_os("SIPFILTER_SHOW").is_some() {
        eprintln!("{text}");
    }
    ensure!(
        ended && output.status.code() == Some(2),
        "{}: {text}",
        output.status
    );
    let packets = read(&disk.with_extension("pcapng"))?.len();
    ensure!(
        packets > 100
            && text.contains("No space left on device")
            && text.contains(&format!("its {packets} packets so far are a valid capture")),
        "{packets}: {text}"
    );
    // Nobody else has noticed.
    stage.talk(|_| true, 5)?;
    let status = stage
        .daemon
        .as_ref()
        .context("a filter")?
        .ctl(&["status", "--json"])?;
    ensure!(status["daemon"]["calls"] == 2, "{status}");
    Ok(())
}
