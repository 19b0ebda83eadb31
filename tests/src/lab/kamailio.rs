//! Kamailio as a proxy in front of the PBX: it records its route and relays, so that requests carry several Via and a Record-Route, and
//! the PBX's Contact is another address than the one that the provider talks to (RFC 3261 §16).
//!
//! It lives in the PBX's namespace, relays by the Request-URI and by Route, and never touches SDP: audio does not pass through it.

use std::{
    fs::{self, File},
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{address::SIP_PORT, cleanup, namespace::Namespace, topology::Network};

const PATIENCE: Duration = Duration::from_secs(10);

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    child: Child,
    log: PathBuf,
}

impl Kamailio {
    /// Starts it on an address of the PBX's namespace and waits until it answers.
    ///
    /// # Errors
    /// Where Kamailio is missing or does not start.
    pub fn start(network: &Network, address: IpAddr) -> Result<Self> {
        let directory = network.directory.path();
        let file = directory.join("kamailio.cfg");
        fs::write(&file, config(address))?;
        let log = directory.join("kamailio.log");
        let child = network
            .pbx()
            .command("kamailio")
            .args(["-DD", "-E", "-m", "16", "-M", "4", "-f"])
            .arg(&file)
            .arg("-Y")
            .arg(directory)
            .arg("-w")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start kamailio: install kamailio")?;
        cleanup::register_child(child.id());
        let mut this = Self { child, log };
        this.wait_until_it_answers(network.pbx(), address)?;
        Ok(this)
    }

    /// An OPTIONS to the proxy itself is answered by the proxy.
    fn wait_until_it_answers(&mut self, namespace: &Namespace, address: IpAddr) -> Result<()> {
        let probe = namespace.enter(|| UdpSocket::bind((address, 0)))??;
        probe.set_read_timeout(Some(Duration::from_millis(100)))?;
        let from = probe.local_addr()?;
        let request = format!(
            "OPTIONS sip:probe@{address} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKprobe\r\nFrom: <sip:probe@lab>;tag=1\r\n\
             To: <sip:probe@lab>\r\nCall-ID: probe@lab\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
        );
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        while Instant::now() < deadline {
            let _ = probe.send_to(request.as_bytes(), (address, SIP_PORT));
            if probe.recv(&mut buffer).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("kamailio ended at its start ({status}): {}", self.log());
            }
            // A refused port is told at once, not after the timeout.
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "kamailio did not answer within {} s: {}",
            PATIENCE.as_secs(),
            self.log()
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // It ends its own children on SIGTERM; a killed one would leave them behind.
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        cleanup::forget_child(self.child.id());
    }
}

fn config(address: IpAddr) -> String {
    let host = match address {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!(
        r#"#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
disable_tcp=yes
auto_aliases=no
dns=no
rev_dns=no
listen=udp:{host}:{SIP_PORT}
loadmodule "pv.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "siputils.so"
loadmodule "textops.so"

request_route {{
    if (is_method("OPTIONS") && uri == myself) {{
        sl_send_reply("200", "Here");
        exit;
    }}
    if (is_method("CANCEL")) {{
        t_relay();
        exit;
    }}
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    # A caller may name the proxy in a Route of its own.
    loose_route();
    record_route();
    t_relay();
}}
"#
    )
}
