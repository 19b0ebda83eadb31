//! On any toolchain: the committed corpus and every input that once broke something, and a bounded number of mutations of them.
//!
//! This is not fuzzing (nothing steers the mutations); it keeps the targets building and their findings fixed where there is no nightly.

use std::{fs, path::PathBuf};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sipfilter_fuzz::{TARGETS, Target, files};

/// Mutations per target.
const MUTATIONS: u32 = 2_000;

fn inputs(name: &str) -> Vec<Vec<u8>> {
    ["corpus", "regressions"]
        .iter()
        .flat_map(|directory| {
            let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join(directory)
                .join(name);
            match directory.is_dir() {
                true => files(&directory).unwrap(),
                false => Vec::new(),
            }
        })
        .map(|path| fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect()
}

#[test]
fn the_corpus_and_every_regression_pass() {
    for (name, run) in TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() >= 10, "{name} has a corpus");
        for input in inputs {
            run(&input);
        }
    }
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Truncate(prop::sample::Index),
    /// Another input's end behind this one's beginning.
    Splice(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => (index(), 1_u8..16).prop_map(|(at, length)| Mutation::Cut(at, length)),
        2 => (index(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => index().prop_map(Mutation::Truncate),
        2 => (index(), index()).prop_map(|(at, other)| Mutation::Splice(at, other)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation, inputs: &[Vec<u8>]) {
    let place = |index: &prop::sample::Index| index.index(bytes.len() + 1);
    match mutation {
        Mutation::Set(at, byte) => {
            let at = place(at);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Mutation::Cut(at, length) => {
            let at = place(at);
            let end = bytes.len().min(at + usize::from(*length));
            bytes.drain(at..end);
        }
        Mutation::Insert(at, new) => {
            let at = place(at);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Truncate(at) => {
            let at = place(at);
            bytes.truncate(at);
        }
        Mutation::Splice(at, other) => {
            let at = place(at);
            let other = other.get(inputs);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[other.len().min(at)..]);
        }
    }
}

fn mutations_pass((name, run): Target) {
    let inputs = inputs(name);
    let config = Config {
        cases: MUTATIONS,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (
        any::<prop::sample::Index>(),
        prop::collection::vec(mutation(), 0..12),
    );
    TestRunner::new(config)
        .run(&strategy, |(which, mutations)| {
            let mut bytes = which.get(&inputs).clone();
            for mutation in &mutations {
                mutate(&mut bytes, mutation, &inputs);
            }
            run(&bytes);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

macro_rules! mutations {
    ($($test:ident $index:literal;)*) => {
        $(#[test]
        fn $test() {
            mutations_pass(TARGETS[$index]);
        })*
    };
}

mutations! {
    mutated_messages_pass 0;
    mutated_sdp_passes 1;
    mutated_streams_pass 2;
    mutated_engine_steps_pass 3;
    mutated_frames_pass 4;
    mutated_fragments_pass 5;
    mutated_segments_pass 6;
}
