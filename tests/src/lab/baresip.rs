//! baresip as a user agent: a whole softphone's signalling, media, SRTP, DTLS and ICE, without audio hardware.
//!
//! Each agent has a directory and an address of its own, plays a file of near silence as fast as a sound card would, answers every call
//! at once, and is steered by `ctrl_tcp` (JSON in netstrings) over its own host's loopback, so that no command crosses the filter.
//! Nothing here counts packets: the agent's own statistics leave out what it never received.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{address::SIP_PORT, cleanup, namespace::Namespace, topology::Network};

/// baresip's own default.
const CONTROL_PORT: u16 = 4444;
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Debian puts baresip's modules.
const MODULES: &str = "/usr/lib/baresip/modules";
const SAMPLE_RATE: u32 = 8000;
/// No call of the lab lasts longer.
const SECONDS_OF_AUDIO: u32 = 60;

/// How an agent's audio travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// RTP (RFC 3550).
    Plain,
    /// SRTP with its keys in SDP (RFC 4568).
    Sdes,
    /// SRTP with its keys from DTLS (RFC 5764), between ICE's host candidates (RFC 8445).
    DtlsIce,
}

impl Media {
    /// What is added to the account.
    fn parameters(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Sdes => ";mediaenc=srtp-mand",
            Self::DtlsIce => ";mediaenc=dtls_srtp;medianat=ice",
        }
    }
}

/// What SIP travels over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    child: Child,
    at: SocketAddr,
    name: String,
    control: TcpStream,
    events: Arc<Mutex<Vec<Value>>>,
    log: PathBuf,
}

impl Baresip {
    /// Starts an agent called `name` on an address of a namespace, with its audio in these ports, and waits until it takes commands.
    /// With a `proxy` its requests go there first.
    ///
    /// # Errors
    /// Where baresip is missing or does not start.
    pub fn start(
        network: &Network,
        namespace: &Namespace,
        name: &str,
        address: IpAddr,
        rtp_ports: (u16, u16),
        media: Media,
        proxy: Option<IpAddr>,
    ) -> Result<Self> {
        let directory = network.directory.path().join(format!("baresip-{name}"));
        fs::create_dir_all(&directory)?;
        let audio = directory.join("audio.wav");
        fs::write(&audio, wave_file())?;
        let at = SocketAddr::new(address, SIP_PORT);
        let control_at = SocketAddr::new(address, CONTROL_PORT);
        fs::write(
            directory.join("config"),
            format!(
                "poll_method epoll\nsip_listen {at}\nnet_interface {address}\nctrl_tcp_listen {control_at}\n\
                 rtp_ports {}-{}\nrtp_stats yes\ncall_max_calls 4\njitter_buffer_type off\ndns_server 127.0.0.1:53\n\
                 audio_source aufile,{audio}\naudio_player aufile,{heard}\naudio_alert aufile,{heard}\n\
                 ausrc_srate {SAMPLE_RATE}\nauplay_srate {SAMPLE_RATE}\n\
                 module_path {MODULES}\nmodule g711.so\nmodule aufile.so\nmodule srtp.so\nmodule ice.so\nmodule dtls_srtp.so\n\
                 module_app account.so\nmodule_app ctrl_tcp.so\nmodule_app menu.so\n",
                rtp_ports.0,
                rtp_ports.1,
                audio = audio.display(),
                heard = directory.join("heard.wav").display(),
            ),
        )?;
        fs::write(
            directory.join("accounts"),
            format!(
                "<sip:{name}@{}>;regint=0;answermode=auto;audio_codecs=pcmu{}{}\n",
                host(address),
                media.parameters(),
                proxy.map_or_else(String::new, |proxy| {
                    format!(";outbound=\"sip:{};lr\"", host(proxy))
                })
            ),
        )?;
        fs::write(directory.join("contacts"), "")?;
        let log = directory.join("log");
        let child = namespace
            .command("baresip")
            .arg("-f")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::create(directory.join("err"))?)
            .spawn()
            .context("cannot start baresip: install baresip-core")?;
        cleanup::register_child(child.id());
        let control = Self::connect(namespace, control_at);
        let mut this = match control {
            Ok(control) => Self {
                child,
                at,
                name: name.to_owned(),
                control,
                events: Arc::default(),
                log,
            },
            Err(error) => {
                let mut child = child;
                let _ = child.kill();
                let _ = child.wait();
                cleanup::forget_child(child.id());
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(error.context(format!("baresip {name} did not start: {said}")));
            }
        };
        this.listen()?;
        Ok(this)
    }

    fn connect(namespace: &Namespace, at: SocketAddr) -> Result<TcpStream> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match namespace.enter(|| TcpStream::connect(at))? {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("no ctrl_tcp at {at}"));
                }
                Err(_) => thread::sleep(Duration::from_millis(30)),
            }
        }
    }

    /// The thread ends when baresip closes the connection.
    fn listen(&mut self) -> Result<()> {
        let mut stream = self.control.try_clone()?;
        let events = Arc::clone(&self.events);
        thread::spawn(move || {
            let mut buffer = [0_u8; 4096];
            let mut pending = Vec::new();
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                pending.extend_from_slice(&buffer[..length]);
                while let Some((message, used)) = netstring(&pending) {
                    if let Ok(event) = serde_json::from_slice(message) {
                        events
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(event);
                    }
                    pending.drain(..used);
                }
            }
        });
        Ok(())
    }

    /// Under which URI it is called.
    #[must_use]
    pub fn uri(&self, transport: Transport) -> String {
        let transport = match transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
        };
        format!("sip:{}@{}{transport}", self.name, host(self.at.ip()))
    }

    /// Gives it a command of its menu: `dial URI`, `hold`, `resume`, `hangup`, `transfer URI`.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn command(&mut self, command: &str) -> Result<()> {
        let (word, parameters) = command.split_once(' ').unwrap_or((command, ""));
        let message = json!({ "command": word, "params": parameters, "token": word }).to_string();
        write!(self.control, "{}:{message},", message.len())
            .with_context(|| format!("baresip {} is gone: {}", self.name, self.log()))
    }

    /// Waits until it has reported so many events of a type (`CALL_ESTABLISHED`, `CALL_CLOSED`, …).
    ///
    /// # Errors
    /// Where it has not within ten seconds.
    pub fn expect(&self, kind: &str, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self
                .events
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .filter(|event| event.get("type").and_then(Value::as_str) == Some(kind))
                .count();
            if seen >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "baresip {} reported {kind} {seen} times, not {count}: {}",
                    self.name,
                    // Its progress meter fills the log.
                    self.log().replace("audio=0/0 (bit/s)", "")
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Baresip {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        cleanup::forget_child(self.child.id());
    }
}

/// An address as a SIP URI writes it.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The first whole netstring, and its length with its frame.
fn netstring(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let colon = bytes.iter().position(|&byte| byte == b':')?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let end = colon + 1 + length;
    (bytes.get(end)? == &b',').then(|| (&bytes[colon + 1..end], end + 1))
}

/// Near silence, 16 bits, one channel, in the codec's own rate, so that nothing has to be resampled.
fn wave_file() -> Vec<u8> {
    let data = vec![1_u8; (SAMPLE_RATE * SECONDS_OF_AUDIO * 2) as usize];
    let size = SAMPLE_RATE * SECONDS_OF_AUDIO * 2;
    let mut file = Vec::with_capacity(data.len() + 44);
    file.extend(b"RIFF");
    file.extend((size + 36).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend(1_u16.to_le_bytes());
    file.extend(1_u16.to_le_bytes());
    file.extend(SAMPLE_RATE.to_le_bytes());
    file.extend((SAMPLE_RATE * 2).to_le_bytes());
    file.extend(2_u16.to_le_bytes());
    file.extend(16_u16.to_le_bytes());
    file.extend(b"data");
    file.extend(size.to_le_bytes());
    file.extend(data);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netstrings_are_taken_whole() {
        assert_eq!(netstring(b"5:hello,3:a"), Some((&b"hello"[..], 8)));
        for cut in [&b"5:hell"[..], b"5", b"", b"5:hello", b"x:hello,"] {
            assert_eq!(netstring(cut), None);
        }
    }
}
