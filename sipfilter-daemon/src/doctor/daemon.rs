//! The daemon: whether it runs and gets on, and what an earlier one has left in the kernel.

use std::{path::Path, process::Command};

use super::Findings;
use crate::{
    ctl,
    shell::{
        datapath,
        pins::{PinError, Pins},
    },
    view::{Check, Status},
};

/// Refusals that say that configuration and PBX do not fit, and what to do.
const TELLING: [(&str, &str); 4] = [
    (
        "refusals.foreign_local_address",
        "the PBX's SDP names an address that is not protected: add it to `pbx.addresses`, or say where it leads under [pbx.nat]",
    ),
    (
        "refusals.foreign_local_port",
        "the PBX's SDP names a port outside of `pbx.rtp_ports`: set it to the PBX's own range",
    ),
    (
        "refusals.foreign_remote_media",
        "a provider's SDP names media outside of its limits: compare the trunk's `media` with the provider's documents",
    ),
    (
        "refusals.tls",
        "SIP over TLS cannot be read: set the trunk's `media.replies`, or use UDP or TCP",
    ),
];

/// The daemon's own word, if it gives one.
pub(super) fn ask(runtime_dir: &Path) -> Option<Status> {
    ctl::ask_status(runtime_dir).ok()
}

pub(super) fn checks(runtime_dir: &Path, status: Option<&Status>) -> Vec<Check> {
    let mut found = Findings::of("daemon");
    match status {
        Some(status) => {
            found.ok(
                "running",
                format!(
                    "sipfilterd {} runs (process {}), {} calls, {} pinholes",
                    status.version, status.pid, status.calls, status.pinholes
                ),
            );
            counters(&mut found, status);
        }
        None => match ctl::ask_status(runtime_dir) {
            Err(error) => found.warning(
                "running",
                error.to_string(),
                "systemctl start sipfilterd; `journalctl -u sipfilterd` says why it does not run",
            ),
            // It has come up between the two questions.
            Ok(_) => found.ok("running", "sipfilterd runs"),
        },
    }
    let pins = Pins::of_runtime_dir(runtime_dir);
    let attached = datapath::attachments(&pins).len();
    match (pins.stamp(), status.is_some()) {
        (Ok(_), true) => found.ok("pinned", format!("its maps are pinned at {}", pins.directory().display())),
        (Ok(_), false) if attached > 0 => found.warning(
            "pinned",
            format!("no daemon, and its programs are still attached to {attached} interfaces: calls in progress go on, new ones get no media"),
            "start sipfilterd, which takes them over, or `sipfilterctl detach`",
        ),
        (Ok(_), false) => found.ok("pinned", format!("maps of an earlier run are pinned at {}; nothing is attached", pins.directory().display())),
        (Err(PinError::Absent { .. }), _) => found.ok("pinned", "nothing is left of an earlier run"),
        (Err(error @ PinError::WrongAbi { .. }), _) => found.warning(
            "pinned",
            error.to_string(),
            "the next start replaces them; calls in progress must be signalled again",
        ),
        (Err(error), _) => found.unknown(
            "pinned",
            error.to_string(),
            "run doctor as root: pinned maps are the daemon's user's and root's",
        ),
    }
    service(&mut found);
    found.checks
}

fn counters(found: &mut Findings, status: &Status) {
    let count = |name: &str| status.counters.get(name).copied().unwrap_or_default();
    for (name, remedy) in TELLING {
        let count = count(name);
        if count > 0 {
            found.problem(
                "refusals",
                format!("{name}: {count} since the start"),
                remedy,
            );
        }
    }
    if status.calls > 0 && count("messages_out") == 0 {
        found.problem(
            "one_way_signalling",
            "SIP is seen arriving, and none leaving: the PBX answers by another interface",
            "list every outer interface under `interfaces`",
        );
    }
}

/// What systemd says of it, where there is one.
fn service(found: &mut Findings) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let Ok(output) = Command::new("systemctl")
        .args([
            "show",
            "sipfilterd.service",
            "--property=LoadState,ActiveState,NRestarts,WatchdogUSec,Result",
        ])
        .output()
    else {
        return found.unknown(
            "service",
            "systemctl cannot be run",
            "look at the service yourself: systemctl status sipfilterd",
        );
    };
    judge_service(found, &String::from_utf8_lossy(&output.stdout));
}

fn judge_service(found: &mut Findings, text: &str) {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    if value("LoadState") != "loaded" {
        return found.ok("service", "no systemd service of that name");
    }
    let evidence = format!(
        "sipfilterd.service is {}, {} restarts, watchdog {}",
        value("ActiveState"),
        value("NRestarts"),
        value("WatchdogUSec")
    );
    let restarts: u32 = value("NRestarts").parse().unwrap_or_default();
    match value("Result") {
        "watchdog" => found.problem(
            "service",
            format!("{evidence}; the watchdog has killed it"),
            "`journalctl -u sipfilterd` shows what it was at",
        ),
        result if !result.is_empty() && result != "success" => found.problem(
            "service",
            format!("{evidence}; result: {result}"),
            "`journalctl -u sipfilterd`",
        ),
        _ if restarts > 0 => found.warning(
            "service",
            evidence,
            "`journalctl -u sipfilterd` says why it was restarted",
        ),
        _ => found.ok("service", evidence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_was_restarted_or_killed_is_told() {
        for (text, outcome) in [
            ("LoadState=not-found\n", "ok"),
            (
                "LoadState=loaded\nActiveState=active\nNRestarts=0\nResult=success\n",
                "ok",
            ),
            (
                "LoadState=loaded\nActiveState=active\nNRestarts=2\nResult=success\n",
                "warning",
            ),
            (
                "LoadState=loaded\nActiveState=failed\nNRestarts=5\nResult=watchdog\n",
                "problem",
            ),
            (
                "LoadState=loaded\nActiveState=failed\nNRestarts=0\nResult=exit-code\n",
                "problem",
            ),
        ] {
            let mut found = Findings::of("daemon");
            judge_service(&mut found, text);
            assert_eq!(found.checks[0].outcome, outcome, "{text}");
        }
    }
}
