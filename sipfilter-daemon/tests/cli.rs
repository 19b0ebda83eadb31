//! `sipfilterctl` as a program: what it prints, and its exit status.

use std::{
    fs,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const GOOD: &str =
    "interfaces = [\"eth0\"]\n[pbx]\npreset = \"asterisk\"\n[[trunk]]\nprovider = \"vapi-us\"\n";
const BAD: &str = "interfaces = [\"eth0\"]\n[pbx]\nprest = \"asterisk\"\nrtp_ports = \"2-1\"\n[[trunk]]\nprovider = \"vapi-us\"\n";

fn sipfilterctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sipfilterctl"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn with_file(text: &str, run: impl FnOnce(&str)) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sipfilter.toml");
    fs::write(&path, text).expect("a file");
    run(path.to_str().expect("a plain path"));
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_good_file_is_0_a_bad_one_1_and_no_file_2() {
    with_file(GOOD, |path| {
        let output = sipfilterctl(&["check-config", "--config", path]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("the interfaces' own"));
        assert!(stdout(&output).contains("44.229.228.186/32"));
        assert!(stdout(&output).ends_with("is good\n"));
    });
    with_file(BAD, |path| {
        let output = sipfilterctl(&["check-config", "--config", path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains(&format!("{path}:3:1, key `pbx.prest`")));
        assert!(stdout(&output).contains(&format!("{path}:4:13, key `pbx.rtp_ports`")));
        assert!(stdout(&output).ends_with("has 2 errors\n"));
    });
    let output = sipfilterctl(&["check-config", "--config", "/nonexistent/sipfilter.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("cannot read the configuration /nonexistent/sipfilter.toml")
    );
}

#[test]
fn json_tells_the_same() {
    with_file(GOOD, |path| {
        let output = sipfilterctl(&["--json", "check-config", "--config", path]);
        assert_eq!(output.status.code(), Some(0));
        let answer = json(&output);
        assert_eq!(answer["ok"], true);
        assert_eq!(answer["effective"]["rtp_ports"], "10000-20000");
        assert_eq!(answer["effective"]["providers"][0]["name"], "vapi-us");
    });
    with_file(BAD, |path| {
        let output = sipfilterctl(&["check-config", "--json", "--config", path]);
        assert_eq!(output.status.code(), Some(1));
        let answer = json(&output);
        assert_eq!(answer["ok"], false);
        assert_eq!(answer["effective"], Value::Null);
        assert_eq!(answer["errors"][0]["key"], "pbx.prest");
        assert_eq!(answer["errors"][0]["line"], 3);
        assert_eq!(answer["errors"][1]["help"], "write \"1-2\"");
    });
}

#[test]
fn usage_errors_are_2() {
    for arguments in [
        &["no-such-command"][..],
        &[],
        &["check-config", "--no-such-option"],
    ] {
        let output = sipfilterctl(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(sipfilterctl(&["--help"]).status.code(), Some(0));
}

#[test]
fn providers_lists_the_catalogue_and_says_what_is_missing() {
    with_file(GOOD, |path| {
        let output = sipfilterctl(&["providers", "--json", "--config", path]);
        assert_eq!(output.status.code(), Some(0));
        let answer = json(&output);
        let providers = answer["providers"].as_array().expect("a list");
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/providers");
        assert_eq!(
            providers.len(),
            fs::read_dir(files).expect("the folder").count()
        );
        let of = |name: &str| {
            providers
                .iter()
                .find(|provider| provider["name"] == name)
                .expect("it is listed")
        };
        assert_eq!(of("vapi-us")["configured"], true);
        assert_eq!(of("vapi-us")["verified"], "2026-11-21");
        assert_eq!(of("twilio")["configured"], false);
        assert_eq!(of("twilio")["loadable"], true);
        assert_eq!(of("livekit")["loadable"], false);
        assert!(of("livekit")["missing"].is_string());
        let table = sipfilterctl(&["providers", "--config", path]);
        assert_eq!(table.status.code(), Some(0));
        assert!(stdout(&table).starts_with("PROVIDER"));
    });
}

#[test]
fn without_a_daemon_calls_and_calls_show_are_2_and_say_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = directory.path().to_str().expect("a plain path");
    for arguments in [
        &["calls"][..],
        &["calls", "show", "1"],
        &["--json", "calls", "show", "a/b?c"],
    ] {
        let output = sipfilterctl(&[&["--runtime-dir", runtime], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("sipfilterd is not running"),
            "{arguments:?}"
        );
    }
    for arguments in [&["calls", "show"][..], &["calls", "shew", "1"]] {
        let output = sipfilterctl(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("Usage:"),
            "{arguments:?}"
        );
    }
}

/// A daemon that knows no call, as far as the control program can tell.
#[test]
fn a_call_that_the_daemon_does_not_know_is_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = directory.path().to_str().expect("a plain path");
    let listener = UnixListener::bind(directory.path().join("control.sock")).expect("a socket");
    let daemon = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for (status, error) in [("404 Not Found", "no call"), ("409 Conflict", "2 calls")] {
            let (stream, path) = asked(&listener);
            requests.push(path);
            answer(stream, status, &format!("{{\"error\":\"{error}\"}}"));
        }
        requests
    });
    let output = sipfilterctl(&["--runtime-dir", runtime, "calls", "show", "a/b@c"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "no call\n");
    let output = sipfilterctl(&["--runtime-dir", runtime, "--json", "calls", "show", "7"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["error"], "2 calls");
    let requests = daemon.join().expect("both were asked");
    assert_eq!(requests, ["/v1/calls/a%2Fb%40c", "/v1/calls/7"]);
}

const CALL: &str = r#"{"number":7,"call_id":"abc@lab","provider_call_id":null,"provider":"lab","direction":"inbound","state":"confirmed","hold":false,"age_seconds":1.0,"local_media":[],"remote_media":[],"pinholes":[],"finding":null}"#;

/// A daemon as far as the control program can tell: a question's connection, and what was asked.
fn asked(listener: &UnixListener) -> (UnixStream, String) {
    use std::io::Read;

    let (mut stream, _) = listener.accept().expect("a question");
    let mut request = vec![0; 4_096];
    let length = stream.read(&mut request).expect("its text");
    let text = String::from_utf8_lossy(&request[..length]);
    let path = text.split(' ').nth(1).expect("a path").to_owned();
    (stream, path)
}

fn answer(mut stream: UnixStream, status: &str, body: &str) {
    use std::io::Write;

    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .expect("an answer");
}

#[test]
fn a_list_of_several_pages_is_shown_whole_also_where_they_may_not_be_asked_for_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = directory.path().to_str().expect("a plain path");
    let listener = UnixListener::bind(directory.path().join("control.sock")).expect("a socket");
    let daemon = std::thread::spawn(move || {
        let page = |number: &str| format!("[{}]", CALL.replace(":7,", &format!(":{number},")));
        let next = "200 OK\r\nlink: </v1/calls?after=1&limit=1>; rel=\"next\"";
        let answers = [
            (next, page("1")),
            ("429 Too Many Requests", String::new()),
            ("200 OK", page("2")),
        ];
        answers.map(|(status, body)| {
            let (stream, path) = asked(&listener);
            answer(stream, status, &body);
            path
        })
    });
    let output = sipfilterctl(&["--runtime-dir", runtime, "--json", "calls"]);
    assert_eq!(output.status.code(), Some(0));
    let told = json(&output);
    let number = |place: &str| told.pointer(place).and_then(Value::as_u64);
    let numbers = ["/calls/0/number", "/calls/1/number", "/calls/2/number"].map(number);
    assert_eq!(numbers, [Some(1), Some(2), None]);
    let again = "/v1/calls?after=1&limit=1";
    let requests = daemon.join().expect("all were asked");
    assert_eq!(requests, ["/v1/calls", again, again]);
}

/// In JSON it is escaped and means what it meant, in text it is replaced.
#[test]
fn a_peers_text_moves_no_cursor_and_turns_no_line() {
    const ODD: &str = "a\u{7f}b\u{9b}c\u{202e}d\u{2066}e\u{200f}f\u{2028}g";
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = directory.path().to_str().expect("a plain path");
    let listener = UnixListener::bind(directory.path().join("control.sock")).expect("a socket");
    let calls = format!("[{}]", CALL.replace("abc@lab", ODD));
    let event = format!(
        r#"{{"at":"2026-11-21T07:18:52.000Z","event":"call_started","call":7,"call_id":"{ODD}","provider":"lab","direction":"inbound"}}{}"#,
        "\n"
    );
    let daemon = std::thread::spawn(move || {
        for body in [&calls, &event] {
            for _ in ["text", "json"] {
                answer(asked(&listener).0, "200 OK", body);
            }
        }
    });
    for command in ["calls", "monitor"] {
        for json in [&[][..], &["--json"]] {
            let output = sipfilterctl(&[&["--runtime-dir", runtime, command], json].concat());
            assert_eq!(output.status.code(), Some(0));
            let text = stdout(&output);
            let odd = text.chars().find(|letter| {
                *letter != '\n'
                    && (letter.is_control() || ODD[1..].contains(*letter) && !letter.is_ascii())
            });
            assert_eq!(odd, None, "{command} {json:?}: {text:?}");
            if json.is_empty() {
                assert!(
                    text.contains("a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g"),
                    "{text}"
                );
            } else {
                assert!(
                    text.contains(r"a\u007fb\u009bc\u202ed\u2066e\u200ff\u2028g"),
                    "{text}"
                );
                let answer = self::json(&output);
                let id = answer
                    .pointer("/calls/0/call_id")
                    .unwrap_or(&answer["call_id"]);
                assert_eq!(id, ODD);
            }
        }
    }
    daemon.join().expect("it was asked four times");
}

/// What happens while the control program asks which calls there are is in the stream, which is open by then.
#[test]
fn monitor_knows_calls_that_began_before_and_misses_nothing_while_it_asks() {
    use std::io::Write;

    fn tell(stream: &mut UnixStream, line: &str) {
        write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1).expect("a reader");
    }
    let near = |call: u64| {
        format!(
            r#"{{"at":"2026-11-21T07:18:51.704Z","event":"drop","reason":"no_pinhole","verdict":"drop","interface":"eth0","direction":"in","protocol":"udp","source":"192.0.2.66:4000","destination":"203.0.113.10:10001","bytes":214,"near":{{"call":{call},"pinhole":"203.0.113.10:10000","how":"next_port"}}}}"#
        )
    };
    let started = |call: u64, id: &str| {
        format!(
            r#"{{"at":"2026-11-21T07:18:52.000Z","event":"call_started","call":{call},"call_id":"{id}","provider":"lab","direction":"inbound"}}"#
        )
    };
    let check = |calls: &str, expect: &[&str], complaint: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = directory.path().to_str().expect("a plain path");
        let listener = UnixListener::bind(directory.path().join("control.sock")).expect("a socket");
        let is_known = calls.contains("abc@lab");
        let events = [
            near(7),
            near(8),
            started(9, "abcd@lab"),
            near(9),
            started(10, "other@lab"),
            near(10),
        ];
        let calls = format!("[{calls}]");
        let daemon = std::thread::spawn(move || {
            let (mut stream, path) = asked(&listener);
            assert_eq!(path, "/v1/events");
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            .expect("a reader");
            let (question, path) = asked(&listener);
            assert_eq!(path, "/v1/calls");
            tell(&mut stream, &events[0]);
            answer(question, "200 OK", &calls);
            if !is_known {
                let (question, path) = asked(&listener);
                assert_eq!(path, "/v1/calls/abc");
                answer(question, "404 Not Found", r#"{"error":"no such call"}"#);
            }
            for event in &events[1..] {
                tell(&mut stream, event);
            }
        });
        let output = sipfilterctl(&["--runtime-dir", runtime, "monitor", "--call", "abc"]);
        daemon.join().expect("it was asked what it should be");
        assert_eq!(output.status.code(), Some(0));
        let lines: Vec<_> = stdout(&output).lines().collect();
        assert_eq!(lines.len(), expect.len(), "{lines:#?}");
        for (line, expect) in lines.iter().zip(expect) {
            assert!(line.contains(expect), "{line}");
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(complaint) && said.contains("has ended"),
            "{said}"
        );
    };
    check(
        CALL,
        &["call 7 has port 10000", "abcd@lab", "call 9 has port 10000"],
        "",
    );
    check("", &["abcd@lab", "call 9 has port 10000"], "no such call");
}

#[test]
fn explain_judges_by_a_configuration_alone() {
    const PROVIDER: &str = "44.229.228.186:5060";
    const STRANGER: &str = "198.51.100.7:4000";
    const SIP: &str = "203.0.113.10:5060";
    const MEDIA: &str = "203.0.113.10:12000";
    let good = GOOD.replace("[pbx]", "[pbx]\naddresses = [\"203.0.113.10\"]");
    let observing = format!("enforcement = \"observe\"\n{good}");
    #[track_caller]
    fn check(config: &str, words: &[&str], expect: (i32, &str, &str, Option<&str>)) {
        with_file(config, |path| {
            let output = sipfilterctl(&[&["--json", "explain", "--config", path], words].concat());
            let answer = json(&output);
            let found = (
                output.status.code().unwrap_or(-1),
                answer["verdict"].as_str().unwrap_or_default(),
                answer["reason"].as_str().unwrap_or_default(),
                answer["nearest_miss"]["why"].as_str(),
            );
            assert_eq!(found, expect, "{words:?}: {answer:#}");
            assert_eq!(answer["basis"], "configuration");
            let shown = sipfilterctl(&[&["explain", "--config", path], words].concat());
            assert_eq!(shown.status.code(), Some(expect.0));
            assert!(stdout(&shown).contains(expect.2), "{}", stdout(&shown));
        });
    }
    check(
        &good,
        &["udp", PROVIDER, SIP],
        (0, "pass", "signalling", None),
    );
    check(
        &good,
        &["tcp", PROVIDER, SIP],
        (0, "pass", "signalling", None),
    );
    let miss = Some("not_a_provider");
    check(
        &good,
        &["udp", STRANGER, SIP],
        (1, "drop", "unknown_source", miss),
    );
    check(
        &good,
        &["tcp", STRANGER, SIP],
        (1, "drop", "unknown_source", miss),
    );
    let observed = (0, "would drop", "unknown_source", miss);
    check(&observing, &["udp", STRANGER, SIP], observed);
    let miss = Some("unnamed");
    check(
        &good,
        &["udp", STRANGER, MEDIA],
        (1, "drop", "no_pinhole", miss),
    );
    check(
        &good,
        &["tcp", STRANGER, MEDIA],
        (0, "pass", "other_traffic", None),
    );
    let leaving = (0, "pass", "egress_foreign_signalling", None);
    check(
        &good,
        &["udp", SIP, STRANGER.replace("4000", "5060").as_str()],
        leaving,
    );
    let nobodys = (0, "pass", "not_protected", None);
    check(&good, &["udp", STRANGER, "198.51.100.8:5060"], nobodys);
    let output = with_output(&good, &["udp", STRANGER, "[2001:db8::1]:5060"]);
    assert_eq!(output.status.code(), Some(2));
    let output = with_output(&good, &["udp", "198.51.100.7", SIP]);
    assert_eq!(output.status.code(), Some(2), "a port is missing");

    fn with_output(config: &str, words: &[&str]) -> Output {
        let mut output = None;
        with_file(config, |path| {
            output = Some(sipfilterctl(
                &[&["explain", "--config", path], words].concat(),
            ));
        });
        output.expect("it ran")
    }
}
