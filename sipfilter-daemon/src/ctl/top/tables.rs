//! What is shown: three tables with their columns, and the line above them.
//!
//! It makes text of readings and knows nothing of a terminal, but for how wide a table may be. A peer's text leaves it without control
//! characters.

use std::cmp::Ordering;

use crate::{
    ctl::output::{self, plain},
    view::{Top, TopCall, TopPinhole, TopReason},
};

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tab {
    /// Calls in progress.
    #[default]
    Calls,
    /// Open pinholes.
    Pinholes,
    /// The kernel's counters.
    Reasons,
}

/// A column: what it is called, how wide it is at most, and what goes before it where there is no room for all.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Longer text is cut.
    widest: u16,
    /// 0 is shown always, 1 goes last.
    rank: u8,
    /// Numbers stand at the right, and begin with the largest when they are sorted by.
    pub(super) is_number: bool,
}

impl Column {
    /// The title, and the mark of the column that is sorted by.
    fn least(&self) -> u16 {
        u16::try_from(self.title.len() + 1).unwrap_or(u16::MAX)
    }
}

const fn text(title: &'static str, widest: u16, rank: u8) -> Column {
    Column {
        title,
        widest,
        rank,
        is_number: false,
    }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column {
        title,
        widest: 15,
        rank,
        is_number: true,
    }
}

const CALLS: &[Column] = &[
    number("CALL", 0),
    text("PROVIDER", 20, 3),
    text("DIRECTION", 9, 6),
    text("STATE", 12, 5),
    number("AGE", 4),
    number("IN/s", 1),
    number("OUT/s", 1),
    text("PROBLEM", 24, 2),
    text("CALL-ID", 60, 7),
];
const PINHOLES: &[Column] = &[
    text("LOCAL", 45, 0),
    text("STREAM", 6, 4),
    text("PROVIDER", 20, 5),
    number("CALL", 2),
    number("IN/s", 1),
    number("OUT/s", 1),
    number("DROP/s", 3),
    number("DROPPED", 6),
    text("FROM", 60, 7),
];
const REASONS: &[Column] = &[
    text("REASON", 32, 0),
    text("VERDICT", 10, 2),
    number("PACKETS", 3),
    number("PACKETS/s", 1),
    number("BITS/s", 4),
];

/// One cell: what it shows, and the number that it is sorted by, where it is one.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) text: String,
    number: Option<f64>,
}

impl Field {
    fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            number: None,
        }
    }

    fn number(number: f64) -> Self {
        Self {
            text: format!("{number:.0}"),
            number: Some(number),
        }
    }

    fn age(seconds: f64) -> Self {
        Self {
            text: output::duration(seconds),
            number: Some(seconds),
        }
    }

    /// Larger numbers go first, text goes by the alphabet.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(one), Some(two)) => two.total_cmp(&one),
            _ => self.text.cmp(&other.text),
        }
    }
}

impl Tab {
    pub(super) const ALL: [Self; 3] = [Self::Calls, Self::Pinholes, Self::Reasons];

    pub(super) fn number(self) -> usize {
        self as usize
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Pinholes => "pinholes",
            Self::Reasons => "reasons",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Calls => CALLS,
            Self::Pinholes => PINHOLES,
            Self::Reasons => REASONS,
        }
    }

    /// What it is sorted by until somebody chooses.
    pub(super) fn first_column(self) -> usize {
        match self {
            // The newest call, whose media has just begun.
            Self::Calls => 0,
            Self::Pinholes => 0,
            // What happens most now.
            Self::Reasons => 3,
        }
    }

    pub(super) fn rows(self, top: &Top) -> Vec<Vec<Field>> {
        match self {
            Self::Calls => top.calls.iter().map(call).collect(),
            Self::Pinholes => top.pinholes.iter().map(pinhole).collect(),
            Self::Reasons => {
                let mut rows: Vec<_> = top.reasons.iter().map(reason).collect();
                // Those that happened at all, before those that never did.
                rows.sort_by(|one, two| match (one.get(2), two.get(2)) {
                    (Some(one), Some(two)) => one.compare(two),
                    _ => Ordering::Equal,
                });
                rows
            }
        }
    }

    /// How many rows there are.
    pub(super) fn rows_in(self, top: &Top) -> usize {
        match self {
            Self::Calls => top.calls.len(),
            Self::Pinholes => top.pinholes.len(),
            Self::Reasons => top.reasons.len(),
        }
    }

    /// Which columns fit next to each other, and how wide they are.
    pub(super) fn fitting(self, rows: &[Vec<Field>], width: u16) -> Vec<(usize, u16)> {
        let mut shown: Vec<(usize, u16)> = self
            .columns()
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let texts = rows.iter().filter_map(|row| row.get(at));
                let longest = texts.map(|field| field.text.chars().count()).max();
                let longest =
                    longest.map_or(0, |longest| u16::try_from(longest).unwrap_or(u16::MAX));
                (at, longest.min(column.widest).max(column.least()))
            })
            .collect();
        let rank = |at: usize| self.columns().get(at).map_or(0, |column| column.rank);
        loop {
            let total: usize = shown.iter().map(|&(_, width)| usize::from(width) + 1).sum();
            let last = shown.iter().map(|&(at, _)| rank(at)).max().unwrap_or(0);
            if total <= usize::from(width) + 1 || last == 0 {
                return shown;
            }
            shown.retain(|&(at, _)| rank(at) < last);
        }
    }
}

fn call(top: &TopCall) -> Vec<Field> {
    let call = &top.call;
    let state = if call.hold { "hold" } else { &call.state };
    let problem = call.finding.as_deref().unwrap_or("-").replace('_', " ");
    vec![
        Field::number(call.number as f64),
        Field::text(&call.provider),
        Field::text(&call.direction),
        Field::text(state),
        Field::age(call.age_seconds),
        Field::number(top.ingress_per_second),
        Field::number(top.egress_per_second),
        Field::text(problem),
        Field::text(plain(&call.call_id)),
    ]
}

fn pinhole(top: &TopPinhole) -> Vec<Field> {
    let pinhole = &top.pinhole;
    let from: Vec<String> = pinhole.sources.iter().map(output::source).collect();
    vec![
        Field::text(pinhole.local.to_string()),
        Field::text(&pinhole.stream),
        Field::text(&pinhole.provider),
        Field::number(pinhole.call as f64),
        Field::number(top.ingress_per_second),
        Field::number(top.egress_per_second),
        Field::number(top.dropped_per_second),
        Field::number(pinhole.dropped_packets as f64),
        Field::text(from.join(", ")),
    ]
}

fn reason(top: &TopReason) -> Vec<Field> {
    vec![
        Field::text(&top.counter.name),
        Field::text(&top.counter.kind),
        Field::number(top.counter.packets as f64),
        Field::number(top.packets_per_second),
        Field::number(top.bytes_per_second * 8.0),
    ]
}

/// The first line.
pub(super) fn summary(top: &Top) -> String {
    let Some(status) = &top.daemon else {
        return "sipfilterd does not answer; what is attached filters on".to_owned();
    };
    let dropped: f64 = top
        .reasons
        .iter()
        .filter(|reason| reason.counter.kind.ends_with("drop"))
        .map(|reason| reason.packets_per_second)
        .sum();
    let problems = top
        .calls
        .iter()
        .filter(|call| call.call.finding.is_some())
        .count();
    let dropped = match status.enforcement.as_str() {
        "observe" => format!("OBSERVING: {dropped:.0}/s would be dropped"),
        _ => format!("{dropped:.0}/s dropped"),
    };
    format!(
        "sipfilter up {}: {dropped}, {} calls ({problems} with a problem), {} pinholes",
        output::duration(status.uptime_seconds),
        status.calls,
        status.pinholes,
    )
}
