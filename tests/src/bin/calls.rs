//! Calls that talk on while something is done to the host that they arrive at: what the package's test counts packets with.
//!
//! Both ends are here: the PBX's in this process's network namespace, the provider's and a stranger's in another. `--desk DIR` is asked by
//! a file `NAME.ask`, answered by `NAME`: what was sent and lost since the last answer, and whether that is nothing. `end.ask` is the
//! last: it hangs up. Invariant: counts are taken while nobody talks, so that what has not arrived by then is lost.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sipfilter_tests::lab::{
    address::SIP_PORT,
    rtp::{self, PACKET_TIME, Way},
};

/// Between two looks at the desk.
const LOOK: Duration = Duration::from_millis(50);
/// How long a message or a packet may be on its way.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two packets of a stranger's.
const STRANGERS_TIME: Duration = Duration::from_millis(2);

/// Talks until it is told to hang up; exit status 1 if a packet was lost, or a stranger's arrived.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many calls
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    calls: u16,
    /// The network namespace of the provider and the stranger, a path
    #[arg(long)]
    outside: PathBuf,
    /// The PBX's address
    #[arg(long)]
    pbx: Ipv4Addr,
    /// The first of its RTP ports that is used
    #[arg(long, default_value_t = 10_000)]
    first_port: u16,
    /// The provider's address, for signalling and media
    #[arg(long)]
    provider: Ipv4Addr,
    /// A stranger's address
    #[arg(long)]
    stranger: Ipv4Addr,
    /// Where questions are put
    #[arg(long)]
    desk: PathBuf,
}

/// One call's sockets and counts, by way.
struct Call {
    number: u16,
    /// Of who sends that way, and where to.
    from: [UdpSocket; 2],
    to: [SocketAddr; 2],
    sent: [AtomicU64; 2],
    delivered: [AtomicU64; 2],
}

struct World {
    calls: Vec<Call>,
    ends: AtomicBool,
    /// Held while somebody sends.
    talking: Mutex<()>,
    strangers_sent: AtomicU64,
    strangers_delivered: AtomicU64,
}

/// The totals of all calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    sent: u64,
    lost: u64,
    strangers_sent: u64,
    strangers_delivered: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let provider = SocketAddr::from((arguments.provider, SIP_PORT));
    let pbx = SocketAddr::from((arguments.pbx, SIP_PORT));
    let (trunk, stranger) = inside(&arguments.outside, || {
        Ok((
            UdpSocket::bind(provider)?,
            UdpSocket::bind((arguments.stranger, SIP_PORT))?,
        ))
    })?;
    let phone = UdpSocket::bind(pbx)?;
    for socket in [&trunk, &phone] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let calls = (0..arguments.calls)
        .map(|number| {
            let call = Call::new(&arguments, number)?;
            Signalling::of(&call, &trunk, &phone)?.invite()?;
            Ok(call)
        })
        .collect::<Result<Vec<_>>>()?;
    let world = World {
        calls,
        ends: AtomicBool::new(false),
        talking: Mutex::new(()),
        strangers_sent: AtomicU64::new(0),
        strangers_delivered: AtomicU64::new(0),
    };
    let told = thread::scope(|scope| {
        scope.spawn(|| world.talk());
        scope.spawn(|| world.listen());
        scope.spawn(|| world.knock(&stranger, pbx));
        scope.spawn(|| world.answer_door(&phone, arguments.provider.into()));
        let told = world.serve(&arguments.desk);
        world.ends.store(true, Ordering::Relaxed);
        told
    });
    for call in &world.calls {
        Signalling::of(call, &trunk, &phone)?.bye()?;
    }
    let totals = told?;
    ensure!(totals.is_whole(), "{}", totals.words());
    Ok(())
}

/// Runs `body` in another network namespace; the sockets that it makes stay there.
fn inside<T: Send>(namespace: &Path, body: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    let file = File::open(namespace)
        .with_context(|| format!("cannot open the namespace {}", namespace.display()))?;
    thread::scope(|scope| {
        let made = scope.spawn(|| -> Result<T> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(body()?)
        });
        made.join().map_err(|_| anyhow!("the thread panicked"))?
    })
}

impl Call {
    fn new(arguments: &Arguments, number: u16) -> Result<Self> {
        let port = arguments.first_port + 2 * number;
        let pbx = SocketAddr::from((arguments.pbx, port));
        let provider = SocketAddr::from((arguments.provider, 30_000 + port));
        let outside = inside(&arguments.outside, || UdpSocket::bind(provider))?;
        let from = [outside, UdpSocket::bind(pbx)?];
        for socket in &from {
            socket.set_nonblocking(true)?;
        }
        let counters = || [AtomicU64::new(0), AtomicU64::new(0)];
        Ok(Self {
            number: port,
            from,
            to: [pbx, provider],
            sent: counters(),
            delivered: counters(),
        })
    }
}

impl World {
    fn is_over(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// One packet of every call each way, every 20 ms.
    fn talk(&self) {
        while !self.is_over() {
            let due = Instant::now() + PACKET_TIME;
            {
                let _talking = self.talking.lock().unwrap_or_else(PoisonError::into_inner);
                for call in &self.calls {
                    for (index, way) in [Way::In, Way::Out].into_iter().enumerate() {
                        let count = call.sent[index].load(Ordering::Relaxed);
                        let packet = rtp::packet(call.number, way, count as u32);
                        // What cannot be sent counts as sent, so that it is missed.
                        let _ = call.from[index].send_to(&packet, call.to[index]);
                        call.sent[index].store(count + 1, Ordering::Relaxed);
                    }
                }
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    fn listen(&self) {
        let mut buffer = [0; 2048];
        while !self.is_over() {
            for call in &self.calls {
                for (index, way) in [Way::In, Way::Out].into_iter().enumerate() {
                    while let Ok((length, _)) = call.from[1 - index].recv_from(&mut buffer) {
                        match rtp::attribute(buffer.get(..length).unwrap_or_default()) {
                            Some((of, direction, _)) if (of, direction) == (call.number, way) => {
                                call.delivered[index].fetch_add(1, Ordering::Relaxed);
                            }
                            _ => {
                                self.strangers_delivered.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// A stranger's INVITE to the PBX, then one packet to a port where a call talks, all the time: the filter is never absent.
    fn knock(&self, stranger: &UdpSocket, pbx: SocketAddr) {
        let media = self.calls.iter().map(|call| call.to[0]).cycle();
        for to in media {
            if self.is_over() {
                return;
            }
            let _ = stranger.send_to(b"INVITE sip:900@stranger SIP/2.0\r\n\r\n", pbx);
            let _ = stranger.send_to(b"nobody's audio", to);
            self.strangers_sent.fetch_add(2, Ordering::Relaxed);
            thread::sleep(STRANGERS_TIME);
        }
    }

    /// What reaches the PBX's signalling port, other than from its provider.
    fn answer_door(&self, phone: &UdpSocket, provider: IpAddr) {
        let mut buffer = [0; 2048];
        while !self.is_over() {
            if let Ok((_, from)) = phone.recv_from(&mut buffer)
                && from.ip() != provider
            {
                self.strangers_delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn totals(&self) -> Totals {
        let sum = |counts: fn(&Call) -> &[AtomicU64; 2]| -> u64 {
            let all = self.calls.iter().flat_map(counts);
            all.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        let sent = sum(|call| &call.sent);
        Totals {
            sent,
            lost: sent.saturating_sub(sum(|call| &call.delivered)),
            strangers_sent: self.strangers_sent.load(Ordering::Relaxed),
            strangers_delivered: self.strangers_delivered.load(Ordering::Relaxed),
        }
    }

    /// Answers until `end` is asked; then says what all of it came to.
    fn serve(&self, desk: &Path) -> Result<Totals> {
        let mut before = Totals::default();
        loop {
            thread::sleep(LOOK);
            for entry in fs::read_dir(desk)? {
                let question = entry?.path();
                if question.extension().is_none_or(|ending| ending != "ask") {
                    continue;
                }
                let now = {
                    let _silence = self.talking.lock().unwrap_or_else(PoisonError::into_inner);
                    let asked = Instant::now();
                    while self.totals().lost > 0 && asked.elapsed() < PATIENCE {
                        thread::sleep(LOOK);
                    }
                    self.totals()
                };
                let since = now.since(before);
                before = now;
                fs::remove_file(&question)?;
                let answer = question.with_extension("");
                // Whole or not at all.
                fs::write(answer.with_extension("part"), since.words() + "\n")?;
                fs::rename(answer.with_extension("part"), &answer)?;
                if answer.file_name().is_some_and(|name| name == "end") {
                    return Ok(now);
                }
            }
        }
    }
}

impl Totals {
    fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            lost: self.lost.saturating_sub(before.lost),
            strangers_sent: self.strangers_sent - before.strangers_sent,
            strangers_delivered: self.strangers_delivered - before.strangers_delivered,
        }
    }

    /// Whether the calls kept their audio, and strangers stayed outside; not, where nobody tried.
    fn is_whole(self) -> bool {
        self.sent > 0 && self.lost == 0 && self.strangers_sent > 0 && self.strangers_delivered == 0
    }

    fn words(self) -> String {
        let judgement = if self.is_whole() { "whole" } else { "broken" };
        format!(
            "{judgement}: RTP packets sent {}, lost {}; strangers' packets sent {}, delivered {}",
            self.sent, self.lost, self.strangers_sent, self.strangers_delivered
        )
    }
}

/// One call's messages.
struct Signalling<'a> {
    trunk: &'a UdpSocket,
    phone: &'a UdpSocket,
    provider: SocketAddr,
    pbx: SocketAddr,
    number: u16,
    /// Provider's, PBX's.
    media: [SocketAddr; 2],
}

impl<'a> Signalling<'a> {
    fn of(call: &Call, trunk: &'a UdpSocket, phone: &'a UdpSocket) -> Result<Self> {
        Ok(Self {
            provider: trunk.local_addr()?,
            pbx: phone.local_addr()?,
            trunk,
            phone,
            number: call.number,
            media: [call.to[1], call.to[0]],
        })
    }

    fn message(
        &self,
        line: &str,
        method: &str,
        sequence: u8,
        is_tagged: bool,
        sdp: &str,
    ) -> String {
        let (provider, pbx, number) = (self.provider, self.pbx, self.number);
        let tag = if is_tagged { ";tag=pbx" } else { "" };
        let kind = match sdp {
            "" => "",
            _ => "Content-Type: application/sdp\r\n",
        };
        let contact = if line.starts_with("SIP/") {
            pbx
        } else {
            provider
        };
        format!(
            "{line}\r\nVia: SIP/2.0/UDP {provider};branch=z9hG4bK{number}{method}{sequence}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:caller@{provider}>;tag=provider{number}\r\nTo: <sip:office@{pbx}>{tag}\r\n\
             Call-ID: {number}@{provider}\r\nCSeq: {sequence} {method}\r\nContact: <sip:{contact}>\r\n{kind}\
             Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        )
    }

    fn sdp(media: SocketAddr) -> String {
        let (address, port) = (media.ip(), media.port());
        format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n\
             a=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
        )
    }

    fn pass(&self, from: &UdpSocket, to: &UdpSocket, text: &str) -> Result<()> {
        from.send_to(text.as_bytes(), to.local_addr()?)?;
        let mut buffer = [0; 2048];
        let sent = Instant::now();
        while sent.elapsed() < PATIENCE {
            let received = to.recv(&mut buffer);
            if received.is_ok_and(|length| buffer.get(..length) == Some(text.as_bytes())) {
                return Ok(());
            }
        }
        let line = text.lines().next().unwrap_or_default();
        Err(anyhow!("`{line}` did not arrive within {PATIENCE:?}"))
    }

    fn invite(&self) -> Result<()> {
        let request = |method| format!("{method} sip:office@{} SIP/2.0", self.pbx);
        let offer = Self::sdp(self.media[0]);
        let invite = self.message(&request("INVITE"), "INVITE", 1, false, &offer);
        self.pass(self.trunk, self.phone, &invite)?;
        let answer = Self::sdp(self.media[1]);
        let ok = self.message("SIP/2.0 200 OK", "INVITE", 1, true, &answer);
        self.pass(self.phone, self.trunk, &ok)?;
        let ack = self.message(&request("ACK"), "ACK", 1, true, "");
        self.pass(self.trunk, self.phone, &ack)
    }

    fn bye(&self) -> Result<()> {
        let line = format!("BYE sip:office@{} SIP/2.0", self.pbx);
        let bye = self.message(&line, "BYE", 2, true, "");
        self.pass(self.trunk, self.phone, &bye)?;
        let ok = self.message("SIP/2.0 200 OK", "BYE", 2, true, "");
        self.pass(self.phone, self.trunk, &ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_tried_and_held_is_whole() {
        let whole = Totals {
            sent: 100,
            lost: 0,
            strangers_sent: 50,
            strangers_delivered: 0,
        };
        assert!(whole.is_whole());
        for broken in [
            Totals { sent: 0, ..whole },
            Totals { lost: 1, ..whole },
            Totals {
                strangers_sent: 0,
                ..whole
            },
            Totals {
                strangers_delivered: 1,
                ..whole
            },
        ] {
            assert!(!broken.is_whole(), "{broken:?}");
        }
        assert_eq!(whole.since(whole), Totals::default());
    }
}
