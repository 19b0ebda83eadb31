//! `sipfilterctl calls show ID`: one call from its first INVITE on, as a timeline.
//!
//! Text that came from a peer is printed without control characters, which a terminal would obey.

use std::{fmt::Write as _, io::Write, net::SocketAddr, path::Path};

use super::{
    CtlError, Outcome, Session,
    client::{self, ClientError},
    ladder,
    output::{self, plain},
};
use crate::view::{self, CallEnd, CallLink, CallRecord, Finding, Happening, MediaRecord, Moment};

pub(super) fn show(id: &str, list: bool, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let answer = client::get(session.runtime_dir, &format!("/v1/calls/{}", segment(id)));
    print(answer, list, session)
}

/// The number of the call that a text means.
pub(super) fn number(id: &str, runtime_dir: &Path) -> Result<u64, ClientError> {
    let record: CallRecord = client::get(runtime_dir, &format!("/v1/calls/{}", segment(id)))?;
    Ok(record.number)
}

/// Ends the call, and shows what is known of it then.
pub(super) fn close(id: &str, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let answer = client::post(
        session.runtime_dir,
        &format!("/v1/calls/{}/close", segment(id)),
    );
    print(answer, false, session)
}

fn print(
    answer: Result<CallRecord, ClientError>,
    list: bool,
    session: &mut Session<'_>,
) -> Result<Outcome, CtlError> {
    let record = match answer {
        Ok(record) => record,
        Err(ClientError::Unknown(error)) => return session.refuse(error),
        Err(error) => return Err(error.into()),
    };
    session.answer(&record, |out, record| text(out, record, list))?;
    Ok(Outcome::Done)
}

fn text(out: &mut dyn Write, record: &CallRecord, list: bool) -> Result<(), CtlError> {
    let width = output::width();
    output::fields(out, fields(record))?;
    writeln!(out)?;
    write!(out, "{}", diagnosis(&record.findings, width))?;
    if !record.media.is_empty() {
        output::table(out, &MEDIA, record.media.iter().map(media))?;
        writeln!(out)?;
    }
    if list {
        for moment in &record.timeline {
            writeln!(out, "{}", line(moment))?;
        }
    } else {
        write!(out, "{}", ladder::draw(record, width))?;
    }
    Ok(())
}

const MEDIA: [&str; 8] = [
    "LOCAL", "FROM", "STREAM", "OPEN", "CLOSED", "IN", "OUT", "DROPPED",
];

fn media(media: &MediaRecord) -> Vec<String> {
    let time = |seconds: f64| format!("{seconds:+.3} s");
    let sources: Vec<String> = media.sources.iter().map(output::source).collect();
    vec![
        media.local.to_string(),
        output::cell(&sources, "-"),
        media.stream.clone(),
        time(media.opened_seconds),
        media.closed_seconds.map_or("-".to_owned(), time),
        media.ingress_packets.to_string(),
        media.egress_packets.to_string(),
        media.dropped_packets.to_string(),
    ]
}

/// What was wrong, and what that usually comes from.
fn diagnosis(findings: &[Finding], width: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        paragraph(
            &mut text,
            &finding.severity.to_uppercase(),
            &finding.text,
            width,
        );
        for cause in &finding.causes {
            paragraph(&mut text, "      -", cause, width);
        }
        text.push('\n');
    }
    text
}

fn paragraph(out: &mut String, head: &str, text: &str, width: usize) {
    const INDENT: usize = 9;
    for (number, line) in ladder::wrap(&plain(text), width.saturating_sub(INDENT).max(20))
        .into_iter()
        .enumerate()
    {
        let head = if number == 0 { head } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{head:<INDENT$}{line}");
    }
}

/// A text as one segment of a path (RFC 3986 §2.1): Call-IDs may hold anything but white space.
fn segment(text: &str) -> String {
    let mut segment = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

fn fields(record: &CallRecord) -> Vec<(String, String)> {
    let mut fields = vec![
        ("call".to_owned(), record.number.to_string()),
        ("Call-ID".to_owned(), plain(&record.call_id)),
    ];
    for (name, value) in &record.provider_call_ids {
        fields.push((plain(name), plain(value)));
    }
    let state = match &record.end {
        Some(end) => format!("ended: {}", end_text(end)),
        None => record.state.clone(),
    };
    for (name, value) in [
        ("provider", record.provider.clone()),
        ("direction", record.direction.clone()),
        ("state", state),
        ("started", record.started.clone()),
        ("duration", output::duration(record.duration_seconds)),
        ("local media", addresses(&record.local_media)),
        ("remote media", addresses(&record.remote_media)),
    ] {
        fields.push((name.to_owned(), value));
    }
    if record.observing {
        fields.push((
            "enforcement".to_owned(),
            "observe: NOTHING IS DROPPED".to_owned(),
        ));
    }
    fields.extend(record.links.iter().map(link));
    fields
}

fn link(link: &CallLink) -> (String, String) {
    let value = plain(&link.value);
    let value = match link.call {
        Some(call) => format!("{value} (call {call})"),
        None => value,
    };
    (link.relation.replace('_', " "), value)
}

/// What of a stream may pass, in few words.
fn terms_text(terms: &view::Terms) -> String {
    let types = terms
        .payload_types
        .as_deref()
        .filter(|types| !types.is_empty());
    let words = [
        types.map(|types| format!("types {}", output::payload_types(Some(types)))),
        terms.rtcp.then(|| "rtcp".to_owned()),
        Some(
            terms
                .packets_per_second
                .map_or_else(|| "any pps".to_owned(), |rate| format!("{rate} pps")),
        ),
        terms.latch.then(|| "latch".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn line(moment: &Moment) -> String {
    let text = happening(&moment.what);
    match moment.what {
        Happening::Elided { .. } => format!("{:>10}    {text}", "…"),
        // Wide enough for calls of more than a day.
        _ => format!("{:>+10.3} s  {text}", moment.at_seconds),
    }
}

/// What happened in a call, in words.
pub(super) fn happening(happening: &Happening) -> String {
    match happening {
        Happening::Message {
            from,
            method,
            status,
            sdp,
            ..
        } => {
            let arrow = if from == "pbx" {
                "pbx ──► provider"
            } else {
                "provider ──► pbx"
            };
            let status = status.map_or(String::new(), |status| format!("{status} "));
            let redirected = match status.starts_with('3') {
                true => " (redirect)",
                false => "",
            };
            let sdp = if *sdp { " (SDP)" } else { "" };
            format!("{arrow}  {status}{}{redirected}{sdp}", plain(method))
        }
        other => what_text(other),
    }
}

/// Whatever is not a message, in words.
pub(super) fn what_text(what: &Happening) -> String {
    match what {
        Happening::Message { method, .. } => plain(method),
        Happening::Media { local, remote } => format!(
            "media             pbx {}, provider {}",
            addresses(local),
            addresses(remote)
        ),
        Happening::Pinhole {
            change,
            local,
            sources,
            stream,
            terms,
            error,
        } => {
            let mut text = format!("pinhole {change:<8}  {local}");
            if let Some(stream) = stream {
                let sources: Vec<String> = sources.iter().map(output::source).collect();
                text = format!("{text} {stream} from {}", sources.join(", "));
            }
            if let Some(terms) = terms {
                text = format!("{text} ({})", terms_text(terms));
            }
            match error.as_deref() {
                None => text,
                Some("full") => text + ": NOT DONE, the kernel's table is full",
                Some(_) => text + ": NOT DONE, the kernel refused; see the daemon's log",
            }
        }
        Happening::Confirmed => "confirmed".to_owned(),
        Happening::Refused { refusal } => format!("refused           {refusal}"),
        Happening::Ended { end } => format!("ended             {}", end_text(end)),
        Happening::Elided { lines } => format!("{lines} lines left out"),
    }
}

fn end_text(end: &CallEnd) -> String {
    match (end.reason.as_str(), end.status) {
        (_, Some(status @ 300..=399)) => format!("redirected ({status})"),
        ("rejected", Some(status)) => format!("rejected ({status})"),
        ("bye_local", _) => "BYE by the PBX".to_owned(),
        ("bye_remote", _) => "BYE by the provider".to_owned(),
        (reason, _) => reason.replace('_', " "),
    }
}

fn addresses(list: &[SocketAddr]) -> String {
    match list {
        [] => "-".to_owned(),
        _ => list
            .iter()
            .map(SocketAddr::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(what: Happening) -> String {
        line(&Moment {
            at_seconds: 0.0314,
            what,
        })
    }

    #[test]
    fn a_call_id_is_one_segment_of_a_path() {
        assert_eq!(segment("a-Z_9~"), "a-Z_9~");
        assert_eq!(segment("1/2?3%@é."), "1%2F2%3F3%25%40%C3%A9%2E");
    }

    #[test]
    fn lines_are_read_at_a_glance() {
        let message = |from: &str, status, sdp| Happening::Message {
            from: from.to_owned(),
            method: "INVITE".to_owned(),
            status,
            sdp,
            session_expires: None,
        };
        let table = [
            (
                message("provider", None, true),
                "    +0.031 s  provider ──► pbx  INVITE (SDP)",
            ),
            (
                message("pbx", Some(200), true),
                "    +0.031 s  pbx ──► provider  200 INVITE (SDP)",
            ),
            (
                message("provider", Some(302), false),
                "    +0.031 s  provider ──► pbx  302 INVITE (redirect)",
            ),
            (
                Happening::Pinhole {
                    change: "opened".to_owned(),
                    local: "203.0.113.10:10000".parse().expect("an address"),
                    sources: vec![view::Source {
                        net: "198.51.100.20/32".parse().expect("a prefix"),
                        ports: "40000-60000".to_owned(),
                    }],
                    stream: Some("rtp".to_owned()),
                    terms: Some(view::Terms {
                        payload_types: Some(vec![0, 8, 96, 97, 98]),
                        rtcp: true,
                        packets_per_second: Some(400),
                        latch: true,
                    }),
                    error: Some("full".to_owned()),
                },
                "    +0.031 s  pinhole opened    203.0.113.10:10000 rtp from 198.51.100.20 ports 40000-60000 (types 0,8,96-98, rtcp, 400 pps, latch): NOT DONE, the kernel's table is full",
            ),
            (
                Happening::Ended {
                    end: CallEnd {
                        reason: "rejected".to_owned(),
                        status: Some(301),
                    },
                },
                "    +0.031 s  ended             redirected (301)",
            ),
            (
                Happening::Elided { lines: 7 },
                "         …    7 lines left out",
            ),
        ];
        for (what, expected) in table {
            assert_eq!(at(what), expected);
        }
    }
}
