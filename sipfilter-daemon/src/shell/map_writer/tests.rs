//! What the writer does when the kernel refuses: no pinhole is forgotten, and no slot is handed out twice.

use std::{
    cell::Cell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use aya::maps::MapError;
use sipfilter_common::slot::SlotCounts;

use super::{MapWriter, Maps};
use crate::{
    engine::{
        CallNumber, Instant,
        pinhole::{Extras, Label, Pinhole, PinholeAction, PinholeResult, Source, Stream, Terms},
        settings::ProviderId,
    },
    shell::policy::{KernelPinhole, Place},
};

/// Maps that refuse on demand.
#[derive(Default)]
struct Refusing {
    slots: BTreeMap<SocketAddr, u32>,
    refuses: Rc<Cell<bool>>,
}

impl Refusing {
    fn check(&self) -> Result<(), MapError> {
        if self.refuses.get() {
            return Err(MapError::OutOfBounds {
                index: 0,
                max_entries: 0,
            });
        }
        Ok(())
    }
}

impl Maps for Refusing {
    fn pinholes(&self) -> Result<Vec<(Pinhole, Place)>, MapError> {
        Ok(Vec::new())
    }

    fn insert(&mut self, pinhole: KernelPinhole) -> Result<(), MapError> {
        self.check()?;
        let KernelPinhole::V4(key, value) = pinhole else {
            panic!("no story has IPv6");
        };
        let local = SocketAddr::new(IpAddr::from(key.address()), key.port());
        self.slots.insert(local, value.slot);
        Ok(())
    }

    fn remove(&mut self, local: SocketAddr) -> Result<(), MapError> {
        self.check()?;
        match self.slots.remove(&local) {
            Some(_) => Ok(()),
            None => Err(MapError::KeyNotFound),
        }
    }

    fn counts(&self, _: u32) -> Result<SlotCounts, MapError> {
        // The last packet is always a moment ago: traffic never stops.
        Ok(SlotCounts {
            ingress_last: u64::MAX,
            ..SlotCounts::default()
        })
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 10], port))
}

fn open(port: u16) -> PinholeAction {
    PinholeAction::Open(Pinhole {
        local: local(port),
        sources: vec![Source::host([198, 51, 100, 77].into(), 20_000..=40_000)],
        stream: Stream::Rtp,
        extras: Extras::default(),
        terms: Terms::ANY,
        latch: None,
        idle: Duration::from_secs(300),
        provider: ProviderId(0),
        call: CallNumber(1),
        label: Label::NONE,
    })
}

fn close(port: u16) -> PinholeAction {
    PinholeAction::Close {
        local: local(port),
        call: CallNumber(1),
    }
}

fn at(milliseconds: u64) -> Instant {
    Instant(Duration::from_millis(milliseconds))
}

/// A writer with two slots, and the switch that makes the kernel refuse.
fn writer() -> (MapWriter<Refusing>, Rc<Cell<bool>>) {
    let maps = Refusing::default();
    let refuses = Rc::clone(&maps.refuses);
    (
        MapWriter::with(maps, 2, &[]).expect("no pinholes").0,
        refuses,
    )
}

#[test]
fn a_pinhole_that_the_kernel_would_not_remove_is_asked_for_again_until_it_is_gone() {
    let (mut writer, refuses) = writer();
    assert_eq!(writer.apply(&open(10_000), at(0)), PinholeResult::Done);
    refuses.set(true);
    assert_eq!(writer.apply(&close(10_000), at(100)), PinholeResult::Failed);
    assert!(writer.maps.slots.contains_key(&local(10_000)));
    // Once a second, whether or not packets pass; it is no call's any more, so the engine hears nothing.
    for second in 1..4 {
        assert_eq!(writer.next_deadline(), Some(at(1_000 * second + 100)));
        assert_eq!(writer.take_idle(at(1_000 * second + 100)), []);
    }
    refuses.set(false);
    assert_eq!(writer.take_idle(at(4_099)), []);
    assert!(writer.maps.slots.contains_key(&local(10_000)));
    assert_eq!(writer.take_idle(at(4_100)), []);
    assert!(writer.maps.slots.is_empty());
    assert_eq!(writer.next_deadline(), None);
}

#[test]
fn a_pinhole_that_is_to_be_closed_keeps_its_slot_and_may_be_opened_again() {
    let (mut writer, refuses) = writer();
    writer.apply(&open(10_000), at(0));
    refuses.set(true);
    writer.apply(&close(10_000), at(100));
    refuses.set(false);
    // Its slot is still counted in by the kernel.
    assert_eq!(writer.apply(&open(10_002), at(200)), PinholeResult::Done);
    assert_eq!(writer.apply(&open(10_004), at(200)), PinholeResult::Full);
    assert_eq!(writer.apply(&open(10_000), at(300)), PinholeResult::Done);
    assert_ne!(
        writer.maps.slots[&local(10_000)],
        writer.maps.slots[&local(10_002)]
    );
    // A call has it now: nobody closes it behind that call's back.
    assert_eq!(writer.take_idle(at(5_000)), []);
    assert!(writer.maps.slots.contains_key(&local(10_000)));
}

#[test]
fn a_refused_open_leaves_its_slot_to_the_next() {
    let (mut writer, refuses) = writer();
    refuses.set(true);
    for _ in 0..3 {
        assert_eq!(writer.apply(&open(10_000), at(0)), PinholeResult::Failed);
    }
    refuses.set(false);
    assert_eq!(writer.apply(&open(10_000), at(0)), PinholeResult::Done);
    assert_eq!(writer.apply(&open(10_002), at(0)), PinholeResult::Done);
    // What the kernel refuses to replace is there as before, and closes as usual.
    refuses.set(true);
    assert_eq!(writer.apply(&open(10_002), at(0)), PinholeResult::Failed);
    refuses.set(false);
    assert_eq!(writer.apply(&close(10_002), at(0)), PinholeResult::Done);
    assert_eq!(writer.apply(&open(10_004), at(0)), PinholeResult::Done);
}
