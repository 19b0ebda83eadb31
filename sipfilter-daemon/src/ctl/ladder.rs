//! A call's messages as a ladder: the PBX left, the provider right, time down, as `sngrep` draws it.
//!
//! It decides how things look and nothing else. Invariant: no line is wider than it was told, unless that is less than [`NARROWEST`].

use std::fmt::Write as _;

use super::{call_record::what_text, output::plain};
use crate::view::{CallRecord, Happening, Moment};

/// Below this nothing can be read any more.
const NARROWEST: usize = 48;
/// Wider than this, the eye does not find the other side.
const WIDEST: usize = 72;
/// What stands left of the ladder: the time.
const MARGIN: usize = 14;

/// Draws the ladder.
pub(super) fn draw(record: &CallRecord, width: usize) -> String {
    let lane = width.max(NARROWEST) - MARGIN - 2;
    let lane = lane.min(WIDEST);
    let mut text = head(&record.provider, lane);
    for moment in &record.timeline {
        let time = match moment.what {
            Happening::Elided { .. } => "…".to_owned(),
            // Wide enough for calls of more than a day.
            _ => format!("{:+.3} s", moment.at_seconds),
        };
        for (number, line) in rungs(moment, lane).into_iter().enumerate() {
            let time = if number == 0 { time.as_str() } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{time:>12}  │{line:<lane$}│");
        }
    }
    text
}

fn head(provider: &str, lane: usize) -> String {
    let provider = format!("provider {}", plain(provider));
    let room = lane.saturating_sub(2);
    let provider: String = provider.chars().take(room).collect();
    let mut text = String::new();
    let _ = writeln!(text, "{:>15}{provider:>room$}", "pbx");
    let _ = writeln!(text, "{:MARGIN$}│{:lane$}│", "", "");
    text
}

/// What stands between the two lines for one moment.
fn rungs(moment: &Moment, lane: usize) -> Vec<String> {
    match &moment.what {
        Happening::Message {
            from,
            method,
            status,
            sdp,
            ..
        } => vec![arrow(from == "pbx", &label(method, *status, *sdp), lane)],
        other => wrap(&what_text(other), lane - 4)
            .into_iter()
            .enumerate()
            .map(|(number, line)| format!(" {} {line}", if number == 0 { '·' } else { ' ' }))
            .collect(),
    }
}

fn label(method: &str, status: Option<u16>, sdp: bool) -> String {
    let method = plain(method);
    let mut text = match status {
        None => method,
        Some(status @ 300..=399) => format!("{status} {method} (redirect)"),
        Some(status) => format!("{status} {method}"),
    };
    if sdp {
        text.push_str(" (SDP)");
    }
    text
}

/// ` ───── INVITE (SDP) ────► ` or ` ◄──── 200 INVITE ───── `.
fn arrow(is_rightwards: bool, label: &str, lane: usize) -> String {
    // Blanks at both ends and around the label, the head, and a stroke on either side.
    let room = lane.saturating_sub(7);
    let label: String = label.chars().take(room).collect();
    let strokes = lane - 5 - label.chars().count();
    let left = strokes / 2;
    let (left, right) = ("─".repeat(left), "─".repeat(strokes - left));
    match is_rightwards {
        true => format!(" {left} {label} {right}► "),
        false => format!(" ◄{left} {label} {right} "),
    }
}

/// Breaks a text at its blanks.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.iter().collect());
            word = rest;
        }
        length += word.len();
        line.extend(word);
    }
    if length > 0 || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_from_the_sender_and_fill_the_lane() {
        for (rightwards, lane, expected) in [
            (true, 30, " ────── INVITE (SDP) ───────► "),
            (false, 30, " ◄────── INVITE (SDP) ─────── "),
            (true, 12, " ── INVIT ──► "),
        ] {
            let drawn = arrow(rightwards, "INVITE (SDP)", lane);
            assert_eq!(drawn.chars().count(), lane, "{drawn}");
            if lane == 30 {
                assert_eq!(drawn, expected);
            }
        }
    }

    #[test]
    fn text_breaks_at_blanks_and_words_that_are_too_long_are_cut() {
        for (text, width, expected) in [
            ("one two three", 7, vec!["one two", "three"]),
            ("", 5, vec![""]),
            ("abcdefgh ij", 3, vec!["abc", "def", "gh", "ij"]),
            ("a bcdef", 3, vec!["a", "bcd", "ef"]),
        ] {
            assert_eq!(wrap(text, width), expected, "{text:?}");
        }
    }
}
