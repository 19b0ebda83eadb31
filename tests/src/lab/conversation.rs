//! Conversations, run: a pair of SIPp processes each, with addresses of its own, and audio on the endpoints that they negotiate.
//!
//! All conversations of a lab run at once. The agents wait where the lab may talk; if the lab was too slow for that, it says so
//! instead of blaming the filter.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    ops::Add,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    address::{PBX_RTP_FIRST, PROVIDER_RTP_FIRST, Place, SIP_PORT},
    baresip::Transport,
    call::{Direction, Role},
    cleanup,
    legs::Legs,
    scenario::{Addresses, PAUSE, Sound, Turn, xml},
    topology::Network,
};

const PORTS_PER_CONVERSATION: u16 = 8;
const MOVED: u16 = 4;
/// Their first host number; those of [`Place`] are below.
const FIRST_HOST: u16 = 100;
/// The filter protects sixteen addresses, and the lab has two of its own.
const PBX_ADDRESSES: u16 = 14;
/// Where the PBX takes SIP: more conversations have room at once.
pub const PBX_SIP_PORTS: [u16; 2] = [SIP_PORT, SIP_PORT + 10];
/// How many conversations may be held at once.
pub const AT_ONCE: usize = PBX_ADDRESSES as usize * PBX_SIP_PORTS.len();
const PACKETS: u32 = 8;
/// Between the message that settles the media and the first packet: what a network takes, and a busy machine.
const NETWORK: Duration = Duration::from_millis(120);
const PATIENCE: Duration = Duration::from_secs(15);

/// One conversation of a run.
#[derive(Debug, Clone, Copy)]
pub struct Conversation {
    /// What it shows.
    pub name: &'static str,
    /// What is said.
    pub turns: &'static [Turn],
    /// Who calls.
    pub direction: Direction,
}

/// Where a conversation takes place.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Which of the lab's conversations it is for.
    pub number: u16,
    provider: SocketAddr,
    pbx: SocketAddr,
    /// The provider's media endpoints, by [`Slot`](super::scenario::Slot).
    pub provider_media: [SocketAddr; 2],
    /// The PBX's.
    pub pbx_media: [SocketAddr; 2],
}

impl Plan {
    /// The addresses of a lab's n-th conversation. The provider's are its own, but for media; the PBX's only among [`AT_ONCE`].
    #[must_use]
    pub fn of(network: &Network, number: u16) -> Self {
        let host =
            |place: Place, number| with_host(place.address(network.family), FIRST_HOST + number);
        let provider = host(Place::ProviderCaller, number);
        let pbx = host(Place::PbxCallee, number % PBX_ADDRESSES);
        let offset = number * PORTS_PER_CONVERSATION;
        let provider_media = |index: u16| Place::ProviderMedia(index).address(network.family);
        let from = PROVIDER_RTP_FIRST + offset;
        let to = PBX_RTP_FIRST + offset;
        Self {
            number,
            provider: SocketAddr::new(provider, SIP_PORT),
            pbx: SocketAddr::new(
                pbx,
                PBX_SIP_PORTS[usize::from(number / PBX_ADDRESSES) % PBX_SIP_PORTS.len()],
            ),
            // The provider moves to another address, the PBX to another port.
            provider_media: [
                SocketAddr::new(provider_media(number), from),
                SocketAddr::new(provider_media(number + 1), from + MOVED),
            ],
            pbx_media: [SocketAddr::new(pbx, to), SocketAddr::new(pbx, to + MOVED)],
        }
    }

    /// The provider's signalling address.
    #[must_use]
    pub fn provider(&self) -> IpAddr {
        self.provider.ip()
    }

    /// The PBX's address.
    #[must_use]
    pub fn pbx(&self) -> IpAddr {
        self.pbx.ip()
    }
}

/// Gives both hosts the addresses of these conversations.
///
/// # Errors
/// With what `ip` says.
pub fn add_addresses(network: &Network, plans: &[Plan]) -> Result<()> {
    for (namespace, address) in [
        (&network.provider, Plan::provider as fn(&Plan) -> IpAddr),
        (network.pbx(), Plan::pbx),
    ] {
        let addresses: BTreeSet<IpAddr> = plans.iter().map(address).collect();
        for address in addresses {
            let suffix = if address.is_ipv4() { "/24" } else { "/64" };
            namespace.ip(&format!("address add {address}{suffix} dev eth0 nodad"))?;
        }
    }
    Ok(())
}

/// An address in the same network.
fn with_host(address: IpAddr, host: u16) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [a, b, c, u8::try_from(host).unwrap_or(u8::MAX)].into()
        }
        IpAddr::V6(ip) => {
            let mut segments = ip.segments();
            segments[7] = host;
            segments.into()
        }
    }
}

/// What became of a conversation's audio.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// Packets sent while it stood, both ways.
    pub sent: u32,
    /// Of these, towards the PBX.
    pub sent_inwards: u32,
    /// Those that arrived.
    pub delivered: u32,
    /// Packets sent to the PBX while it stood, each between an endpoint that was in force and one that was not.
    pub sent_beside: u32,
    /// Those that arrived.
    pub delivered_beside: u32,
    /// Packets sent to the PBX after its end.
    pub sent_after: u32,
    /// Those that arrived.
    pub delivered_after: u32,
}

impl Add for Heard {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            sent: self.sent + more.sent,
            sent_inwards: self.sent_inwards + more.sent_inwards,
            delivered: self.delivered + more.delivered,
            sent_beside: self.sent_beside + more.sent_beside,
            delivered_beside: self.delivered_beside + more.delivered_beside,
            sent_after: self.sent_after + more.sent_after,
            delivered_after: self.delivered_after + more.delivered_after,
        }
    }
}

/// Runs a conversation to its end. `proxy` stands in front of the PBX's agent.
///
/// # Errors
/// Where the agents fail to have it, or where the lab could not keep up with them.
pub fn run_through(
    network: &Network,
    conversation: Conversation,
    plan: Plan,
    transport: Transport,
    proxy: Option<SocketAddr>,
) -> Result<Heard> {
    let (caller_is_pbx, callee) = match conversation.direction {
        Direction::Inbound => (false, plan.pbx),
        Direction::Outbound => (true, plan.provider),
    };
    let legs = Legs::bind(network, plan)?;
    let agent = |role| Agent::start(network, conversation, plan, role, transport, callee, proxy);
    let mut answerer = agent(Role::Callee)?;
    answerer.wait_until_bound(transport)?;
    let mut caller = agent(Role::Caller)?;
    let mut heard = Heard::default();
    let talks = conversation.turns.iter().filter_map(|turn| match *turn {
        Turn::Talk(caller, callee, sound) => Some((caller, callee, sound)),
        Turn::Say(..) | Turn::In(_) => None,
    });
    for (number, (caller_slot, callee_slot, sound)) in talks.enumerate() {
        let word = format!("talk {number}");
        wait(&mut [&mut caller, &mut answerer], |log| has(log, &word))
            .with_context(|| format!("`{word}` was not reached"))?;
        let began = Instant::now();
        let (provider, pbx) = if caller_is_pbx {
            (callee_slot, caller_slot)
        } else {
            (caller_slot, callee_slot)
        };
        thread::sleep(NETWORK);
        let (sent, delivered) = legs.talk(provider, pbx, sound, PACKETS)?;
        ensure!(
            sent == delivered || began.elapsed() < Duration::from_millis(PAUSE),
            "the machine is too busy: {word} took {} ms, and the agents waited {} ms",
            began.elapsed().as_millis(),
            PAUSE
        );
        ensure!(
            sent == delivered,
            "{delivered} of {sent} packets were delivered at `{word}`"
        );
        heard.sent += sent;
        heard.sent_inwards += PACKETS;
        heard.delivered += delivered;
        let (sent, delivered) = match sound {
            Sound::AudioUnsettled => (0, 0),
            Sound::Audio | Sound::AudioBesideVideo | Sound::Video | Sound::Fax => {
                legs.talk_beside(provider, pbx, sound)?
            }
        };
        ensure!(
            began.elapsed() < Duration::from_millis(PAUSE),
            "the machine is too busy: {word} took longer than the agents waited"
        );
        heard.sent_beside += sent;
        heard.delivered_beside += delivered;
    }
    wait(&mut [&mut caller], |log| has(log, "ended"))?;
    wait(&mut [&mut answerer], |log| has(log, "ended"))?;
    thread::sleep(Duration::from_millis(300));
    (heard.sent_after, heard.delivered_after) = legs.talk_inwards()?;
    Ok(heard)
}

fn has(log: &str, word: &str) -> bool {
    log.lines().any(|line| line.trim() == word)
}

/// Waits until one of the agents has logged it; an agent that failed ends the wait.
fn wait(agents: &mut [&mut Agent], reached: impl Fn(&str) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for agent in agents.iter_mut() {
            if reached(&agent.log()) {
                return Ok(());
            }
        }
        for agent in agents.iter_mut() {
            if let Some(status) = agent.child.try_wait()?
                && !status.success()
            {
                bail!("{} gave up ({status}): {}", agent.name, agent.complaints());
            }
        }
        if Instant::now() > deadline {
            let all: String = agents
                .iter()
                .map(|agent| format!("{}: {}\n", agent.name, agent.complaints()))
                .collect();
            bail!("nothing happened for {} s: {all}", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(15));
    }
}

/// A socket's address as `/proc/net` writes it (proc(5)): words in the machine's own order.
fn in_kernel_table(at: SocketAddr) -> String {
    let octets = match at.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words: String = octets
        .chunks_exact(4)
        .map(|word| {
            let word = word.try_into().unwrap_or_default();
            format!("{:08X}", u32::from_ne_bytes(word))
        })
        .collect();
    format!("{words}:{:04X}", at.port())
}

/// One SIPp process.
#[derive(Debug)]
struct Agent {
    name: String,
    child: Child,
    at: SocketAddr,
    directory: PathBuf,
}

impl Agent {
    fn start(
        network: &Network,
        conversation: Conversation,
        plan: Plan,
        role: Role,
        transport: Transport,
        callee: SocketAddr,
        proxy: Option<SocketAddr>,
    ) -> Result<Self> {
        let on_pbx = (conversation.direction == Direction::Inbound) == (role == Role::Callee);
        let (namespace, at, media) = if on_pbx {
            (network.pbx(), plan.pbx, plan.pbx_media)
        } else {
            (&network.provider, plan.provider, plan.provider_media)
        };
        let name = format!(
            "{}-{:?}-{role:?}",
            conversation.name, conversation.direction
        )
        .to_lowercase();
        let directory = network.directory.path().to_path_buf();
        let file = |kind: &str| directory.join(format!("{name}.{kind}"));
        fs::write(
            file("xml"),
            xml(
                conversation.turns,
                role,
                Addresses {
                    behind_proxy: proxy.map(|_| callee),
                    media,
                },
            ),
        )?;
        let mut command = namespace.command("sipp");
        command.current_dir(&directory);
        if role == Role::Caller {
            command.arg(proxy.unwrap_or(callee).to_string()).args([
                "-cid_str",
                &format!("{}-{}@lab", conversation.name, plan.number),
            ]);
        }
        let spare = 6000 + 8 * plan.number + 4 * u16::from(role == Role::Callee);
        let child = command
            .arg("-sf")
            .arg(file("xml"))
            .args(["-m", "1", "-i", &at.ip().to_string(), "-bind_local"])
            .args(["-p", &at.port().to_string()])
            .args([
                "-t",
                match transport {
                    Transport::Udp => "u1",
                    Transport::Tcp => "t1",
                },
            ])
            .args([
                "-mp",
                &spare.to_string(),
                "-cp",
                &(8000 + spare).to_string(),
            ])
            .args(["-nostdin", "-trace_logs", "-log_file"])
            .arg(file("log"))
            .args(["-trace_err", "-error_file"])
            .arg(file("errors"))
            .args(["-trace_msg", "-message_file"])
            .arg(file("messages"))
            .stdin(Stdio::null())
            .stdout(File::create(file("out"))?)
            .stderr(File::create(file("err"))?)
            .spawn()
            .context("cannot start sipp: install sip-tester")?;
        cleanup::register_child(child.id());
        Ok(Self {
            name,
            child,
            at,
            directory,
        })
    }

    fn wait_until_bound(&mut self, transport: Transport) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Read by ourselves: on a busy machine, dozens of programs that ask would delay those that are asked for.
        let table = format!(
            "/proc/{}/net/{}{}",
            self.child.id(),
            match transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
            },
            if self.at.is_ipv4() { "" } else { "6" }
        );
        let at = in_kernel_table(self.at);
        while Instant::now() < deadline {
            let table = fs::read_to_string(&table).unwrap_or_default();
            if table
                .lines()
                .any(|line| line.split_whitespace().nth(1) == Some(at.as_str()))
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} gave up ({status}): {}", self.name, self.complaints());
            }
            thread::sleep(Duration::from_millis(30));
        }
        bail!(
            "{} did not bind {}: {}",
            self.name,
            self.at,
            self.complaints()
        )
    }

    fn file(&self, kind: &str) -> String {
        let bytes = fs::read(self.directory.join(format!("{}.{kind}", self.name)));
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }

    fn log(&self) -> String {
        self.file("log")
    }

    fn complaints(&self) -> String {
        ["err", "errors"]
            .map(|kind| {
                self.file(kind)
                    .lines()
                    .take(12)
                    .map(|line| format!("{line}\n"))
                    .collect::<String>()
            })
            .concat()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        cleanup::forget_child(self.child.id());
    }
}
