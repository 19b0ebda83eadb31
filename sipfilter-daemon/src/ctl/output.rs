//! Printing: tables for people, JSON for programs.
//!
//! It decides how things look and nothing else. Every `--json` output is one object on one line.

use std::{io::Write, net::IpAddr};

use comfy_table::{ContentArrangement, Table, presets};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::CtlError;
pub(super) use crate::printable::plain;
use crate::{printable, view};

/// One JSON object on a line of its own, with nothing in it that a terminal would obey. Whatever is printed so has a schema; `schema` lists them.
pub(super) fn json(
    out: &mut dyn Write,
    value: &(impl Serialize + JsonSchema),
) -> Result<(), CtlError> {
    writeln!(out, "{}", printable::json(&serde_json::to_string(value)?))?;
    Ok(())
}

/// A table with a head line and no other lines, so that `awk` can read it too.
pub(super) fn table(
    out: &mut dyn Write,
    head: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<(), CtlError> {
    let mut table = bare();
    table.set_header(head);
    print(out, table, rows)
}

/// Names and their values, one a line, without a head line.
pub(super) fn fields(
    out: &mut dyn Write,
    rows: impl IntoIterator<Item = (String, String)>,
) -> Result<(), CtlError> {
    let rows = rows.into_iter().map(|(name, value)| vec![name, value]);
    print(out, bare(), rows)
}

/// A list in one cell; `otherwise` stands for an empty one.
pub(super) fn cell(list: &[String], otherwise: &str) -> String {
    if list.is_empty() {
        otherwise.to_owned()
    } else {
        list.join("\n")
    }
}

fn bare() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn print(
    out: &mut dyn Write,
    mut table: Table,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<(), CtlError> {
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// An address range and a port range, in words that `tcpdump` users read without thinking.
pub(super) fn source(source: &view::Source) -> String {
    view::source_text(source)
}

/// How many columns the reader has: the terminal's, or what fits a page.
pub(super) fn width() -> usize {
    const PAGE: usize = 100;
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => PAGE,
    }
}

/// A network, or an address as the network of it alone.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).ok()
}

/// A single address without its prefix length, anything wider with it.
pub(super) fn net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// Payload types, runs of them joined; `-` where they do not matter, `none` where there are none.
pub(super) fn payload_types(types: Option<&[u8]>) -> String {
    let Some(types) = types else {
        return "-".to_owned();
    };
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for &number in types {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        })
        .collect();
    if runs.is_empty() {
        "none".to_owned()
    } else {
        runs.join(",")
    }
}

/// A duration in the two largest units that matter.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_types_are_shown_in_runs() {
        let check = |types: Option<&[u8]>, expect: &str| assert_eq!(payload_types(types), expect);
        check(None, "-");
        check(Some(&[]), "none");
        check(Some(&[0, 8, 9, 101]), "0,8,9,101");
        check(Some(&[0, 96, 97, 98, 127]), "0,96-98,127");
    }
}
