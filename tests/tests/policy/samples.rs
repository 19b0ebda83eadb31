//! Samples of what is dropped: as many as are granted, with the packet's beginning, and nothing of what passes.

use aya::maps::{Array, MapData, RingBuf};
use sipfilter_common::{
    abi::{SAMPLE_RING_BYTES, SampleGrants, map},
    reason::{Action, Counter, Reason},
    record::{MAX_SAMPLE, SAMPLE_HEADER, SampleHeader},
};
use sipfilter_tests::policy::{
    cases::{Case, Way},
    frame::Frame,
    scenes::{Scene, scenes},
};

use super::Kernel;

struct Sampled {
    kernel: Kernel,
    grants: Array<MapData, SampleGrants>,
    ring: RingBuf<MapData>,
}

impl Sampled {
    fn load(scene: &Scene) -> Self {
        let mut kernel = Kernel::load_with(&scene.settings);
        let grants = kernel.datapath.take(map::SAMPLE_GRANTS).expect("the map");
        let ring = kernel.datapath.take(map::SAMPLES).expect("the map");
        Self {
            kernel,
            grants,
            ring,
        }
    }

    fn grant(&mut self, reason: Reason, samples: u32) {
        let mut grants = self.grants.get(&0, 0).expect("the grants");
        grants[Counter::Reason(reason).index() as usize] = samples;
        self.grants.set(0, grants, 0).expect("a grant");
    }

    fn granted(&self, reason: Reason) -> u32 {
        let grants = self.grants.get(&0, 0).expect("the grants");
        grants[Counter::Reason(reason).index() as usize]
    }

    fn next(&mut self) -> Option<(SampleHeader, Vec<u8>)> {
        let record = self.ring.next()?;
        let (header, bytes) = SampleHeader::split(&record).expect("a whole record");
        Some((header, bytes.to_vec()))
    }
}

#[test]
fn every_packet_that_the_rules_call_to_drop_is_sampled_where_that_is_granted_and_no_other() {
    for scene in scenes() {
        let mut sampled = Sampled::load(&scene);
        for reason in Reason::ALL {
            sampled.grant(*reason, 1_000_000);
        }
        for case in &scene.cases {
            sampled.kernel.run(case);
            let what = format!("{}: {}", scene.name, case.name);
            let found = sampled.next();
            if case.reason.action() == Action::Pass {
                assert_eq!(found, None, "{what}");
                continue;
            }
            let (header, bytes) = found.unwrap_or_else(|| panic!("{what}: no sample"));
            let length = case.frame.len();
            let captured = length.min(MAX_SAMPLE);
            assert_eq!(bytes, case.frame[..captured], "{what}");
            let expect = SampleHeader {
                time: header.time,
                captured: captured as u32,
                original: length as u32,
                interface: header.interface,
                reason: case.reason as u16,
                dropped: u8::from(scene.action(case.reason) == Action::Drop),
                direction: u8::from(case.way == Way::Out),
            };
            assert_eq!(header, expect, "{what}");
            assert!(header.time > 0, "{what}");
            assert_eq!(sampled.next(), None, "{what}: one each");
        }
    }
}

#[test]
fn a_grant_runs_out_packet_by_packet_and_only_for_its_reason() {
    let mut sampled = Sampled::load(&scenes()[0]);
    let case = |reason| {
        super::cases()
            .into_iter()
            .find(|case| case.reason == reason)
            .expect("a case")
    };
    let (stranger, miss) = (case(Reason::UnknownSource), case(Reason::NoPinhole));
    let run = |sampled: &mut Sampled, case: &Case, times| {
        for _ in 0..times {
            sampled.kernel.run(case);
        }
        std::iter::from_fn(|| sampled.next()).count()
    };
    assert_eq!(
        run(&mut sampled, &stranger, 5),
        0,
        "nothing without a grant"
    );
    sampled.grant(Reason::UnknownSource, 3);
    assert_eq!(run(&mut sampled, &miss, 5), 0, "another reason's grant");
    assert_eq!(run(&mut sampled, &stranger, 5), 3);
    assert_eq!(sampled.granted(Reason::UnknownSource), 0);
    assert_eq!(run(&mut sampled, &stranger, 5), 0);
}

#[test]
fn a_long_packet_is_sampled_up_to_its_limit_and_a_full_ring_costs_samples_only() {
    let mut sampled = Sampled::load(&scenes()[0]);
    let long = Case {
        frame: Frame::udp("192.0.2.66:5060", "203.0.113.10:5060", &[b'x'; 1_400]).build(),
        ..super::cases()
            .into_iter()
            .find(|case| case.reason == Reason::UnknownSource)
            .expect("a case")
    };
    sampled.grant(Reason::UnknownSource, u32::MAX);
    sampled.kernel.run(&long);
    let (header, bytes) = sampled.next().expect("a sample");
    assert_eq!(
        (header.captured as usize, bytes.len()),
        (MAX_SAMPLE, MAX_SAMPLE)
    );
    assert_eq!(header.original as usize, long.frame.len());
    let room = SAMPLE_RING_BYTES as usize / (SAMPLE_HEADER + MAX_SAMPLE + 8);
    for _ in 0..room + 10 {
        assert_eq!(sampled.kernel.run(&long), super::XDP_DROP);
    }
    let read = std::iter::from_fn(|| sampled.next()).count();
    assert!((room - 1..=room).contains(&read), "{read} of {room}");
    let counted = sampled
        .kernel
        .counters
        .read(Counter::Reason(Reason::UnknownSource))
        .expect("a counter");
    assert_eq!(counted.packets as usize, room + 11, "all are counted");
}
