//! `sipfilterctl monitor`: what happens now, line by line, until Ctrl-C, the end of the daemon, or of whoever reads.
//!
//! It follows the daemon's stream and chooses among what comes. What a peer wrote is printed without control characters. The stream is
//! open before anything else is asked: what happens meanwhile waits in it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    ops::ControlFlow,
    path::Path,
};

use clap::ValueEnum;
use ipnet::IpNet;

use super::{
    CtlError, Outcome, Session,
    call_record::{self, happening},
    client::{self, ClientError, Ended, Stream},
    output::{self, plain},
};
use crate::{
    printable,
    shell::api,
    view::{Call, DroppedPacket, Event, Happening, Near, Occurrence},
};

/// A line of the stream is never longer.
const MAX_LINE: usize = 1024 * 1024;

/// Which events. Where several kinds of filters are given, each must fit; of one kind, any.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what concerns this address or network: drops from and to it, and pinholes and media that name it. May be repeated
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    address: Vec<IpNet>,
    /// Only this call, by its number, its Call-ID or the beginning of that, and drops that nearly belonged to it. May be repeated
    #[arg(long, value_name = "ID")]
    call: Vec<String>,
    /// Only drops for this reason, as `stats` names it. May be repeated
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Vec<String>,
    /// Only events of this kind; what was lost or missed is told in any case. May be repeated
    #[arg(long, value_name = "KIND", value_enum)]
    kind: Vec<Kind>,
}

/// What an event is about. Each is of one kind, but for those that tell of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Packets that are dropped, or would be, and how many of them are shown
    Drops,
    /// Calls that begin, are confirmed, end
    Calls,
    /// SIP messages of calls
    Messages,
    /// Where a call's two sides want to have their media
    Media,
    /// Pinholes that open, change, close
    Pinholes,
    /// SIP that was refused, in a call or outside of any
    Refusals,
}

impl Kind {
    /// `None` for what tells that something is missing.
    fn of(event: &Occurrence) -> Option<Self> {
        match event {
            Occurrence::Drop(_) | Occurrence::Counted { .. } => Some(Self::Drops),
            Occurrence::CallStarted { .. } => Some(Self::Calls),
            Occurrence::Call { what, .. } => match what {
                Happening::Confirmed | Happening::Ended { .. } => Some(Self::Calls),
                Happening::Message { .. } => Some(Self::Messages),
                Happening::Media { .. } => Some(Self::Media),
                Happening::Pinhole { .. } => Some(Self::Pinholes),
                Happening::Refused { .. } => Some(Self::Refusals),
                Happening::Elided { .. } => None,
            },
            Occurrence::Refused { .. } => Some(Self::Refusals),
            Occurrence::Lost { .. } | Occurrence::Missed { .. } => None,
        }
    }
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let mut pending = Vec::new();
    let mut choice = Choice::new(args);
    let stream = Stream::open(session.runtime_dir, api::CONTROL.0, "/v1/events")?;
    for why in choice.learn(session.runtime_dir)? {
        // As below.
        let _ = writeln!(
            io::stderr(),
            "{why}; calls that begin from now on are looked at"
        );
    }
    let ended = stream.follow(None, |bytes| {
        pending.extend_from_slice(bytes);
        if pending.len() > MAX_LINE {
            let error = ClientError::Answer(format!("a line of more than {MAX_LINE} bytes"));
            return Err(error.into());
        }
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            // What a newer daemon tells and this program does not know is no reason to end.
            let Ok(event) = serde_json::from_slice::<Event>(&line) else {
                continue;
            };
            if !choice.takes(&event) {
                continue;
            }
            if session.json {
                let line = String::from_utf8_lossy(&line);
                writeln!(session.out, "{}", printable::json(line.trim_end()))?;
            } else {
                writeln!(session.out, "{}", text(&event))?;
            }
        }
        session.out.flush()?;
        Ok::<_, CtlError>(ControlFlow::Continue(()))
    })?;
    if ended == Ended::Daemon {
        // Nothing can be done about a standard error that is closed too.
        let _ = writeln!(io::stderr(), "sipfilterd has ended");
    }
    Ok(Outcome::Done)
}

/// The filters, and the numbers of the calls that they mean.
struct Choice<'a> {
    args: &'a Args,
    numbers: Vec<u64>,
}

impl<'a> Choice<'a> {
    fn new(args: &'a Args) -> Self {
        let numbers = args.call.iter().filter_map(|id| id.parse().ok()).collect();
        Self { args, numbers }
    }

    /// Asks for the numbers of calls that began before, and tells what names none of them.
    fn learn(&mut self, runtime_dir: &Path) -> Result<Vec<String>, ClientError> {
        if self.args.call.is_empty() {
            return Ok(Vec::new());
        }
        let calls: Vec<Call> = client::list(runtime_dir, "/v1/calls")?;
        let mut unknown = Vec::new();
        for id in &self.args.call {
            let wanted = Wanted::of(id);
            let mut found: Vec<u64> = calls
                .iter()
                .filter(|call| wanted.is(call.number, &call.call_id))
                .map(|call| call.number)
                .collect();
            if found.is_empty() {
                // Media that comes after the end of a call is its own, too.
                match call_record::number(id, runtime_dir) {
                    Ok(number) => found.push(number),
                    Err(ClientError::Unknown(why)) => unknown.push(why),
                    Err(error) => return Err(error),
                }
            }
            self.numbers.extend(found);
        }
        Ok(unknown)
    }

    fn takes(&mut self, event: &Event) -> bool {
        let Args {
            address,
            call,
            reason,
            kind,
        } = self.args;
        let fits = |at: &SocketAddr| address.iter().any(|net| net.contains(&at.ip()));
        let is_of_kind = match Kind::of(&event.what) {
            Some(found) => kind.is_empty() || kind.contains(&found),
            None => true,
        };
        // Asked in any case: it remembers which call is wanted.
        let is_chosen = match &event.what {
            Occurrence::Drop(packet) => {
                let near = packet.near.as_ref().map(|near| near.call);
                let mut ends = packet.source.iter().chain(&packet.destination);
                (address.is_empty() || ends.any(fits))
                    && (reason.is_empty() || reason.contains(&packet.reason))
                    && (call.is_empty() || near.is_some_and(|near| self.numbers.contains(&near)))
            }
            Occurrence::Counted { reason: name, .. } => {
                address.is_empty()
                    && call.is_empty()
                    && (reason.is_empty() || reason.contains(name))
            }
            Occurrence::CallStarted { call, call_id, .. } => {
                self.is_wanted(*call, call_id) && reason.is_empty() && address.is_empty()
            }
            Occurrence::Call {
                call,
                call_id,
                what,
            } => {
                self.is_wanted(*call, call_id)
                    && reason.is_empty()
                    && (address.is_empty() || concerns(what, address))
            }
            Occurrence::Refused { .. } => {
                address.is_empty() && call.is_empty() && reason.is_empty()
            }
            // Whoever looks must know what is missing.
            Occurrence::Lost { .. } | Occurrence::Missed { .. } => true,
        };
        is_chosen && is_of_kind
    }

    /// Remembers the number of a call that is wanted by its Call-ID, for drops near it.
    fn is_wanted(&mut self, number: u64, call_id: &str) -> bool {
        if self.args.call.is_empty() || self.numbers.contains(&number) {
            return true;
        }
        let mut all = self.args.call.iter();
        let is_wanted = all.any(|id| Wanted::of(id).is(number, call_id));
        if is_wanted {
            self.numbers.push(number);
        }
        is_wanted
    }
}

/// What names a call.
enum Wanted<'a> {
    Number(u64),
    /// A Call-ID, or the beginning of one.
    CallId(&'a str),
}

impl<'a> Wanted<'a> {
    fn of(id: &'a str) -> Self {
        id.parse().map_or(Self::CallId(id), Self::Number)
    }

    fn is(&self, number: u64, call_id: &str) -> bool {
        match self {
            Self::Number(wanted) => number == *wanted,
            Self::CallId(begin) => call_id.starts_with(begin),
        }
    }
}

fn concerns(what: &Happening, nets: &[IpNet]) -> bool {
    let is_in = |at: &SocketAddr| nets.iter().any(|net| net.contains(&at.ip()));
    match what {
        Happening::Media { local, remote } => local.iter().chain(remote).any(is_in),
        Happening::Pinhole { local, sources, .. } => {
            let mut sources = sources.iter();
            is_in(local)
                || sources.any(|source| {
                    nets.iter()
                        .any(|net| net.contains(&source.net) || source.net.contains(net))
                })
        }
        _ => false,
    }
}

/// One line.
fn text(event: &Event) -> String {
    let time = event.at.split('T').nth(1).unwrap_or(&event.at);
    let time = time.trim_end_matches('Z');
    let (kind, text) = match &event.what {
        Occurrence::Drop(packet) => (packet.verdict.clone(), drop_text(packet)),
        Occurrence::Counted {
            reason,
            packets,
            samples,
        } => (
            "…".to_owned(),
            format!("{samples} of {packets} packets of {reason} are shown"),
        ),
        Occurrence::CallStarted {
            call,
            call_id,
            provider,
            direction,
        } => (
            format!("call {call}"),
            format!(
                "started           {direction}, {provider}, {}",
                plain(call_id)
            ),
        ),
        Occurrence::Call { call, what, .. } => (format!("call {call}"), happening(what)),
        Occurrence::Refused { refusal } => ("refused".to_owned(), refusal.clone()),
        Occurrence::Lost { packets } => (
            "lost".to_owned(),
            format!("{packets} copies of signalling between the kernel and sipfilterd"),
        ),
        Occurrence::Missed { events } => (
            "missed".to_owned(),
            format!("{events} events came faster than they were read"),
        ),
    };
    format!("{time}  {kind:<10}  {text}")
}

fn drop_text(packet: &DroppedPacket) -> String {
    let place = |at: Option<SocketAddr>| match at {
        Some(at) if at.port() == 0 => at.ip().to_string(),
        Some(at) => at.to_string(),
        None => "?".to_owned(),
    };
    let mut text = format!(
        "{}  {} ──► {} {}, {} bytes",
        packet.reason,
        place(packet.source),
        place(packet.destination),
        packet.protocol.as_deref().unwrap_or("no IP"),
        packet.bytes,
    );
    if packet.direction == "out" {
        text.push_str(", leaving");
    }
    if let Some(sip) = &packet.sip {
        text.push_str(", ");
        text.push_str(&plain(&sip.method));
        if let Some(agent) = &sip.user_agent {
            text.push_str(&format!(" by {:?}", plain(agent)));
        }
        if !sip.domains.is_empty() {
            text.push_str(&format!(", claims {}", plain(&sip.domains.join(" "))));
        }
    }
    if let Some(near) = &packet.near {
        text.push_str(", ");
        text.push_str(&near_text(near));
    }
    text
}

/// Which pinhole a packet missed, in words.
pub(super) fn near_text(near: &Near) -> String {
    let Near { call, pinhole, how } = near;
    match how.as_str() {
        "same_port" => format!("call {call} has that port for another"),
        "closed" => format!("call {call} had that port until a moment ago"),
        "next_port" => format!("call {call} has port {}", pinhole.port()),
        "other_address" => format!("call {call} has that port on {}", pinhole.ip()),
        "other_port" => format!("call {call} expects that source on {pinhole}"),
        _ => format!("call {call}, {pinhole}"),
    }
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    output::network(text).ok_or_else(|| {
        format!("{text:?} is no address and no network, like 192.0.2.66 or 2001:db8::/32")
    })
}

pub(super) fn reason(text: &str) -> Result<String, String> {
    use sipfilter_common::reason::{Action, Reason};
    let drops = || {
        Reason::ALL
            .iter()
            .filter(|reason| reason.action() == Action::Drop)
            .map(|reason| reason.name())
    };
    match drops().find(|name| *name == text) {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!(
            "nothing is dropped for that; there are {}",
            drops().collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    const DROP: &str = r#"{"at":"2026-11-21T07:18:51.704Z","event":"drop","reason":"unknown_source","verdict":"drop","interface":"eth0","direction":"in","protocol":"udp","source":"192.0.2.66:5060","destination":"203.0.113.10:5060","bytes":412,"sip":{"method":"INVITE","user_agent":"a\u001b[31m","domains":["sip.vapi.ai"]}}"#;
    const NEAR: &str = r#"{"at":"2026-11-21T07:18:51.704Z","event":"drop","reason":"no_pinhole","verdict":"would drop","interface":"eth0","direction":"in","protocol":"udp","source":"192.0.2.66:4000","destination":"203.0.113.10:10001","bytes":214,"near":{"call":2,"pinhole":"203.0.113.10:10000","how":"next_port"}}"#;
    const CALL: &str = r#"{"at":"2026-11-21T07:18:52.001Z","event":"call","call":2,"call_id":"abc@lab","kind":"pinhole","change":"opened","local":"203.0.113.10:10000","sources":[{"net":"198.51.100.20/32","ports":"40000-60000"}],"stream":"rtp"}"#;
    const STARTED: &str = r#"{"at":"2026-11-21T07:18:51.000Z","event":"call_started","call":2,"call_id":"abc@lab","provider":"lab","direction":"inbound"}"#;
    const MESSAGE: &str = r#"{"at":"2026-11-21T07:18:51.000Z","event":"call","call":2,"call_id":"abc@lab","kind":"message","from":"provider","method":"INVITE","sdp":true}"#;
    const MEDIA: &str = r#"{"at":"2026-11-21T07:18:51.000Z","event":"call","call":2,"call_id":"abc@lab","kind":"media","local":[],"remote":["198.51.100.20:40000"]}"#;
    const CONFIRMED: &str = r#"{"at":"2026-11-21T07:18:52.000Z","event":"call","call":2,"call_id":"abc@lab","kind":"confirmed"}"#;
    const ENDED: &str = r#"{"at":"2026-11-21T07:18:59.000Z","event":"call","call":2,"call_id":"abc@lab","kind":"ended","reason":"bye_ingress"}"#;
    const OF_CALL: &str = r#"{"at":"2026-11-21T07:18:59.000Z","event":"call","call":2,"call_id":"abc@lab","kind":"refused","refusal":"wrong_dialog"}"#;
    const OF_NONE: &str =
        r#"{"at":"2026-11-21T07:18:59.000Z","event":"refused","refusal":"no_dialog"}"#;
    const MISSED: &str = r#"{"at":"2026-11-21T07:18:59.000Z","event":"missed","events":3}"#;
    const COUNTED: &str = r#"{"at":"2026-11-21T07:18:52.001Z","event":"counted","reason":"no_pinhole","packets":53000,"samples":64}"#;

    #[test]
    fn lines_are_read_at_a_glance_and_obey_nobody() {
        for (json, expect) in [
            (
                DROP,
                "07:18:51.704  drop        unknown_source  192.0.2.66:5060 ──► 203.0.113.10:5060 udp, 412 bytes, INVITE by \"a\u{fffd}[31m\", claims sip.vapi.ai",
            ),
            (
                NEAR,
                "07:18:51.704  would drop  no_pinhole  192.0.2.66:4000 ──► 203.0.113.10:10001 udp, 214 bytes, call 2 has port 10000",
            ),
            (
                CALL,
                "07:18:52.001  call 2      pinhole opened    203.0.113.10:10000 rtp from 198.51.100.20 ports 40000-60000",
            ),
            (
                COUNTED,
                "07:18:52.001  …           64 of 53000 packets of no_pinhole are shown",
            ),
        ] {
            assert_eq!(text(&event(json)), expect);
        }
    }

    /// Which of these are shown, by these arguments.
    fn taken<'a>(arguments: &[&str], events: &[&'a str]) -> Vec<&'a str> {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let arguments = ["monitor"].iter().chain(arguments);
        let cli = <Cli as clap::Parser>::try_parse_from(arguments).expect("arguments");
        let mut choice = Choice::new(&cli.args);
        let events = events.iter().copied();
        events.filter(|json| choice.takes(&event(json))).collect()
    }

    #[test]
    fn filters_choose_and_go_together() {
        let check = |arguments: &[&str], expect: &[&str]| {
            assert_eq!(taken(arguments, &[CALL, DROP, NEAR, COUNTED]), expect);
        };
        check(&[], &[CALL, DROP, NEAR, COUNTED]);
        check(&["--address", "192.0.2.66"], &[DROP, NEAR]);
        check(&["--address", "198.51.100.0/24"], &[CALL]);
        check(&["--reason", "no_pinhole"], &[NEAR, COUNTED]);
        check(&["--call", "2"], &[CALL, NEAR]);
        check(&["--call", "abc"], &[CALL, NEAR]);
        check(&["--call", "3"], &[]);
        check(&["--call", "2", "--reason", "no_pinhole"], &[NEAR]);
        check(
            &["--address", "203.0.113.10", "--reason", "unknown_source"],
            &[DROP],
        );
    }

    #[test]
    fn every_event_is_of_one_kind_and_gaps_are_told_in_any_case() {
        let all = [
            STARTED, MESSAGE, MEDIA, CALL, NEAR, CONFIRMED, OF_CALL, OF_NONE, DROP, COUNTED, ENDED,
        ];
        let with_gap: Vec<&str> = all.into_iter().chain([MISSED]).collect();
        let check = |arguments: &[&str], expect: &[&str]| {
            let expect: Vec<&str> = expect.iter().copied().chain([MISSED]).collect();
            assert_eq!(taken(arguments, &with_gap), expect);
        };
        check(&["--kind", "drops"], &[NEAR, DROP, COUNTED]);
        check(&["--kind", "calls"], &[STARTED, CONFIRMED, ENDED]);
        check(&["--kind", "messages"], &[MESSAGE]);
        check(&["--kind", "media"], &[MEDIA]);
        check(&["--kind", "pinholes"], &[CALL]);
        check(&["--kind", "refusals"], &[OF_CALL, OF_NONE]);
        check(&["--kind", "media", "--kind", "pinholes"], &[MEDIA, CALL]);
        let every = Kind::value_variants().iter().map(|kind| {
            let kind = kind.to_possible_value().expect("a name");
            taken(&["--kind", kind.get_name()], &all).len()
        });
        assert_eq!(every.sum::<usize>(), all.len());
        // A call that is wanted by its Call-ID is known by its number from its beginning on, whether that is shown or not.
        check(&["--kind", "drops", "--call", "abc"], &[NEAR]);
    }

    #[test]
    fn a_wrong_filter_is_refused_with_what_there_is() {
        assert!(reason("media").expect_err("passes").contains("no_pinhole"));
        assert!(network("nowhere").expect_err("no net").contains("nowhere"));
    }
}
