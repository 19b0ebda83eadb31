//! `sipfilterctl calls`: the calls in progress, as the daemon knows them. What happened in one of them is `call_record`'s to show.

use std::{io::Write, net::SocketAddr, path::Path};

use schemars::JsonSchema;
use serde::Serialize;

use super::{CtlError, Outcome, call_record, client, output};
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

pub(super) fn run(
    args: &Args,
    runtime_dir: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, CtlError> {
    match &args.command {
        Some(Command::Show { id, list }) => {
            return call_record::show(id, *list, runtime_dir, json, out);
        }
        Some(Command::Close { id }) => return call_record::close(id, runtime_dir, json, out),
        None => {}
    }
    let calls: Vec<view::Call> = client::get(runtime_dir, "/v1/calls")?;
    if json {
        output::json(out, &Answer { calls })?;
    } else {
        table(out, &calls)?;
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
        let mut ids = vec![call.call_id.clone()];
        ids.extend(
            call.provider_call_id
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
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
