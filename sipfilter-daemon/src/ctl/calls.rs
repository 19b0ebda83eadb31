//! `sipfilterctl calls`: the calls in progress, as the daemon knows them. What happened in one of them is `call_record`'s to show.
//!
//! Text that came from a peer is printed without control characters, which a terminal would obey.

use std::{io::Write, net::SocketAddr};

use schemars::JsonSchema;
use serde::Serialize;

use super::{CtlError, Outcome, Session, call_record, client, output};
use crate::view;

/// The JSON answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Calls in progress, the oldest first.
    calls: Vec<view::Call>,
}

/// Which calls.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show one call's messages, pinholes and end; calls that are over are known for a while. Exit status 1 if there is no such call
    Show {
        /// The call's number, its Call-ID, or the beginning of its Call-ID
        id: String,
        /// One line after the other instead of a ladder between the PBX and the provider
        #[arg(long)]
        list: bool,
    },
    /// End one call for the filter: its pinholes close at once; neither side is told. Exit status 1 if there is no such call
    Close {
        /// The call's number, its Call-ID, or the beginning of its Call-ID
        id: String,
    },
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    match &args.command {
        Some(Command::Show { id, list }) => {
            return call_record::show(id, *list, session);
        }
        Some(Command::Close { id }) => return call_record::close(id, session),
        None => {}
    }
    let calls: Vec<view::Call> = client::list(session.runtime_dir, "/v1/calls")?;
    if session.json {
        output::json(session.out, &Answer { calls })?;
    } else {
        table(session.out, &calls)?;
    }
    Ok(Outcome::Done)
}

fn table(out: &mut dyn Write, calls: &[view::Call]) -> Result<(), CtlError> {
    let rows = calls.iter().map(|call| {
        let state = if call.hold {
            format!("{}, hold", call.state)
        } else {
            call.state.clone()
        };
        let mut ids = vec![output::plain(&call.call_id)];
        ids.extend(
            call.provider_call_id
                .iter()
                .map(|(name, value)| output::plain(&format!("{name}: {value}"))),
        );
        vec![
            call.number.to_string(),
            call.provider.clone(),
            call.direction.clone(),
            state,
            output::duration(call.age_seconds),
            addresses(&call.local_media),
            addresses(&call.remote_media),
            call.pinholes.len().to_string(),
            call.finding
                .as_deref()
                .map_or("-".to_owned(), |code| code.replace('_', " ")),
            ids.join("\n"),
        ]
    });
    let head = [
        "CALL",
        "PROVIDER",
        "DIRECTION",
        "STATE",
        "AGE",
        "LOCAL MEDIA",
        "REMOTE MEDIA",
        "PINHOLES",
        "PROBLEM",
        "CALL-ID",
    ];
    output::table(out, &head, rows)
}

pub(super) fn addresses(list: &[SocketAddr]) -> String {
    output::cell(
        &list.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
        "-",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_moves_no_cursor() {
        let call: view::Call = serde_json::from_value(serde_json::json!({
            "number": 1, "call_id": "a\u{9b}2Jb", "provider_call_id": ["X-Call\u{7}", "c\u{1b}]0;d"],
            "provider": "lab", "direction": "inbound", "state": "confirmed", "hold": false, "age_seconds": 1.0,
            "local_media": [], "remote_media": [], "pinholes": [], "finding": null,
        }))
        .expect("a call");
        let mut out = Vec::new();
        table(&mut out, &[call]).expect("room");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("c\u{fffd}]0;d"), "{text:?}");
        let odd = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(odd, None, "{text:?}");
    }
}
