//! What an observer reports: which calls enforcing would have broken, and by whom, after they have ended, too.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use sipfilter_daemon::view::Report;
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    call::Role,
    daemon::{self, Daemon, Mode},
    namespace::Namespace,
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::{
    Test,
    drops::{ctl, rtp, scan, until},
};

/// From where no SDP of the provider's says that it sends.
const FOREIGN_PORT: u16 = 30_000;

pub fn tests() -> Vec<Test> {
    let test = |name: &str, family| {
        Test::new(
            format!("report::what_enforcing_would_have_broken::{name}"),
            move || observed(family),
        )
    };
    vec![
        test("ipv4", Family::V4),
        test("ipv6", Family::V6),
        Test::new("report::a_silent_call_that_only_others_sent_to", silent),
    ]
}

fn send(
    from: &Namespace,
    ip: IpAddr,
    port: u16,
    to: SocketAddr,
    bytes: &[u8],
    times: u64,
) -> Result<()> {
    let socket = from.enter(|| UdpSocket::bind((ip, port)))??;
    for _ in 0..times {
        socket.send_to(bytes, to)?;
    }
    Ok(())
}

fn dropped(report: &Report) -> u64 {
    let all = report.calls.iter().flat_map(|call| &call.pinholes);
    all.map(|pinhole| pinhole.dropped_packets).sum()
}

fn observed(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let config = format!("enforcement = \"observe\"\n{config}");
    let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
    let mut stage = Stage::behind(Some(daemon), network, 3, 0)?;
    let ask = |stage: &Stage, is_so: &dyn Fn(&Report) -> bool| {
        let daemon = stage.daemon.as_ref().context("a daemon")?;
        until::<Report>(daemon, &["--json", "report"], is_so)
    };
    let quiet = ask(&stage, &|_| true)?;
    ensure!(
        !quiet.safe_to_enforce && quiet.objections.len() == 1,
        "without a call nothing is known: {quiet:#?}"
    );
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 20)?;
    let [_, sprayed, moved] = [0, 1, 2].map(|index| stage.calls[index].clone());

    let stranger = Place::Stranger.address(family);
    send(
        &stage.network.stranger,
        stranger,
        4_000,
        sprayed.pbx_media,
        &rtp(),
        8,
    )?;
    let report = ask(&stage, &|report| {
        dropped(report) == 8 && report.calls.iter().any(|call| !call.sources.is_empty())
    })?;
    ensure!(
        report.safe_to_enforce && report.enforcement == "observe" && report.calls_answered == 3,
        "strangers are no reason not to enforce: {report:#?}"
    );
    let provider = moved.provider_media.ip();
    send(
        &stage.network.provider,
        provider,
        FOREIGN_PORT,
        moved.pbx_media,
        &rtp(),
        12,
    )?;
    ask(&stage, &|report| {
        dropped(report) == 20 && report.calls.len() == 2
    })?;
    stage.cue(|_| true, Role::Caller, Cue::Proceed, Progress::Ended)?;
    let pbx = SocketAddr::new(Place::PbxCallee.address(family), SIP_PORT);
    send(
        &stage.network.stranger,
        stranger,
        SIP_PORT,
        pbx,
        scan(pbx).as_bytes(),
        3,
    )?;

    let report = ask(&stage, &|report| {
        report
            .reasons
            .iter()
            .any(|row| row.reason == "unknown_source" && row.packets == 3)
            && !report.rest.is_empty()
    })?;
    let [lost, hit] = report.calls.as_slice() else {
        anyhow::bail!("two calls were hit: {report:#?}");
    };
    ensure!(!report.safe_to_enforce, "a call loses media: {report:#?}");
    ensure!(
        lost.loses_media && lost.call_id.is_some() && lost.provider == "lab",
        "{lost:#?}"
    );
    let [pinhole] = lost.pinholes.as_slice() else {
        anyhow::bail!("one port was hit: {lost:#?}");
    };
    ensure!(
        (
            pinhole.local,
            pinhole.ingress_packets,
            pinhole.dropped_packets
        ) == (moved.pbx_media, 20, 12),
        "{pinhole:#?}"
    );
    let [source] = lost.sources.as_slice() else {
        anyhow::bail!("one source hit it: {lost:#?}");
    };
    ensure!(
        source.is_own
            && (
                source.source,
                source.port,
                source.reason.as_str(),
                source.packets
            ) == (provider, FOREIGN_PORT, "wrong_source", 12),
        "{source:#?}"
    );
    ensure!(
        !hit.loses_media
            && hit.pinholes[0].local == sprayed.pbx_media
            && hit.pinholes[0].dropped_packets == 8,
        "{hit:#?}"
    );
    ensure!(
        report
            .rest
            .iter()
            .any(|row| row.reason == "unknown_source" && row.packets == 3),
        "{report:#?}"
    );
    let daemon = stage.daemon.as_ref().context("a daemon")?;
    let shown = ctl(daemon.runtime())?.arg("report").output()?;
    let text = String::from_utf8_lossy(&shown.stdout);
    ensure!(shown.status.code() == Some(1), "{:?}: {text}", shown.status);
    ensure!(
        text.contains("CALLS THAT LOSE MEDIA") && text.contains(&moved.pbx_media.to_string()),
        "{text}"
    );
    Ok(())
}

/// As long as nothing of its own came, others' packets are told as theirs; once it has its media, they are no reason not to enforce.
fn silent() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let config = format!("enforcement = \"observe\"\n{config}");
    let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
    let mut stage = Stage::behind(Some(daemon), network, 1, 0)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let local = stage.calls[0].pbx_media;
    let stranger = Place::Stranger.address(Family::V4);
    send(&stage.network.stranger, stranger, 4_000, local, &rtp(), 8)?;
    let ask = |stage: &Stage, is_so: &dyn Fn(&Report) -> bool| -> Result<(Report, String)> {
        let daemon = stage.daemon.as_ref().context("a daemon")?;
        let report = until::<Report>(daemon, &["--json", "report"], is_so)?;
        let shown = ctl(daemon.runtime())?.arg("report").output()?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        ensure!(
            shown.status.code() == Some(i32::from(!report.safe_to_enforce)),
            "{:?}: {text}",
            shown.status
        );
        if std::env::var_os("SIPFILTER_SHOW").is_some() {
            eprintln!("$ sipfilterctl report\n{text}");
        }
        Ok((report, text))
    };
    let (report, text) = ask(&stage, &|report| {
        dropped(report) == 8 && report.calls.iter().any(|call| !call.sources.is_empty())
    })?;
    let [call] = report.calls.as_slice() else {
        anyhow::bail!("one call was hit: {report:#?}");
    };
    ensure!(
        call.only_others
            && call.because.contains(&format!(
                "no media of its own came to {local}; of 8 packets to be dropped, all were looked at"
            )),
        "{call:#?}"
    );
    ensure!(
        !report.safe_to_enforce
            && report.objections.len() == 1
            && report.objections[0].starts_with("a call was silent"),
        "{report:#?}"
    );
    ensure!(
        text.contains("SILENT CALLS THAT ONLY OTHERS SENT TO") && !text.contains("LOSE MEDIA"),
        "{text}"
    );
    stage.talk(|_| true, 5)?;
    let (report, text) = ask(&stage, &|report| report.safe_to_enforce)?;
    ensure!(
        !report.calls[0].only_others && !report.calls[0].loses_media,
        "{report:#?}"
    );
    ensure!(
        text.contains("CALLS THAT OTHERS SENT TO") && !text.contains("SILENT"),
        "{text}"
    );
    Ok(())
}
