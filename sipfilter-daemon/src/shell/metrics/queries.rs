//! The dashboard, the alerts and the reference ask only for what is told: metric names, labels and the values of labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sipfilter_common::{
    reason::Counter,
    settings::{Mode, Modes},
};

use super::Snapshot;
use crate::{
    engine::{Counters, EndReason},
    shell::{counters::kind, delay::Delays, traffic::Totals},
    view,
};

const DASHBOARD: &str = include_str!("../../../../config/grafana/sipfilter.json");
const ALERTS: &str = include_str!("../../../../config/prometheus/alerts.yml");
const REFERENCE: &str = include_str!("../../../../config/README.md");

/// Everything that can be told, once.
fn snapshot() -> Snapshot {
    let mut delays = Delays::default();
    delays.add(Duration::from_millis(3));
    let once = |names: &[&'static str]| {
        names
            .iter()
            .map(|name| (("lab".to_owned(), *name), 1))
            .collect()
    };
    Snapshot {
        log_lines_lost: 1,
        version: "1.2.3",
        abi: 3,
        uptime_seconds: 1.5,
        is_enforcing: true,
        interfaces: vec![("eth0".to_owned(), "native".to_owned())],
        filtered: vec![("eth0".to_owned(), true)],
        // Under both modes, so that every verdict is there.
        packets: [Modes::DEFAULT, Modes::DEFAULT.with(Mode::Observe)]
            .into_iter()
            .flat_map(|modes| Counter::all().map(move |counter| (modes, counter)))
            .map(|(modes, counter)| view::Counter {
                name: counter.name().to_owned(),
                kind: kind(counter, modes).to_owned(),
                packets: 7,
                bytes: 700,
            })
            .collect(),
        engine: Counters::default().readings().collect(),
        providers: BTreeMap::from([("lab".to_owned(), Totals::default())]),
        calls: once(&["inviting", "ringing", "challenged", "confirmed"]),
        one_way: once(&["provider", "pbx"]),
        pinholes: once(&["rtp", "rtcp", "udptl"]),
        adopted: 0,
        reading: delays.histogram().clone(),
        opening: delays.histogram().clone(),
        tables: vec![("calls", 1, 2), ("pinholes", 1, 2)],
    }
}

/// Series by name: for each label its values.
type Told = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn told() -> Told {
    let mut told = Told::new();
    for line in snapshot().text().lines() {
        if line.starts_with('#') {
            continue;
        }
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let known = told.entry(name.to_owned()).or_default();
        for (label, value) in matchers(labels.trim_end_matches('}')) {
            known
                .entry(label.to_owned())
                .or_default()
                .insert(value.to_owned());
        }
    }
    told
}

/// `a="b",c=~"d"` taken apart.
fn matchers(text: &str) -> Vec<(&str, &str)> {
    text.split("\",")
        .filter_map(|pair| {
            let (label, value) = pair.split_once("=\"").or_else(|| pair.split_once("~\""))?;
            Some((
                label.trim().trim_end_matches(['=', '!']),
                value.trim_end_matches('"'),
            ))
        })
        .collect()
}

/// What is wrong with a query, if anything is.
fn fault(told: &Told, query: &str) -> Option<String> {
    let mut labels_of_all = BTreeSet::new();
    let mut found_one = false;
    for (at, _) in query.match_indices("sipfilter_") {
        found_one = true;
        let rest = &query[at..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let Some(labels) = told.get(name) else {
            return Some(format!("no series {name}"));
        };
        labels_of_all.extend(labels.keys().cloned());
        let selector = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
            .map_or("", |(inside, _)| inside);
        for (label, value) in matchers(selector) {
            let Some(values) = labels.get(label) else {
                return Some(format!("{name} has no label {label}"));
            };
            for alternative in value.split('|').filter(|value| !value.starts_with('$')) {
                let is_known = match alternative.strip_suffix(".*") {
                    Some(beginning) => values.iter().any(|value| value.starts_with(beginning)),
                    None => values.contains(alternative),
                };
                if !is_known {
                    return Some(format!("{name} never has {label}={alternative}"));
                }
            }
        }
    }
    let grouped = query.split("by (").skip(1);
    for label in grouped.flat_map(|rest| {
        let (inside, _) = rest.split_once(')').unwrap_or((rest, ""));
        inside.split(',').map(str::trim)
    }) {
        if !labels_of_all.contains(label) {
            return Some(format!("groups by {label}, which nothing in it has"));
        }
    }
    (!found_one).then(|| "it asks for nothing of sipfilter's".to_owned())
}

#[track_caller]
fn check<'a>(what: &str, queries: impl IntoIterator<Item = &'a str>, least: usize) {
    let told = told();
    let mut count = 0;
    for query in queries {
        count += 1;
        if let Some(fault) = fault(&told, query) {
            panic!("{what}: {fault}\n{query}");
        }
    }
    assert!(count >= least, "{what}: only {count} queries were found");
}

#[test]
fn the_dashboard_asks_for_what_is_told() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            queries.push(target["expr"].as_str().expect("an expression"));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    queries.extend(
        variables
            .iter()
            .filter(|variable| variable["type"] == "query")
            .map(|variable| variable["query"].as_str().expect("a query")),
    );
    check("config/grafana/sipfilter.json", queries, 16);
}

#[test]
fn alerts_ask_for_what_is_told_and_say_what_to_do() {
    let lines = |key: &'static str| {
        ALERTS
            .lines()
            .filter_map(move |line| line.trim().strip_prefix(key))
    };
    check("config/prometheus/alerts.yml", lines("expr: "), 11);
    let alerts = lines("- alert: ").count();
    for key in ["expr: ", "summary: ", "description: ", "labels: "] {
        assert_eq!(lines(key).count(), alerts, "{key}");
    }
}

#[test]
fn every_metric_is_in_the_reference_and_nothing_else() {
    let (_, section) = REFERENCE.split_once("\n## Metrics\n").expect("a section");
    let section = section.split("\n## ").next().expect("one part");
    let documented: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .map(ToOwned::to_owned)
        .collect();
    let told: BTreeSet<String> = told()
        .into_keys()
        .filter(|name| !name.ends_with("_bucket") && !name.ends_with("_count"))
        .map(|name| name.trim_end_matches("_sum").to_owned())
        .collect();
    assert_eq!(documented, told);
}

#[test]
fn a_wrong_query_is_found() {
    let told = told();
    for (query, expect) in [
        ("sipfilter_nonsense", "no series sipfilter_nonsense"),
        (
            "rate(sipfilter_packets_total{provider=\"lab\"}[5m])",
            "sipfilter_packets_total has no label provider",
        ),
        (
            "sipfilter_packets_total{reason=~\"media|mud\"}",
            "sipfilter_packets_total never has reason=mud",
        ),
        (
            "sum by (colour) (sipfilter_calls_one_way)",
            "groups by colour, which nothing in it has",
        ),
        ("up == 0", "it asks for nothing of sipfilter's"),
    ] {
        assert_eq!(fault(&told, query).as_deref(), Some(expect), "{query}");
    }
    assert_eq!(
        fault(
            &told,
            "sum by (reason) (rate(sipfilter_packets_total{verdict=\"drop\"}[5m]))"
        ),
        None
    );
}

#[test]
fn the_text_is_what_prometheus_reads() {
    let text = snapshot().text();
    for line in [
        "# TYPE sipfilter_packets counter",
        "sipfilter_packets_total{reason=\"no_pinhole\",verdict=\"drop\"} 7",
        "sipfilter_build_info{version=\"1.2.3\",abi=\"3\"} 1.0",
        "sipfilter_calls_one_way{provider=\"lab\",silent=\"pbx\"} 1.0",
        "# UNIT sipfilter_pinhole_opening_seconds seconds",
        "sipfilter_pinhole_opening_seconds_bucket{le=\"0.0025\"} 0",
        "sipfilter_pinhole_opening_seconds_bucket{le=\"0.005\"} 1",
        "sipfilter_pinhole_opening_seconds_bucket{le=\"+Inf\"} 1",
        "sipfilter_uptime_seconds 1.5",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no line {line}\n{text}"
        );
    }
    assert!(text.ends_with("# EOF\n"));
    for name in EndReason::NAMES {
        assert!(text.contains(&format!(
            "sipfilter_calls_ended_total{{reason=\"{name}\"}} 0"
        )));
    }
}
