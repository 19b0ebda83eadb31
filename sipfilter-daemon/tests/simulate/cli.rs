//! `sipfilterctl simulate` as a program: what it prints, and its exit status.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;

use crate::film::{PARTIES, PBX, SIGNALLING, STRANGER, at, whole_call};

const CONFIG: &str = r#"interfaces = ["eth0"]
[pbx]
rtp_ports = "10000-20000"
addresses = ["203.0.113.10"]
[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
media = { source = "signalled", ports = "40000-60000" }
[[trunk]]
provider = "lab"
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().expect("a directory"));
        let mut film = whole_call();
        film.rtp(&at(STRANGER, 41_000), &PARTIES.ours(), 3);
        this.write("call.pcap", &film.pcap());
        this.write("sipfilter.toml", CONFIG.as_bytes());
        this
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).expect("a file");
    }

    fn simulate(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sipfilterctl"))
            .current_dir(self.0.path())
            .arg("simulate")
            .args(arguments)
            .output()
            .expect("the program starts")
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_configuration_or_the_command_line_names_pbx_and_provider() {
    let folder = Folder::new();
    let pbx = ["--pbx", PBX];
    let without = [&pbx[..], &["--rtp-ports", "10000-20000"]].concat();
    for arguments in [
        vec!["--config", "sipfilter.toml"],
        [&without[..], &["--provider", SIGNALLING]].concat(),
        [
            &without[..],
            &[
                "--provider",
                "198.51.100.0/24",
                "--provider",
                "2001:db8::/32",
            ],
        ]
        .concat(),
        [&without[..], &["--any-provider"]].concat(),
        [&pbx[..], &["--any-provider"]].concat(),
        ["--config", "sipfilter.toml", "--any-provider"].to_vec(),
    ] {
        let output = folder.simulate(&[&["call.pcap", "--json"], &arguments[..]].concat());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        let report = json(&output);
        assert_eq!(report["passed"], 106, "{arguments:?}");
        assert_eq!(report["dropped"], 3, "{arguments:?}");
        assert_eq!(report["calls"][0]["media"]["passed"], 50, "{arguments:?}");
    }
}

#[test]
fn the_schema_is_stable() {
    let folder = Folder::new();
    let output = folder.simulate(&["call.pcap", "--config", "sipfilter.toml", "--json"]);
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let report = json(&output);
    for key in [
        "/capture/format",
        "/capture/link_types",
        "/capture/start",
        "/capture/seconds",
        "/capture/cut",
        "/capture/out_of_order",
        "/capture/unreadable",
        "/capture/incomplete",
        "/settings/pbx",
        "/settings/rtp_ports",
        "/settings/providers",
        "/packets",
        "/ingress",
        "/egress",
        "/unrelated",
        "/passed",
        "/dropped",
        "/reasons/media",
        "/calls_left_out",
        "/flows_left_out/packets",
        "/engine/calls",
        "/calls/0/number",
        "/calls/0/call_id",
        "/calls/0/provider_call_id",
        "/calls/0/provider",
        "/calls/0/direction",
        "/calls/0/state",
        "/calls/0/end_reason",
        "/calls/0/started_seconds",
        "/calls/0/confirmed_seconds",
        "/calls/0/ended_seconds",
        "/calls/0/local_media/0",
        "/calls/0/remote_media/0",
        "/calls/0/media/passed",
        "/calls/0/media/dropped",
        "/calls/0/media/sent",
        "/calls/0/media/near_misses",
        "/calls/0/pinholes/0/local",
        "/calls/0/pinholes/0/stream",
        "/calls/0/pinholes/0/also",
        "/calls/0/pinholes/0/sources/0/net",
        "/calls/0/pinholes/0/sources/0/ports",
        "/calls/0/pinholes/0/opened_seconds",
        "/calls/0/pinholes/0/closed_seconds",
        "/calls/0/refusals",
    ] {
        assert!(report.pointer(key).is_some(), "{key}");
    }
    let flows = report["flows"].as_array().expect("a list");
    for flow in flows {
        for key in [
            "src",
            "dst",
            "protocol",
            "direction",
            "kind",
            "packets",
            "passed",
            "dropped",
            "first_seconds",
            "last_seconds",
            "calls",
            "nearest",
        ] {
            assert!(flow.get(key).is_some(), "{key} in {flow}");
        }
    }
    let dropped = flows.last().expect("a flow");
    assert_eq!(dropped["src"], at(STRANGER, 41_000));
    assert_eq!(dropped["kind"], "rtp");
    for key in ["why", "packets", "call", "text"] {
        assert!(dropped["nearest"][0].get(key).is_some(), "{key}");
    }
}

#[test]
fn people_get_tables() {
    let folder = Folder::new();
    let output = folder.simulate(&["call.pcap", "--config", "sipfilter.toml"]);
    assert_eq!(output.status.code(), Some(0));
    let text = text(&output.stdout);
    for words in [
        "109 (56 to the PBX, 53 from it, 0 unrelated)",
        "calls: 1; media in: 50 passed, 0 dropped; media out: 50",
        "one@example.com",
        "flows with drops: 1 of 5",
        "a pinhole of call 1 existed until",
    ] {
        assert!(text.contains(words), "{words:?} in:\n{text}");
    }
}

#[test]
fn failures_are_2_and_say_the_way_out() {
    let folder = Folder::new();
    let whole = fs::read(folder.0.path().join("call.pcap")).expect("the capture");
    folder.write("short.pcap", &whole[..whole.len() - 10]);
    folder.write("garbage.pcap", b"this is no capture");
    let config = ["--config", "sipfilter.toml"];
    for (arguments, words) in [
        (&["none.pcap"][..], "cannot open the capture none.pcap"),
        (&["garbage.pcap"], "it is no pcap or pcapng capture"),
        (
            &["short.pcap"],
            "the capture short.pcap is incomplete: it ends in the middle of a record, after 108 whole packets",
        ),
        (
            &["call.pcap", "--rtp-ports", "5000-6000"],
            "hold the SIP port 5060",
        ),
        (&["call.pcap", "--rtp-ports", "9-8"], "such as 10000-20000"),
        (
            &["call.pcap", "--provider", "nobody"],
            "such as 198.51.100.0/24",
        ),
        (
            &["call.pcap", "--provider", "192.0.2.1", "--any-provider"],
            "cannot be used with",
        ),
        (&["call.pcap", "--pbx", "pbx.example.com"], "invalid"),
        (&[], "CAPTURE"),
    ] {
        let output = folder.simulate(&[arguments, &config[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{words:?} in {}",
            text(&output.stderr)
        );
    }
    for (arguments, words) in [
        (&["call.pcap"][..], "--pbx ADDR"),
        (&["call.pcap", "--pbx", PBX], "--any-provider"),
        (
            &["call.pcap", "--config", "none.toml"],
            "cannot read the configuration none.toml",
        ),
    ] {
        let output = folder.simulate(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{words:?} in {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_was_read_before_the_break_is_reported() {
    let folder = Folder::new();
    let whole = fs::read(folder.0.path().join("call.pcap")).expect("the capture");
    folder.write("short.pcap", &whole[..whole.len() - 10]);
    let output = folder.simulate(&["short.pcap", "--config", "sipfilter.toml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let report = json(&output);
    assert_eq!(report["packets"], 108);
    assert!(report["capture"]["incomplete"].is_string());
}

#[test]
fn a_configuration_for_another_machines_interfaces_needs_the_address() {
    let folder = Folder::new();
    let text_of = CONFIG
        .replace("addresses = [\"203.0.113.10\"]\n", "")
        .replace("eth0", "nonexistent0");
    folder.write("interface.toml", text_of.as_bytes());
    let config = ["call.pcap", "--json", "--config", "interface.toml"];
    let output = folder.simulate(&config);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("--pbx ADDR"),
        "{}",
        text(&output.stderr)
    );
    let output = folder.simulate(&[&config[..], &["--pbx", PBX]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(json(&output)["passed"], 106);
}
