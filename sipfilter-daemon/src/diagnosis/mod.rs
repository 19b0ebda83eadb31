//! What was wrong with a call, in plain words: a pure function over its record.
//!
//! It asks nobody and remembers nothing, so that the same record always gets the same words, in the daemon and in a test. It says what
//! the record shows and then what that usually comes from; it never says that a call was good. `media` judges what the pinholes counted,
//! `setup` how the call came about and ended, `hints` knows what a status mostly means at which provider.

mod hints;
mod media;
mod setup;
#[cfg(test)]
mod tests;

use crate::view::{CallRecord, Finding};

pub use media::{Flow, Stillness, judge as judge_media};

/// Everything that is worth saying of a call, what weighs most first.
pub fn diagnose(record: &CallRecord) -> Vec<Finding> {
    let mut findings = setup::findings(record);
    findings.extend(media::findings(record));
    findings.sort_by_key(|finding| finding.severity != PROBLEM);
    findings
}

const PROBLEM: &str = "problem";
const NOTE: &str = "note";

/// A finding; `causes` are likely ones, the likeliest first, each with what to do.
fn finding(severity: &str, code: &str, text: String, causes: Vec<String>) -> Finding {
    Finding {
        severity: severity.to_owned(),
        code: code.to_owned(),
        text,
        causes,
    }
}

fn owned(causes: &[&str]) -> Vec<String> {
    causes.iter().map(|cause| (*cause).to_owned()).collect()
}

/// Seconds, as one says them.
fn seconds(value: f64) -> String {
    if value < 120.0 {
        format!("{value:.1} s")
    } else {
        format!("{:.0} min", value / 60.0)
    }
}

fn packets(count: u64) -> String {
    match count {
        1 => "1 packet".to_owned(),
        _ => format!("{count} packets"),
    }
}
