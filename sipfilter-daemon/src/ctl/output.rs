//! Printing: tables for people, JSON for programs.
//!
//! It decides how things look and nothing else. Every `--json` output is one object on one line.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::CtlError;

/// One JSON object on a line of its own.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), CtlError> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)?;
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
