//! DNS as a hint: a real server's answers, compared with what a catalogue lets in, and nothing changed by it.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sipfilter_daemon::view::NameCheck;
use sipfilter_tests::lab::{
    cleanup::{self, Directory},
    daemon::find_program,
    namespace::Namespace,
    schema,
};

use crate::Test;

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
/// Somebody who takes questions and answers none.
const SILENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5_300);
const PATIENCE: Duration = Duration::from_secs(10);
/// More addresses than fit a datagram without extensions (RFC 1035 §4.2.1), so that the answer comes over TCP.
const MANY: u8 = 60;

const ZONE: &str = "
port=53
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
user=root
local=/example/
host-record=good.example,198.51.100.10,2001:db8:51::a
cname=alias.example,good.example
srv-host=_sip._udp.good.example,gw.good.example,5060,10,20
host-record=gw.good.example,198.51.100.11
host-record=moved.example,198.51.100.10
host-record=moved.example,192.0.2.7
host-record=port.example,198.51.100.10
srv-host=_sips._tcp.port.example,gw.good.example,5071
srv-host=_sip._udp.far.example,gw.far.example,5060
host-record=gw.far.example,192.0.2.9
";

/// A profile of the catalogue, and what is found: arguments, finding, exit status, addresses that are not let in, words of the text.
struct Case {
    provider: &'static str,
    more: &'static [&'static str],
    finding: &'static str,
    status: i32,
    outside: &'static [&'static str],
    text: &'static str,
}

const CASES: &[Case] = &[
    Case {
        provider: "good",
        more: &[],
        finding: "agrees",
        status: 0,
        outside: &[],
        text: "let in, and not in DNS: 203.0.113.77",
    },
    Case {
        provider: "alias",
        more: &[],
        finding: "agrees",
        status: 0,
        outside: &[],
        text: "DNS and what is let in agree",
    },
    Case {
        provider: "many",
        more: &[],
        finding: "agrees",
        status: 0,
        outside: &[],
        text: "198.51.100.160",
    },
    Case {
        provider: "moved",
        more: &[],
        finding: "differs",
        status: 1,
        outside: &["192.0.2.7"],
        text: "sipfilterctl strangers",
    },
    Case {
        provider: "far",
        more: &[],
        finding: "differs",
        status: 1,
        outside: &["192.0.2.9"],
        text: "gw.far.example",
    },
    Case {
        provider: "port",
        more: &[],
        finding: "differs",
        status: 1,
        outside: &[],
        text: "port NO",
    },
    Case {
        provider: "gone",
        more: &[],
        finding: "differs",
        status: 1,
        outside: &[],
        text: "does not know gone.example any more",
    },
    Case {
        provider: "good",
        more: &["--resolver", "127.0.0.1:5300"],
        finding: "no_answer",
        status: 2,
        outside: &[],
        text: "no answer in time",
    },
    Case {
        provider: "good",
        more: &["--host", "moved.example"],
        finding: "differs",
        status: 1,
        outside: &["192.0.2.7"],
        text: "192.0.2.7",
    },
    Case {
        provider: "livekit",
        more: &["--host", "good.example"],
        finding: "nothing_to_compare",
        status: 0,
        outside: &["198.51.100.10", "198.51.100.11", "2001:db8:51::a"],
        text: "no signalling addresses to compare with",
    },
];

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "names::dns_is_compared_and_changes_nothing",
        compared,
    )]
}

/// A DNS server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        cleanup::forget_child(self.0.id());
    }
}

impl Server {
    fn start(namespace: &Namespace, directory: &Path) -> Result<Self> {
        let hosts = directory.join("hosts");
        let mut lines = String::new();
        for last in 101..=100 + MANY {
            writeln!(lines, "198.51.100.{last} many.example")?;
        }
        fs::write(&hosts, lines)?;
        let file = directory.join("dnsmasq.conf");
        fs::write(&file, format!("{ZONE}addn-hosts={}\n", hosts.display()))?;
        let child = namespace
            .command("dnsmasq")
            .args(["--keep-in-foreground", "--pid-file", "--log-facility=-"])
            .arg(format!("--conf-file={}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("dnsmasq.log"))?)
            .spawn()
            .context("cannot start dnsmasq: install dnsmasq-base")?;
        cleanup::register_child(child.id());
        let this = Self(child);
        let deadline = Instant::now() + PATIENCE;
        while namespace.enter(|| TcpStream::connect(SERVER))?.is_err() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(directory.join("dnsmasq.log"))?;
                bail!("dnsmasq does not listen: {log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }
}

fn profile(name: &str) -> String {
    format!(
        "name = \"{name}\"\nsource = \"a letter\"\nverified = \"2026-11-21\"\nnames = [\"{name}.example\"]\n\
         signalling = [\"198.51.100.0/24\", \"2001:db8:51::/64\", \"203.0.113.77/32\"]\nmedia = {{ ports = \"40000-60000\" }}\n"
    )
}

fn compared() -> Result<()> {
    let lab = cleanup::unique_name();
    let directory = Directory::create(&lab)?;
    let namespace = Namespace::create(&lab, "dns")?;
    let _server = Server::start(&namespace, directory.path())?;
    let _silent = namespace.enter(|| UdpSocket::bind(SILENT))??;
    let providers = directory.path().join("catalogue/providers");
    fs::create_dir_all(&providers)?;
    for name in ["good", "alias", "many", "moved", "far", "port", "gone"] {
        fs::write(providers.join(format!("{name}.toml")), profile(name))?;
    }
    let config = directory.path().join("sipfilter.toml");
    let text = "interfaces = [\"eth0\"]\ncatalogue = \"catalogue\"\n[pbx]\npreset = \"asterisk\"\n[[trunk]]\nprovider = \"good\"\n";
    fs::write(&config, text)?;
    let ask = |words: &[&str], json: bool| -> Result<(Option<i32>, String, String)> {
        let program = find_program("sipfilterctl")?;
        let mut command = namespace.command(program.to_str().context("a plain path")?);
        if json {
            command.arg("--json");
        }
        let output = command.args(words).arg("--config").arg(&config).output()?;
        let [out, err] = [output.stdout, output.stderr].map(String::from_utf8);
        Ok((output.status.code(), out?, err?))
    };
    for case in CASES {
        let mut words = vec!["providers", "check", case.provider];
        words.extend(case.more);
        if !case.more.contains(&"--resolver") {
            words.extend(["--resolver", "127.0.0.1:53"]);
        }
        let begun = Instant::now();
        let (status, answer, error) = ask(&words, true)?;
        ensure!(
            begun.elapsed() < Duration::from_secs(25),
            "{words:?} took too long"
        );
        ensure!(
            status == Some(case.status),
            "{words:?}: {status:?}: {answer}{error}"
        );
        let value = serde_json::from_str(&answer)?;
        schema::check(&words, &value)?;
        let found: NameCheck = serde_json::from_value(value)?;
        let [provider] = found.providers.as_slice() else {
            bail!("{words:?}: one provider was asked about: {found:#?}");
        };
        let mut outside: Vec<String> = provider
            .lookups
            .iter()
            .flat_map(|lookup| &lookup.addresses)
            .filter(|found| found.inside.is_none())
            .map(|found| found.address.to_string())
            .collect();
        outside.sort();
        outside.dedup();
        ensure!(
            provider.finding == case.finding && outside == case.outside,
            "{words:?}: not {} with {:?} outside: {found:#?}",
            case.finding,
            case.outside
        );
        ensure!(found.agrees == (case.status == 0), "{words:?}: {found:#?}");
        if case.provider == "many" {
            let addresses = provider.lookups.iter().map(|lookup| lookup.addresses.len());
            ensure!(addresses.sum::<usize>() == usize::from(MANY), "{found:#?}");
        }
        let (status, text, _) = ask(&words, false)?;
        ensure!(
            status == Some(case.status) && text.contains(case.text),
            "{words:?}: no {:?}: {status:?}: {text}",
            case.text
        );
    }
    for (words, expect) in [
        (["providers", "check", "twilio"].as_slice(), "--host"),
        (&["providers", "check", "nobody"], "sipfilterctl providers"),
        (
            &["providers", "check", "good", "far", "--host", "a.example"],
            "--host is for one",
        ),
        (
            &["providers", "check", "good", "--host", "sip:a"],
            "not a host name",
        ),
    ] {
        let (status, out, error) = ask(words, false)?;
        ensure!(
            status == Some(2) && out.is_empty() && error.contains(expect),
            "{words:?}: {status:?}: {out}{error}"
        );
    }
    ensure!(
        fs::read_to_string(&config)? == text,
        "the configuration was changed"
    );
    for file in fs::read_dir(&providers)? {
        let path = file?.path();
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a name")?;
        ensure!(
            fs::read_to_string(&path)? == profile(name),
            "{} was changed",
            path.display()
        );
    }
    Ok(())
}
