//! What a sub-bench hands back, in a form that text, Markdown, JSON and plots are all made from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine::Machine;

/// The result of one sub-bench.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its part of the last line of `--json`: the ratios that matter, and nothing else.
    pub summary: Value,
    /// Everything that was measured, for readers.
    pub tables: Vec<Table>,
    /// Plots of it.
    pub charts: Vec<Chart>,
    /// What a reader must know besides: how it was measured, what was missed and why. Markdown, one paragraph each.
    pub notes: Vec<String>,
}

/// A table; every row has as many cells as the header.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// Its columns.
    pub header: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

/// Horizontal bars, in groups where there are several series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// The SVG's name, without its extension; unique among all sub-benches.
    pub file: String,
    /// Its heading.
    pub title: String,
    /// What the axis counts.
    pub unit: String,
    /// The names of the series, in the order of each bar's values.
    pub series: Vec<String>,
    /// Label, and one value per series; a value that was not measured is left out from the end.
    pub bars: Vec<(String, Vec<f64>)>,
}

/// An outcome with where and when it came to be, as it is kept beside the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The sub-bench.
    pub name: String,
    /// What it measures.
    pub about: String,
    /// Where and when.
    pub machine: Machine,
    /// How many rounds the medians are of.
    pub rounds: usize,
    /// What came out.
    pub outcome: Outcome,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(title: &str, header: &[&str]) -> Self {
        Self {
            title: title.into(),
            header: header.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}
