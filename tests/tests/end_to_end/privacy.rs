//! `[privacy]`: a call by somebody with a number, a name, addresses and a password, and where they are found afterwards: in the log at its
//! most talkative, in every answer, in a capture.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::{
    address::{Family, PBX_RTP_FIRST, PROVIDER_RTP_FIRST, Place, SIP_PORT},
    daemon::{Daemon, Mode, config},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::{
    Test,
    drops::{Following, rtp},
};

const NUMBER: &str = "4930987654321";
const NAME: &str = "Quirinius";
const SECRETS: [&str; 3] = ["0a4f113bnonce", "5ccc069ccnonce", "6629fae4response"];
const PATIENCE: Duration = Duration::from_secs(5);

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "one_setting_says_who_is_named_in_log_answers_and_captures",
        privacy,
    )]
}

/// What must be found, and what must not.
struct Case {
    redact: &'static str,
    named: fn(&People) -> Vec<String>,
    hidden: fn(&People) -> Vec<String>,
}

struct People {
    provider: SocketAddr,
    media: SocketAddr,
    stranger: SocketAddr,
    pbx: SocketAddr,
    local: SocketAddr,
}

impl People {
    fn users(&self) -> Vec<String> {
        vec![NUMBER.to_owned(), NAME.to_owned()]
    }

    fn addresses(&self) -> Vec<String> {
        let all = [self.provider, self.media, self.stranger];
        all.iter().map(|at| at.ip().to_string()).collect()
    }
}

const CASES: [Case; 3] = [
    Case {
        redact: "none",
        named: |people| [people.users(), people.addresses()].concat(),
        hidden: |_| Vec::new(),
    },
    Case {
        redact: "users",
        named: People::addresses,
        hidden: People::users,
    },
    Case {
        redact: "users-and-addresses",
        named: |people| vec![people.local.to_string()],
        hidden: |people| [people.users(), people.addresses()].concat(),
    },
];

fn privacy() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let at = |place: Place, port| SocketAddr::new(place.address(Family::V4), port);
    let people = People {
        provider: at(Place::ProviderCaller, SIP_PORT),
        media: at(Place::ProviderMedia(7), PROVIDER_RTP_FIRST),
        stranger: at(Place::Stranger, SIP_PORT),
        pbx: at(Place::PbxCallee, SIP_PORT),
        local: at(Place::PbxCallee, PBX_RTP_FIRST),
    };
    let mut stage = Stage::behind(None, network, 0, 0)?;
    for case in CASES {
        let base = config(&stage.network, &[OUTER], Mode::Native);
        for format in ["text", "json"] {
            let text = format!(
                "{base}\n[log]\nlevel = \"trace\"\nformat = \"{format}\"\n[privacy]\nredact = \"{}\"\n",
                case.redact
            );
            let name = format!("privacy-{}-{format}", case.redact);
            stage.daemon = Some(Daemon::start_with(&stage.network, &name, &text)?);
            check(&stage, &people, &case, &name).with_context(|| name.clone())?;
            if case.redact == "none" {
                change(&stage, &text).with_context(|| format!("{name}, reloaded"))?;
            }
            let daemon = stage.daemon.take().context("a filter")?;
            daemon.stop(Signal::TERM)?;
        }
    }
    Ok(())
}

fn check(stage: &Stage, people: &People, case: &Case, name: &str) -> Result<()> {
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let file = |what: &str| {
        stage
            .network
            .directory
            .path()
            .join(format!("{name}.{what}"))
    };
    let files = ["signalling", "drops"].map(file);
    let path = |at: usize| files[at].display().to_string();
    let followed = [
        Following::start(stage, &format!("{name}.monitor"), &["--json", "monitor"])?,
        Following::start(
            stage,
            &format!("{name}.c1"),
            &["capture", "--signalling", "-w", &path(0)],
        )?,
        Following::start(
            stage,
            &format!("{name}.c2"),
            &["capture", "--drops", "-w", &path(1)],
        )?,
    ];
    // They must not miss the beginning.
    thread::sleep(Duration::from_millis(500));
    call(stage, people)?;
    thread::sleep(Duration::from_millis(500));
    let mut answers = String::new();
    for arguments in [
        &["status"][..],
        &["calls"],
        &["calls", "show", "1"],
        &["pinholes"],
        &["drops"],
        &["strangers"],
        &["report"],
        &["top", "--interval", "0.2"],
    ] {
        let answer = daemon.ctl(&[&["--json"], arguments].concat())?;
        answers += &format!("{arguments:?}: {answer}\n");
    }
    // It says again what it was asked, and looks at the kernel's maps itself.
    let [media, local] = [people.media, people.local].map(|at| at.to_string());
    let explained = daemon.ctl(&["--json", "explain", "udp", &media, &local])?;
    ensure!(explained["verdict"] == "pass", "{explained}");
    let closed = daemon.ctl(&["--json", "calls", "close", "1"])?;
    answers += &format!("close: {closed}\n");
    let [monitor, signalling, drops] = followed;
    let mut told = vec![("answers", answers), ("log", daemon.log())];
    for following in [&monitor, &signalling, &drops] {
        following.signal(Signal::INT)?;
    }
    told.push(("monitor", monitor.end()?.1));
    signalling.end()?;
    drops.end()?;
    let mut packets = Vec::new();
    for file in &files {
        packets.extend(fs::read(file).with_context(|| file.display().to_string())?);
    }
    told.push(("captures", String::from_utf8_lossy(&packets).into_owned()));
    for (what, text) in &told {
        for hidden in (case.hidden)(people) {
            ensure!(!text.contains(&hidden), "{what} names {hidden}:\n{text}");
        }
    }
    // Headers of packets have addresses as bytes.
    let header = |at: SocketAddr| match at.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    };
    for at in [people.provider, people.stranger] {
        let is_there = packets.windows(4).any(|bytes| bytes == header(at));
        let expected = case.redact != "users-and-addresses";
        ensure!(is_there == expected, "{at} in captured headers: {is_there}");
    }
    let all: String = told.iter().map(|(_, text)| text.as_str()).collect();
    for named in (case.named)(people) {
        ensure!(all.contains(&named), "{named} is named nowhere:\n{all}");
    }
    for secret in SECRETS {
        for (what, text) in told.iter().filter(|(what, _)| *what != "captures") {
            ensure!(!text.contains(secret), "{what} tells {secret}:\n{text}");
        }
    }
    let (_, captured) = told.last().context("captures")?;
    ensure!(!captured.contains(SECRETS[2]), "captured: {captured}");
    // What stands for the number is the same everywhere.
    let (_, answers) = told.first().context("answers")?;
    let token = answers
        .split("\"call_id\":\"")
        .nth(1)
        .and_then(|rest| rest.split('@').next())
        .context("a Call-ID")?;
    ensure!(token.len() == NUMBER.len(), "{token}");
    for (what, text) in &told {
        ensure!(
            text.contains(token),
            "{what} does not tell {token}:\n{text}"
        );
    }
    ensure!(
        captured.contains(&format!("INVITE sip:100@{} SIP/2.0", people.pbx.ip()))
            || case.redact != "none",
        "{captured}"
    );
    Ok(())
}

/// A reload changes the setting, back and forth, and what stands for somebody stays.
fn change(stage: &Stage, config: &str) -> Result<()> {
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let shown = |redact: &str| -> Result<String> {
        let config = config.replace("redact = \"none\"", &format!("redact = \"{redact}\""));
        let answer = daemon.reload(&config)?;
        ensure!(answer["ok"] == true, "{answer}");
        Ok(daemon.ctl(&["--json", "calls", "show", "1"])?["call_id"].to_string())
    };
    ensure!(shown("none")?.contains(NUMBER), "it is not named");
    let told = shown("users")?;
    ensure!(!told.contains(NUMBER), "{told}");
    ensure!(shown("none")?.contains(NUMBER), "it is not named again");
    let again = shown("users")?;
    ensure!(again == told, "{told} became {again}");
    Ok(())
}

/// A call with a challenge, a REFER, and strangers who knock.
fn call(stage: &Stage, people: &People) -> Result<()> {
    let network = &stage.network;
    let bind = |at: SocketAddr| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let provider = network.provider.enter(|| bind(people.provider))??;
    let pbx = network.pbx().enter(|| bind(people.pbx))??;
    let (there, here) = (people.provider, people.pbx);
    let user = format!("\"{NAME}\" <sip:+{NUMBER}@{}>", there.ip());
    let head = |first: &str, branch: u32, tag: &str, cseq: &str, more: &str, body: &str| {
        format!(
            "{first}\r\nVia: SIP/2.0/UDP {there};branch=z9hG4bK{branch}\r\nFrom: {user};tag=a\r\nTo: <sip:100@{}>{tag}\r\n\
             Call-ID: {NUMBER}@{}\r\nCSeq: {cseq}\r\nContact: {user}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            here.ip(),
            there.ip(),
            body.len(),
        )
    };
    let sdp = |at: SocketAddr| {
        format!(
            "v=0\r\no={NUMBER} 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
            at.port(),
            ip = at.ip(),
        )
    };
    let sdp_type = "Content-Type: application/sdp\r\n";
    let invite = format!("INVITE sip:100@{} SIP/2.0", here.ip());
    let say = |from: &UdpSocket, to: &UdpSocket, text: String| -> Result<()> {
        from.send_to(text.as_bytes(), to.local_addr()?)?;
        to.recv(&mut [0; 65536]).with_context(|| text)?;
        Ok(())
    };
    let [nonce, cnonce, response] = SECRETS;
    let challenge =
        format!("Proxy-Authenticate: Digest realm=\"pbx\", nonce=\"{nonce}\", qop=\"auth\"\r\n");
    let credentials = format!(
        "Proxy-Authorization: Digest username=\"{NUMBER}\", realm=\"pbx\", nonce=\"{nonce}\", uri=\"sip:100@pbx\", cnonce=\"{cnonce}\", nc=00000001, qop=auth, response=\"{response}\"\r\n{sdp_type}"
    );
    let offer = sdp(people.media);
    say(
        &provider,
        &pbx,
        head(&invite, 1, "", "1 INVITE", sdp_type, &offer),
    )?;
    let denied = "SIP/2.0 407 Proxy Authentication Required";
    say(
        &pbx,
        &provider,
        head(denied, 1, ";tag=x", "1 INVITE", &challenge, ""),
    )?;
    let ack = format!("ACK sip:100@{} SIP/2.0", here.ip());
    say(&provider, &pbx, head(&ack, 1, ";tag=x", "1 ACK", "", ""))?;
    say(
        &provider,
        &pbx,
        head(&invite, 2, "", "2 INVITE", &credentials, &offer),
    )?;
    let answer = sdp(people.local);
    say(
        &pbx,
        &provider,
        head("SIP/2.0 200 OK", 2, ";tag=b", "2 INVITE", sdp_type, &answer),
    )?;
    say(&provider, &pbx, head(&ack, 3, ";tag=b", "2 ACK", "", ""))?;
    let refer = format!("REFER sip:100@{} SIP/2.0", here.ip());
    let transfer = format!("Refer-To: {user}\r\nReferred-By: {user}\r\n");
    say(
        &provider,
        &pbx,
        head(&refer, 4, ";tag=b", "3 REFER", &transfer, ""),
    )?;
    say(
        &pbx,
        &provider,
        head("SIP/2.0 202 Accepted", 4, ";tag=b", "3 REFER", "", ""),
    )?;
    network.stranger.enter(|| -> std::io::Result<()> {
        let stranger = UdpSocket::bind(people.stranger)?;
        stranger.send_to(
            head(&invite, 5, "", "1 INVITE", &credentials, &offer).as_bytes(),
            here,
        )?;
        stranger.send_to(&rtp(), people.local)?;
        Ok(())
    })??;
    Ok(())
}
