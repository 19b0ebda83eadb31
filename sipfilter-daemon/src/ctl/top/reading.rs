//! One look at the daemon and at the pinned counters, and the rates between two.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Instant};

use crate::{
    ctl::{
        client::{self, ClientError},
        stats,
    },
    shell::pins::Pins,
    view::{Call, Counter, Pinhole, Status, Top, TopCall, TopPinhole, TopReason},
};

/// What was seen at a time.
#[derive(Debug)]
pub(super) struct Reading {
    at: Instant,
    daemon: Option<Status>,
    pub(super) daemon_error: Option<ClientError>,
    counters_error: Option<String>,
    calls: Vec<Call>,
    pinholes: Vec<Pinhole>,
    counters: Vec<Counter>,
}

impl Reading {
    /// Looks.
    pub(super) fn take(runtime_dir: &Path) -> Self {
        let asked = client::get::<Status>(runtime_dir, "/v1/status").and_then(|status| {
            let calls = client::list(runtime_dir, "/v1/calls")?;
            let pinholes = client::list(runtime_dir, "/v1/pinholes")?;
            Ok((status, calls, pinholes))
        });
        let (daemon, calls, pinholes, daemon_error) = match asked {
            Ok((status, calls, pinholes)) => (Some(status), calls, pinholes, None),
            Err(error) => (None, Vec::new(), Vec::new(), Some(error)),
        };
        let (counters, counters_error) = match stats::read(&Pins::of_runtime_dir(runtime_dir)) {
            Ok((counters, _)) => (counters, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Self {
            at: Instant::now(),
            daemon,
            daemon_error,
            counters_error,
            calls,
            pinholes,
            counters,
        }
    }

    /// What happened since an earlier one. Whatever was not there then has no rate yet.
    pub(super) fn since(&self, earlier: &Self) -> Top {
        let seconds = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        let rate = |now: u64, then: Option<u64>| match then {
            Some(then) if seconds > 0.0 => now.saturating_sub(then) as f64 / seconds,
            _ => 0.0,
        };
        let before: BTreeMap<SocketAddr, &Pinhole> = earlier
            .pinholes
            .iter()
            .map(|pinhole| (pinhole.local, pinhole))
            .collect();
        let pinholes: Vec<TopPinhole> = self
            .pinholes
            .iter()
            .map(|pinhole| {
                // A place that another call has now began anew.
                let then = before
                    .get(&pinhole.local)
                    .filter(|then| then.call == pinhole.call);
                TopPinhole {
                    ingress_per_second: rate(
                        pinhole.ingress_packets,
                        then.map(|then| then.ingress_packets),
                    ),
                    egress_per_second: rate(
                        pinhole.egress_packets,
                        then.map(|then| then.egress_packets),
                    ),
                    dropped_per_second: rate(
                        pinhole.dropped_packets,
                        then.map(|then| then.dropped_packets),
                    ),
                    pinhole: pinhole.clone(),
                }
            })
            .collect();
        let mut of_call: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for pinhole in &pinholes {
            let sum = of_call.entry(pinhole.pinhole.call).or_default();
            sum.0 += pinhole.ingress_per_second;
            sum.1 += pinhole.egress_per_second;
        }
        let calls = self
            .calls
            .iter()
            .map(|call| {
                let (ingress, egress) = of_call.get(&call.number).copied().unwrap_or_default();
                TopCall {
                    call: call.clone(),
                    ingress_per_second: ingress,
                    egress_per_second: egress,
                }
            })
            .collect();
        let reasons = self
            .counters
            .iter()
            .map(|counter| {
                let mut known = earlier.counters.iter();
                let then = known.find(|then| then.name == counter.name);
                TopReason {
                    packets_per_second: rate(counter.packets, then.map(|then| then.packets)),
                    bytes_per_second: rate(counter.bytes, then.map(|then| then.bytes)),
                    counter: counter.clone(),
                }
            })
            .collect();
        Top {
            interval_seconds: seconds,
            daemon: self.daemon.clone(),
            errors: self
                .daemon_error
                .iter()
                .map(ToString::to_string)
                .chain(self.counters_error.clone())
                .collect(),
            calls,
            pinholes,
            reasons,
        }
    }
}
