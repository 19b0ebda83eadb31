//! The seeded simulation: provider and PBX talk through the edge over a bad network, and after every packet the design's promises hold.
//!
//! - Promise 1: no media packet passes that no live negotiated call asked for.
//! - Promise 2: every media packet that both sides consider negotiated when it crosses the edge passes.
//! - Promise 3: SDP of one side alone opens nothing.
//!
//! Packets that overtake the signalling that negotiates them are nobody's agreement yet. Calls of which captures were lost, and calls
//! older than a restart of the daemon, are exempt from the second promise.
//!
//! `SIPFILTER_SEED=n` replays one seed with its trace; `SIPFILTER_SEEDS=n` plays so many instead of the usual number.

mod agents;
mod attackers;
mod call;
mod edge;
mod frames;
mod messages;
mod places;
mod random;
mod shadow;
mod tcp;
mod wire;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use world::{Tally, World};

/// Seeds in an ordinary run.
const SEEDS: u64 = 2_000;
/// The last lines of a trace tell the story; SIPFILTER_SEED tells it all.
const LINES: usize = 60;

/// One seed, and what broke.
fn play(seed: u64, trace: bool) -> (World, Option<String>) {
    let mut world = World::new(seed, trace);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let broken = match outcome {
        Ok(()) => world.broken.clone(),
        Err(panic) => Some(format!(
            "a panic: {}",
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default()
        )),
    };
    (world, broken)
}

fn report(seed: u64, all: bool) -> Option<String> {
    let (world, broken) = play(seed, true);
    let trace = world.trace.unwrap_or_default();
    let from = if all {
        0
    } else {
        trace.len().saturating_sub(LINES)
    };
    let story = trace[from..].join("\n");
    let why = broken?;
    Some(format!(
        "seed {seed}: {why}\n{story}\nreplay with SIPFILTER_SEED={seed} cargo test -p sipfilter-daemon --test simulation"
    ))
}

#[test]
fn the_promises_hold_over_a_bad_network() {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    if let Some(seed) = number("SIPFILTER_SEED") {
        let story = report(seed, true);
        assert!(story.is_none(), "{}", story.unwrap_or_default());
        return;
    }
    let seeds = number("SIPFILTER_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<(Tally, Vec<(u64, String)>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut tally = Tally::default();
                    let mut broken = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds || broken.len() > 20 {
                            return (tally, broken);
                        }
                        let (world, why) = play(seed, false);
                        tally.add(&world.tally);
                        broken.extend(why.map(|why| (seed, why)));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    for (part, seeds) in results {
        tally.add(&part);
        broken.extend(seeds);
    }
    broken.sort_unstable();
    println!("{seeds} seeds: {tally:?}");
    if let Some((first, _)) = broken.first() {
        let list: Vec<String> = broken
            .iter()
            .map(|(seed, why)| format!("seed {seed}: {why}"))
            .collect();
        panic!(
            "{}\n{}",
            report(*first, false).unwrap_or_default(),
            list.join("\n")
        );
    }
    // A simulation in which nothing happens proves nothing.
    assert!(tally.calls > 2 * seeds && tally.confirmed > seeds);
    assert!(tally.early_changes > seeds / 8 && tally.reliable > seeds / 2 && tally.forked > seeds);
    assert!(tally.streamed > 5 * seeds && tally.fax > 2 * seeds);
    assert!(tally.wanted > 100 * seeds && tally.refused > seeds && tally.hostile > seeds);
}

#[test]
fn a_seed_replays_exactly() {
    let trace = |seed| play(seed, true).0.trace;
    for seed in 0..3 {
        assert_eq!(trace(seed), trace(seed));
    }
}
