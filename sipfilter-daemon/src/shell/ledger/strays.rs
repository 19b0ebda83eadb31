//! Who sent media to which port and was dropped: samples, for what `calls show` says of a call's silence.
//!
//! A port serves one call after another, so what came before it closed and what comes afterwards are kept apart; which call they are of,
//! the times tell. Bounded by [`MAX_PORTS`] for each kind and by [`MAX_SOURCES`]; what was hit long ago is forgotten first, and a scan of
//! closed ports pushes out nothing of open ones.

use std::{collections::HashMap, net::SocketAddr, ops::RangeInclusive};

use sipfilter_common::reason::Reason;

use super::Port;
use crate::{engine::Instant, shell::sample::Ends};

/// Ports that are remembered, open and closed ones each.
const MAX_PORTS: usize = 2_048;
/// Sources of one port, by reason and by call.
const MAX_SOURCES: usize = 8;

/// All ports.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// To ports with a pinhole.
    open: HashMap<SocketAddr, Vec<Stray>>,
    /// To ports without one.
    closed: HashMap<SocketAddr, Vec<Stray>>,
}

/// One source's packets.
#[derive(Debug, Clone, PartialEq)]
pub struct Stray {
    /// Who; of its ports the last.
    pub source: SocketAddr,
    /// Why they were dropped.
    pub reason: Reason,
    /// About how many.
    pub packets: f64,
    /// When the first one came.
    pub first: Instant,
    last: Instant,
    /// The port was closed since; what comes now is another matter.
    is_over: bool,
}

impl Strays {
    /// Takes a packet that stands for so many.
    pub fn handle(&mut self, reason: Reason, ends: &Ends, at: Instant, packets: f64) {
        let table = match Port::of(reason) {
            Some(Port::Open) => &mut self.open,
            Some(Port::Closed) => &mut self.closed,
            None => return,
        };
        if table.len() >= MAX_PORTS && !table.contains_key(&ends.destination) {
            forget_oldest(table);
        }
        let strays = table.entry(ends.destination).or_default();
        let known = strays.iter_mut().find(|stray| {
            let is_same = stray.source.ip() == ends.source.ip() && stray.reason == reason;
            is_same && (!stray.is_over || at <= stray.last)
        });
        if let Some(stray) = known {
            stray.source = ends.source;
            stray.packets += packets;
            stray.last = stray.last.max(at);
            return;
        }
        if strays.len() >= MAX_SOURCES {
            // Those of an earlier call have had their time.
            let Some(over) = strays.iter().position(|stray| stray.is_over) else {
                return;
            };
            strays.remove(over);
        }
        strays.push(Stray {
            source: ends.source,
            reason,
            packets,
            first: at,
            last: at,
            is_over: false,
        });
    }

    /// A pinhole closed.
    pub fn handle_close(&mut self, local: SocketAddr) {
        for table in [&mut self.open, &mut self.closed] {
            for stray in table.get_mut(&local).into_iter().flatten() {
                stray.is_over = true;
            }
        }
    }

    /// Who sent to a port within a time, in the order of their first packets.
    pub fn of(&self, local: SocketAddr, time: &RangeInclusive<Instant>) -> Vec<Stray> {
        let mut found: Vec<_> = [&self.open, &self.closed]
            .into_iter()
            .filter_map(|table| table.get(&local))
            .flatten()
            .filter(|stray| stray.last >= *time.start() && stray.first <= *time.end())
            .cloned()
            .collect();
        found.sort_by_key(|stray| stray.first);
        found
    }
}

/// Forgets at least a quarter of a full table, so that a newcomer seldom waits for this.
fn forget_oldest(table: &mut HashMap<SocketAddr, Vec<Stray>>) {
    let last = |strays: &Vec<Stray>| strays.iter().map(|stray| stray.last).max();
    let mut all: Vec<_> = table.values().map(last).collect();
    let quarter = all.len() / 4;
    let (_, limit, _) = all.select_nth_unstable(quarter);
    let limit = *limit;
    table.retain(|_, strays| last(strays) > limit);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PORT: &str = "203.0.113.10:10000";

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    fn hit(strays: &mut Strays, reason: Reason, source: &str, seconds: u64) {
        let ends = Ends {
            source: source.parse().expect("a source"),
            destination: PORT.parse().expect("a port"),
            protocol: 17,
        };
        strays.handle(reason, &ends, at(seconds), 2.0);
    }

    fn of(strays: &Strays, from: u64, to: u64) -> Vec<(String, Reason, u64, u64)> {
        let local = PORT.parse().expect("a port");
        let found = strays.of(local, &(at(from)..=at(to)));
        let row = |stray: Stray| {
            let packets = stray.packets as u64;
            (
                stray.source.to_string(),
                stray.reason,
                packets,
                stray.first.0.as_secs(),
            )
        };
        found.into_iter().map(row).collect()
    }

    #[test]
    fn a_ports_sources_are_those_of_the_call_that_has_it() {
        let mut strays = Strays::default();
        let source = "198.51.100.77:40000";
        let row = |reason, packets, first| (source.to_owned(), reason, packets, first);
        hit(&mut strays, Reason::NoPinhole, source, 10);
        hit(&mut strays, Reason::WrongSource, "198.51.100.77:4", 12);
        hit(&mut strays, Reason::WrongSource, source, 13);
        hit(&mut strays, Reason::UnknownSource, source, 13);
        let first = [
            row(Reason::NoPinhole, 2, 10),
            row(Reason::WrongSource, 4, 12),
        ];
        assert_eq!(of(&strays, 9, 20), first);
        strays.handle_close(PORT.parse().expect("a port"));
        hit(&mut strays, Reason::WrongSource, source, 30);
        assert_eq!(of(&strays, 9, 20), first);
        assert_eq!(of(&strays, 25, 40), [row(Reason::WrongSource, 2, 30)]);
        assert_eq!(of(&strays, 14, 20), []);
    }

    #[test]
    fn everything_is_bounded_and_what_is_new_is_there() {
        let mut strays = Strays::default();
        for source in 0..20 {
            hit(
                &mut strays,
                Reason::WrongSource,
                &format!("192.0.2.{source}:1"),
                1,
            );
        }
        assert_eq!(of(&strays, 0, 9).len(), MAX_SOURCES);
        for number in 0..3 * MAX_PORTS {
            let port = u16::try_from(number).expect("a port") + 1;
            let ends = Ends {
                source: "192.0.2.66:1".parse().expect("a source"),
                destination: SocketAddr::from(([203, 0, 113, 10], port)),
                protocol: 17,
            };
            strays.handle(Reason::NoPinhole, &ends, at(number as u64), 1.0);
            assert!(
                strays.closed.len() <= MAX_PORTS && strays.closed.contains_key(&ends.destination)
            );
        }
        // A scan has pushed out nothing of an open port.
        assert_eq!(
            of(&strays, 0, 9).len(),
            MAX_SOURCES + usize::from(10_000 <= 3 * MAX_PORTS)
        );
    }
}
