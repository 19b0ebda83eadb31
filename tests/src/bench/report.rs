//! Outcomes for readers: text on a terminal, and a directory with `benchmarks.md`, one SVG per chart and the raw results.
//!
//! The page is made from the raw results that lie beside it, so that a run of one sub-bench renews its section and keeps the others',
//! each with the machine and the day on which it was measured.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::{
    BLACK, Color as _, DrawingArea, IntoDrawingArea as _, RGBColor, Rectangle, SVGBackend, Text,
    WHITE,
};
use plotters::style::{IntoFont as _, TextStyle};

use super::{
    ALL,
    outcome::{Chart, Recorded, Table},
};

/// Where the raw results and plots lie, beside the page.
const DIRECTORY: &str = "benchmarks";
const PAGE: &str = "benchmarks.md";

/// Tables and notes for a terminal.
#[must_use]
pub fn text(done: &Recorded) -> String {
    let mut text = String::new();
    for table in &done.outcome.tables {
        let _ = writeln!(text, "\n{}", table.title);
        let columns = widths(table);
        for row in std::iter::once(&table.header).chain(&table.rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(&columns)
                .enumerate()
                .map(|(place, (cell, &width))| match place {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
        }
    }
    for note in &done.outcome.notes {
        let _ = writeln!(text, "\n{note}");
    }
    let _ = writeln!(text, "\n{}: {}", done.name, done.outcome.summary);
    text
}

/// Renews the sections of these results.
///
/// # Errors
/// Where a file cannot be written, or an earlier result cannot be read.
pub fn write(directory: &Path, results: &[Recorded]) -> Result<()> {
    let data = directory.join(DIRECTORY);
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    for done in results {
        let json = serde_json::to_string_pretty(done)? + "\n";
        save(&data.join(format!("{}.json", done.name)), &json)?;
        for chart in &done.outcome.charts {
            let path = data.join(format!("{}.svg", chart.file));
            draw(chart, &path).with_context(|| format!("cannot draw {}", path.display()))?;
        }
    }
    let mut kept = Vec::new();
    for bench in ALL {
        let path = data.join(format!("{}.json", bench.name));
        if let Ok(json) = fs::read_to_string(&path) {
            let done: Recorded = serde_json::from_str(&json).with_context(|| {
                format!(
                    "{} is from another version; measure {} again",
                    path.display(),
                    bench.name
                )
            })?;
            kept.push(done);
        }
    }
    save(&directory.join(PAGE), &page(&kept))
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn page(results: &[Recorded]) -> String {
    let mut page = String::from(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench --report docs`; not by hand. Figures are medians of rounds in which the candidates take turns; \
         only ratios of one run mean anything on another machine.\n",
    );
    for done in results {
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\nMeasured {}; {} rounds.\n",
            done.name, done.about, done.machine, done.rounds
        );
        let _ = write!(page, "\n```json\n{}\n```\n", done.outcome.summary);
        for chart in &done.outcome.charts {
            let _ = write!(
                page,
                "\n![{}]({DIRECTORY}/{}.svg)\n",
                chart.title, chart.file
            );
        }
        for table in &done.outcome.tables {
            page.push_str(&markdown(table));
        }
        for note in &done.outcome.notes {
            let _ = write!(page, "\n{note}\n");
        }
    }
    page
}

fn markdown(table: &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = (0..table.header.len())
        .map(|place| if place == 0 { "---" } else { "---:" }.into())
        .collect();
    let rows: String = table.rows.iter().map(|row| line(row)).collect();
    format!(
        "\n### {}\n\n{}{}{rows}",
        table.title,
        line(&table.header),
        line(&rule)
    )
}

fn widths(table: &Table) -> Vec<usize> {
    (0..table.header.len())
        .map(|place| {
            std::iter::once(&table.header)
                .chain(&table.rows)
                .filter_map(|row| Some(row.get(place)?.chars().count()))
                .max()
                .unwrap_or_default()
        })
        .collect()
}

const COLOURS: [RGBColor; 5] = [
    RGBColor(38, 110, 178),
    RGBColor(230, 126, 34),
    RGBColor(88, 152, 86),
    RGBColor(150, 90, 160),
    RGBColor(120, 120, 120),
];
const WIDTH: i32 = 860;
const LABELS: i32 = 300;
const VALUES: i32 = 110;
const BAR: i32 = 14;
const GAP: i32 = 8;
const TOP: i32 = 48;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(chart: &Chart, path: &Path) -> Result<()> {
    let bars: usize = chart
        .bars
        .iter()
        .map(|(_, values)| values.len().max(1))
        .sum();
    let legend = if chart.series.len() > 1 { 24 } else { 0 };
    let height = TOP + legend + bars as i32 * BAR + chart.bars.len() as i32 * GAP + GAP;
    let canvas = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    let failed = |error| anyhow!("{error}");
    paint(chart, &canvas, TOP + legend).map_err(failed)?;
    canvas.present().map_err(|error| anyhow!("{error}"))
}

fn paint(
    chart: &Chart,
    canvas: &Canvas<'_>,
    top: i32,
) -> Result<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>> {
    let font = |size: u32| TextStyle::from(("sans-serif", size).into_font()).color(&BLACK);
    canvas.fill(&WHITE)?;
    let title = format!("{} [{}]", chart.title, chart.unit);
    canvas.draw(&Text::new(title, (12, 14), font(17)))?;
    if chart.series.len() > 1 {
        let mut left = 12;
        for (name, colour) in chart.series.iter().zip(COLOURS.iter().cycle()) {
            canvas.draw(&Rectangle::new(
                [(left, TOP - 2), (left + 12, TOP + 10)],
                colour.filled(),
            ))?;
            canvas.draw(&Text::new(name.clone(), (left + 18, TOP - 2), font(13)))?;
            left += 40 + name.chars().count() as i32 * 8;
        }
    }
    let all = chart.bars.iter().flat_map(|(_, values)| values);
    let longest = all.copied().fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH - LABELS - VALUES);
    let mut y = top;
    for (label, values) in &chart.bars {
        canvas.draw(&Text::new(label.clone(), (12, y), font(13)))?;
        for (value, colour) in values.iter().zip(COLOURS.iter().cycle()) {
            let length = (value.max(0.0) / longest * room) as i32;
            canvas.draw(&Rectangle::new(
                [(LABELS, y), (LABELS + length.max(1), y + BAR - 2)],
                colour.filled(),
            ))?;
            let number = shown(*value);
            canvas.draw(&Text::new(number, (LABELS + length + 6, y), font(12)))?;
            y += BAR;
        }
        y += GAP + if values.is_empty() { BAR } else { 0 };
    }
    Ok(())
}

/// Digits enough to compare bars by.
fn shown(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bench::{machine::Machine, outcome::Outcome},
        lab::cleanup::{Directory, unique_name},
    };

    #[test]
    fn a_report_keeps_what_it_does_not_renew() {
        let directory = Directory::create(&unique_name()).expect("a directory");
        let mut table = Table::new("Figures", &["what", "ns"]);
        table.row(["hit", "35"]);
        let done = |name: &str| Recorded {
            name: name.into(),
            about: "a test".into(),
            machine: Machine::look().expect("a machine"),
            rounds: 3,
            outcome: Outcome {
                tables: vec![table.clone()],
                charts: vec![Chart {
                    file: format!("{name}-chart"),
                    title: "Figures".into(),
                    unit: "ns".into(),
                    series: vec!["one".into(), "other".into()],
                    bars: vec![("hit".into(), vec![35.0, 70.0])],
                }],
                ..Outcome::default()
            },
        };
        let [first, second] = [ALL[0].name, ALL[1].name];
        write(directory.path(), &[done(first)]).expect("a report");
        write(directory.path(), &[done(second)]).expect("a report");
        let page = fs::read_to_string(directory.path().join(PAGE)).expect("a page");
        for part in [
            format!("## {first}"),
            format!("## {second}"),
            "| hit | 35 |".into(),
            format!("({DIRECTORY}/{first}-chart.svg)"),
        ] {
            assert!(page.contains(&part), "{part} is not in\n{page}");
        }
        let chart = directory
            .path()
            .join(DIRECTORY)
            .join(format!("{first}-chart.svg"));
        let svg = fs::read_to_string(chart).expect("a plot");
        assert!(svg.contains("<svg") && svg.contains("hit") && svg.contains("70.0"));
    }
}
