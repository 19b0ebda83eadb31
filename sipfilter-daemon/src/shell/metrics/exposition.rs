//! A snapshot of everything that is counted, and its text. The names here are what dashboards and alerts rest on: they are added to,
//! never renamed.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::{
    engine::counters::Reading,
    shell::{
        delay::{BUCKETS, Histogram},
        traffic::Totals,
    },
    view,
};

/// Everything that one scrape tells.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The daemon's version.
    pub version: &'static str,
    /// The version of what lies in kernel memory.
    pub abi: u16,
    /// For how long it has been running.
    pub uptime_seconds: f64,
    /// Lines of the log that nobody took in time.
    pub log_lines_lost: u64,
    /// Drops are carried out.
    pub is_enforcing: bool,
    /// Interfaces and how the program is attached to each.
    pub interfaces: Vec<(String, String)>,
    /// Interfaces of the configuration, and whether they are filtered now.
    pub filtered: Vec<(String, bool)>,
    /// The kernel's counters.
    pub packets: Vec<view::Counter>,
    /// The engine's counters, those of one name together.
    pub engine: Vec<Reading>,
    /// Packets through pinholes, by provider.
    pub providers: BTreeMap<String, Totals>,
    /// Calls in progress, by provider and state.
    pub calls: BTreeMap<(String, &'static str), u64>,
    /// Those with audio one way only, by provider and who is silent.
    pub one_way: BTreeMap<(String, &'static str), u64>,
    /// Open pinholes, by provider and stream.
    pub pinholes: BTreeMap<(String, &'static str), u64>,
    /// Pinholes of an earlier run that no call has claimed.
    pub adopted: u64,
    /// From the kernel's sight of a message to its being read.
    pub reading: Histogram,
    /// From there to the pinhole's being open.
    pub opening: Histogram,
    /// Tables, how full they are, and what they hold at most.
    pub tables: Vec<(&'static str, u64, u64)>,
}

impl Snapshot {
    /// OpenMetrics text.
    pub fn text(self) -> String {
        let mut registry = Registry::with_prefix("sipfilter");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.state(&mut families)?;
        self.packets(&mut families)?;
        self.calls(&mut families)?;
        self.delays(&mut families)?;
        self.engine(&mut families)
    }
}

impl Snapshot {
    fn state(&self, families: &mut Families<'_>) -> fmt::Result {
        let abi = self.abi.to_string();
        families.gauges(
            "build_info",
            "The version that runs; always 1",
            [([("version", self.version), ("abi", &abi)], 1.0)],
        )?;
        families.gauges(
            "uptime_seconds",
            "For how long the daemon has been running",
            [([("", ""); 0], self.uptime_seconds)],
        )?;
        families.gauges(
            "enforcing",
            "1 where drops are carried out, 0 where they are only observed",
            [([("", ""); 0], f64::from(u8::from(self.is_enforcing)))],
        )?;
        families.counters(
            "log_lines_lost",
            "Lines of the log that nobody took in time, or that could not be written",
            [([("", ""); 0], self.log_lines_lost)],
        )?;
        let interfaces = self
            .interfaces
            .iter()
            .map(|(name, mode)| ([("interface", name.as_str()), ("mode", mode)], 1.0));
        families.gauges(
            "interface_info",
            "Where the filter is attached, and how: native or generic; always 1",
            interfaces,
        )?;
        families.gauges(
            "interface_filtered",
            "1 where an interface of the configuration is filtered, 0 where it is gone or cannot be",
            self.filtered.iter().map(|(name, is_filtered)| {
                ([("interface", name.as_str())], f64::from(u8::from(*is_filtered)))
            }),
        )?;
        let tables = |value: fn(&(&'static str, u64, u64)) -> u64| {
            self.tables
                .iter()
                .map(move |table| ([("table", table.0)], value(table) as f64))
        };
        families.gauges("table_entries", "How full a table is", tables(|t| t.1))?;
        families.gauges(
            "table_capacity",
            "What a table holds at most",
            tables(|t| t.2),
        )
    }

    fn packets(&self, families: &mut Families<'_>) -> fmt::Result {
        let of_kind = |is_note: bool| {
            self.packets
                .iter()
                .filter(move |counter| (counter.kind == "note") == is_note)
        };
        let verdicts: Vec<_> = of_kind(false)
            .map(|counter| (counter, counter.kind.replace(' ', "_")))
            .collect();
        let labels = |value: fn(&view::Counter) -> u64| {
            verdicts.iter().map(move |(counter, verdict)| {
                (
                    [("reason", counter.name.as_str()), ("verdict", verdict)],
                    value(counter),
                )
            })
        };
        families.counters(
            "packets",
            "Packets by the reason of their verdict; each is counted once",
            labels(|counter| counter.packets),
        )?;
        families.counters(
            "packet_bytes",
            "Bytes of these packets",
            labels(|counter| counter.bytes),
        )?;
        families.counters(
            "signalling_copies",
            "Copies of signalling for the daemon; any but copied are lost, shed or cut",
            of_kind(true).map(|counter| ([("outcome", counter.name.as_str())], counter.packets)),
        )?;
        let outcomes: [(&str, Part); 3] = [
            ("media", |totals| totals.ingress),
            ("egress_media", |totals| totals.egress),
            ("dropped_at_pinhole", |totals| totals.dropped),
        ];
        families.counters(
            "provider_packets",
            "Packets that met a provider's pinhole, by what became of them",
            self.providers.iter().flat_map(|(provider, totals)| {
                outcomes.iter().map(move |(outcome, value)| {
                    (
                        [("provider", provider.as_str()), ("outcome", outcome)],
                        value(totals),
                    )
                })
            }),
        )
    }

    fn calls(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauges(
            "calls_in_progress",
            "Calls by provider and state",
            by_provider(&self.calls, "state"),
        )?;
        families.gauges(
            "calls_one_way",
            "Answered calls with audio one way only, by provider and who is not heard",
            by_provider(&self.one_way, "silent"),
        )?;
        families.gauges(
            "pinholes_open",
            "Open pinholes by provider and stream",
            by_provider(&self.pinholes, "stream"),
        )?;
        families.gauges(
            "pinholes_adopted",
            "Pinholes of an earlier run that no call has claimed",
            [([("", ""); 0], self.adopted as f64)],
        )
    }

    fn delays(&self, families: &mut Families<'_>) -> fmt::Result {
        families.histogram(
            "signalling_reading",
            "From the kernel's sight of a signalling packet to its being read",
            &self.reading,
        )?;
        families.histogram(
            "pinhole_opening",
            "From the kernel's sight of the message that opens a pinhole to its being open",
            &self.opening,
        )
    }

    /// The engine's own names, so that what it learns to count is here without another line.
    fn engine(&self, families: &mut Families<'_>) -> fmt::Result {
        for group in self.engine.chunk_by(|a, b| a.name == b.name) {
            let Some(name) = group.first().map(|reading| reading.name) else {
                continue;
            };
            let help = format!("The daemon's counter {name}");
            let values = group.iter().map(|reading| {
                let labels: Vec<_> = reading.label.into_iter().collect();
                (labels, reading.value)
            });
            families.counters(name, &help, values)?;
        }
        Ok(())
    }
}

/// One of a provider's totals.
type Part = fn(&Totals) -> u64;

fn by_provider<'a>(
    values: &'a BTreeMap<(String, &'static str), u64>,
    label: &'a str,
) -> impl Iterator<Item = ([(&'a str, &'a str); 2], f64)> {
    values.iter().map(move |((provider, name), value)| {
        (
            [("provider", provider.as_str()), (label, *name)],
            *value as f64,
        )
    })
}

struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn gauges<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            let labels = labels.as_ref();
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn counters<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            let labels = labels.as_ref();
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let inside: u64 = histogram.buckets.iter().sum();
        let buckets: Vec<(f64, u64)> = BUCKETS
            .iter()
            .map(|upper| upper.as_secs_f64())
            .zip(histogram.buckets)
            // The greatest number stands for infinity.
            .chain([(f64::MAX, histogram.count - inside)])
            .collect();
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(histogram.sum, histogram.count, &buckets, None)
    }
}
