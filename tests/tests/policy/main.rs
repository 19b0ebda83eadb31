//! The policy's cases on the host and in the kernel: the same packets, the same verdicts, the same copies.
//!
//! The kernel's half loads the real programs and runs them by `BPF_PROG_TEST_RUN`; nothing is attached. It needs root.

mod samples;

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use aya::{
    maps::{MapData, RingBuf},
    programs::{TestRun, TestRunOptions},
};
use sipfilter_common::{
    abi::{RESTING_PINHOLES, RING_BYTES, map},
    addr::Ipv4,
    classify::{Tables as _, classify_egress, classify_ingress, classify_plain},
    host::{HostSlot, HostTables},
    key::PortPlace,
    reader::Reader,
    reason::{Action, Counter, Note, Reason},
    record::{HEADER, RecordHeader},
    settings::{Protects as _, Settings as Constants},
    slot::SlotCounts,
    value::{PayloadTypes, Provisional},
};
use sipfilter_daemon::{
    engine::{
        pinhole::{PinholeAction, PinholeResult},
        settings::Settings,
    },
    shell::{
        clock,
        counters::Counters,
        datapath::Datapath,
        map_writer::MapWriter,
        policy::{KernelPinhole, KernelPolicy, Place},
    },
};
use sipfilter_tests::policy::{
    cases::{Case, OUTER, Way, cases, pinholes, settings},
    frame::Frame,
    scenes::{Scene, scenes},
    verifier,
};

const CAPACITY: u32 = 64;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_SHOT: u32 = 2;
/// `TC_ACT_UNSPEC`: whatever else is attached decides.
const TC_GO_ON: u32 = u32::MAX;

fn policy(settings: &Settings) -> KernelPolicy {
    let mut policy = KernelPolicy::new(settings);
    policy.settings.outer[..OUTER.len()].copy_from_slice(&OUTER);
    policy
}

fn host_tables(settings: &Settings) -> HostTables {
    let mut tables = policy(settings).host_tables(CAPACITY as usize);
    for (slot, pinhole) in pinholes().iter().enumerate() {
        let place = Place {
            slot: slot as u32,
            generation: 1,
            opened: 1,
            idle: clock::to_kernel(pinhole.idle),
            provider: 0,
        };
        match KernelPinhole::new(pinhole, place) {
            KernelPinhole::V4(key, value) => drop(tables.pinholes4.insert(key, value)),
            KernelPinhole::V6(key, value) => drop(tables.pinholes6.insert(key, value)),
        }
    }
    tables.now.set(clock::to_kernel(Duration::from_secs(1)));
    tables
}

#[test]
fn the_host_gives_every_case_its_verdict() {
    for scene in scenes() {
        let tables = host_tables(&scene.settings);
        for case in &scene.cases {
            let verdict = match case.way {
                Way::In => classify_ingress(case, &tables),
                Way::Out => classify_egress(case, &tables),
            };
            assert_eq!(
                (verdict.reason, verdict.action, verdict.copy_from()),
                (
                    case.reason,
                    scene.action(case.reason),
                    scene.copy_from(case)
                ),
                "{}: {}",
                scene.name,
                case.name
            );
        }
    }
}

/// A packet at whose payload the daemon takes the provisional place back that the packet has just found open.
struct Overtaken<'a> {
    frame: &'a [u8],
    tables: &'a HostTables,
    place: PortPlace,
}

impl Reader for Overtaken<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const PAYLOAD: usize = 14 + 20 + 8;
        if offset == PAYLOAD {
            self.tables
                .open_provisional(self.place, Provisional::CLOSED);
        }
        self.frame.bytes(offset)
    }

    fn length(&self) -> usize {
        self.frame.len()
    }
}

#[test]
fn media_passes_that_finds_a_provisional_place_while_the_daemon_takes_it_back() {
    let scenes = scenes();
    let scene = scenes
        .iter()
        .find(|scene| scene.name == "provisional places")
        .expect("the scene");
    let tables = host_tables(&scene.settings);
    let early = scene
        .cases
        .iter()
        .find(|case| {
            if case.way == Way::Out {
                classify_egress(*case, &tables);
            }
            case.reason == Reason::Provisional && case.frame[12..15] == [8, 0, 0x45]
        })
        .expect("a case");
    let address: [u8; 4] = *early.frame[30..].first_chunk().expect("an address");
    let port = u16::from_be_bytes(*early.frame[36..].first_chunk().expect("a port"));
    let settings = tables.settings();
    let address = Ipv4::from_bytes(address);
    let at = settings.protected(address).expect("a protected address");
    let place = PortPlace::of::<Ipv4>(settings, at, port);
    assert_ne!(tables.provisional(place), Provisional::CLOSED);
    let overtaken = Overtaken {
        frame: &early.frame,
        tables: &tables,
        place,
    };
    assert_eq!(
        classify_ingress(&overtaken, &tables).reason,
        Reason::Provisional
    );
    assert_eq!(tables.provisional(place), Provisional::CLOSED);
    assert_eq!(
        classify_ingress(early, &tables).reason,
        Reason::NoPinhole,
        "the next one is too late"
    );
}

#[test]
fn the_short_way_leads_where_the_long_one_does() {
    let mut decided = BTreeSet::new();
    for scene in scenes() {
        let (short, long) = (host_tables(&scene.settings), host_tables(&scene.settings));
        for case in &scene.cases {
            if case.way == Way::Out {
                classify_egress(case, &short);
                classify_egress(case, &long);
                continue;
            }
            for length in 0..=case.frame.len() {
                let frame = &case.frame[..length];
                let quick = classify_plain(&frame, &short);
                decided.extend(quick.map(|verdict| verdict.reason));
                let verdict = quick.unwrap_or_else(|| classify_ingress(&frame, &short));
                let name = || format!("{}: {} cut to {length} bytes", scene.name, case.name);
                assert_eq!(verdict, classify_ingress(&frame, &long), "{}", name());
                let counts = |tables: &HostTables| -> Vec<SlotCounts> {
                    tables.slots.iter().map(HostSlot::counts).collect()
                };
                assert_eq!(counts(&short), counts(&long), "{}", name());
            }
        }
    }
    assert_eq!(
        decided,
        BTreeSet::from([
            Reason::UnknownSource,
            Reason::Media,
            Reason::NoPinhole,
            Reason::PinholeExpired,
            Reason::WrongSource,
            Reason::NotMedia,
            Reason::PayloadType,
            Reason::RateLimited,
        ])
    );
}

#[test]
fn the_cases_reach_every_reason() {
    let reached: BTreeSet<_> = scenes()
        .iter()
        .flat_map(|scene| scene.cases.iter().map(|case| case.reason))
        .collect();
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !reached.contains(reason))
        .map(|reason| reason.name())
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn truncated_anywhere_no_packet_passes_where_the_whole_one_is_dropped() {
    let tables = host_tables(&settings());
    for case in cases()
        .iter()
        .filter(|case| case.way == Way::In && case.reason.action() == Action::Drop)
    {
        // Shorter than an Ethernet header with its type there is no IP packet to judge; drivers deliver no such frame.
        for length in 22..case.frame.len() {
            let frame = &case.frame[..length];
            let verdict = classify_ingress(&frame, &tables);
            assert_eq!(
                verdict.action,
                Action::Drop,
                "{} cut to {length} bytes: {}",
                case.name,
                verdict.reason.name()
            );
        }
    }
}

#[test]
fn an_answer_comes_within_half_a_minute_or_not_at_all() {
    let scene = scenes()
        .into_iter()
        .find(|scene| scene.name == "replies")
        .expect("the scene");
    let tables = host_tables(&scene.settings);
    let case = |name| {
        scene
            .cases
            .iter()
            .find(|case| case.name == name)
            .expect("the case")
    };
    let (sent, answer) = (case("the pbx sends"), case("the provider answers"));
    let start = tables.now.get();
    let at = |milliseconds: u64| start + milliseconds * 1_000_000;
    let judge_at = |milliseconds| {
        tables.now.set(at(milliseconds));
        classify_ingress(answer, &tables).reason
    };
    classify_egress(sent, &tables);
    assert_eq!(judge_at(30_000), Reason::Reply);
    assert_eq!(
        judge_at(30_001),
        Reason::NoPinhole,
        "an answer keeps nothing alive"
    );
    // What is sent within a second is not noted again, what is sent later is.
    tables.now.set(at(40_000));
    classify_egress(sent, &tables);
    tables.now.set(at(40_999));
    classify_egress(sent, &tables);
    assert_eq!(judge_at(70_001), Reason::NoPinhole);
    tables.now.set(at(80_000));
    classify_egress(sent, &tables);
    tables.now.set(at(81_000));
    classify_egress(sent, &tables);
    assert_eq!(judge_at(111_000), Reason::Reply);
}

struct Kernel {
    datapath: Datapath,
    counters: Counters,
    arriving: RingBuf<MapData>,
    leaving: RingBuf<MapData>,
    writer: MapWriter,
}

impl Kernel {
    fn load() -> Self {
        Self::load_with(&settings())
    }

    fn load_with(settings: &Settings) -> Self {
        assert!(
            is_root(),
            "the kernel's half of the policy tests needs root: run `cargo xtask test` as root"
        );
        let mut datapath =
            Datapath::load(&policy(settings), CAPACITY, None).expect("the programs load");
        let mut writer = MapWriter::new(&mut datapath, CAPACITY).expect("the maps are there");
        for pinhole in pinholes() {
            assert_eq!(
                writer.apply(&PinholeAction::Open(pinhole), clock::now()),
                PinholeResult::Done
            );
        }
        // The short-lived pinhole dies; the kernel's coarse clock moves in ticks of up to ten milliseconds.
        sleep(Duration::from_millis(50));
        let counters = datapath
            .take(map::COUNTERS)
            .expect("the counters are there");
        let arriving = datapath
            .take(map::SIGNALLING_IN)
            .expect("the ring buffer is there");
        let leaving = datapath
            .take(map::SIGNALLING_OUT)
            .expect("the ring buffer is there");
        Self {
            datapath,
            counters,
            arriving,
            leaving,
            writer,
        }
    }

    fn run(&mut self, case: &Case) -> u32 {
        // A `__sk_buff` up to its tenth number, `ingress_ifindex`; the kernel takes the rest for zero.
        let mut context = [0; 40];
        context[36..].copy_from_slice(&case.arrived_on.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&case.frame),
            ctx_in: (case.arrived_on != 0).then_some(&context),
            ..TestRunOptions::default()
        };
        let result = match case.way {
            Way::In => self.datapath.ingress().expect("XDP").test_run(options),
            Way::Out => self.datapath.egress().expect("TC").test_run(options),
        };
        result.expect("a test run").return_value
    }

    fn counts(&self) -> Vec<(Counter, u64)> {
        Counter::all()
            .map(|counter| {
                (
                    counter,
                    self.counters.read(counter).expect("a counter").packets,
                )
            })
            .collect()
    }

    /// Runs one case and checks verdict, counters and copy.
    fn check(&mut self, scene: &Scene, case: &Case) {
        let before = self.counts();
        let returned = self.run(case);
        let expected = match (case.way, scene.action(case.reason)) {
            (Way::In, Action::Pass) => XDP_PASS,
            (Way::In, Action::Drop) => XDP_DROP,
            (Way::Out, Action::Pass) => TC_GO_ON,
            (Way::Out, Action::Drop) => TC_SHOT,
        };
        let changed: Vec<_> = self
            .counts()
            .into_iter()
            .zip(before)
            .filter(|((_, after), (_, before))| after != before)
            .map(|((counter, after), (_, before))| (counter.name(), after - before))
            .collect();
        let mut wanted = vec![(case.reason.name(), 1)];
        if scene.copy_from(case).is_some() {
            wanted.push((Note::Copied.name(), 1));
        }
        assert_eq!(changed, wanted, "{}: {}: counters", scene.name, case.name);
        assert_eq!(
            returned, expected,
            "{}: {}: return value",
            scene.name, case.name
        );
        let (ring, other) = match case.way {
            Way::In => (&mut self.arriving, &mut self.leaving),
            Way::Out => (&mut self.leaving, &mut self.arriving),
        };
        assert!(other.next().is_none(), "{}: the ring", case.name);
        let record = ring.next().map(|record| record.to_vec());
        match (record, scene.copy_from(case)) {
            (None, None) => {}
            (Some(record), Some(start)) => {
                let (header, bytes) = RecordHeader::split(&record).expect("a whole record");
                assert_eq!(
                    bytes,
                    &case.frame[start..],
                    "{}: the copy's bytes",
                    case.name
                );
                assert_eq!(
                    header.direction,
                    if case.way == Way::In { 0 } else { 1 },
                    "{}: the copy's direction",
                    case.name
                );
                assert!(!header.is_truncated(), "{}: the copy is whole", case.name);
            }
            (record, _) => panic!(
                "{}: copied {}, expected {}",
                case.name,
                record.is_some(),
                scene.copy_from(case).is_some()
            ),
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_kernel_gives_every_case_the_same_verdict() {
    for scene in scenes() {
        let mut kernel = Kernel::load_with(&scene.settings);
        for case in &scene.cases {
            kernel.check(&scene, case);
        }
    }
}

#[test]
fn the_kernel_counts_a_pinholes_traffic_both_ways() {
    let mut kernel = Kernel::load();
    let local = "203.0.113.10:10000".parse().expect("a socket address");
    let frames = |reason| {
        cases()
            .into_iter()
            .filter(move |case| case.reason == reason)
    };
    let passed = frames(Reason::Media).next().expect("a case");
    let left = frames(Reason::EgressMedia).next().expect("a case");
    let dropped = frames(Reason::WrongSource).next().expect("a case");
    for (case, times) in [(&passed, 5), (&left, 3), (&dropped, 2)] {
        for _ in 0..times {
            kernel.run(case);
        }
    }
    let traffic = kernel.writer.traffic(&local).expect("an open pinhole");
    assert_eq!(
        (
            traffic.ingress_packets,
            traffic.egress_packets,
            traffic.dropped_packets
        ),
        (5, 3, 2)
    );
    assert!(traffic.ingress_last.is_some() && traffic.egress_last.is_some());
}

#[test]
fn packets_keep_a_pinhole_open_and_silence_closes_it() {
    let mut kernel = Kernel::load();
    let mut pinhole = pinholes().into_iter().next().expect("a pinhole");
    pinhole.idle = Duration::from_millis(200);
    assert_eq!(
        kernel
            .writer
            .apply(&PinholeAction::Update(pinhole.clone()), clock::now()),
        PinholeResult::Done
    );
    let media = cases()
        .into_iter()
        .find(|case| case.reason == Reason::Media)
        .expect("a case");
    for _ in 0..6 {
        sleep(Duration::from_millis(100));
        assert_eq!(
            kernel.run(&media),
            XDP_PASS,
            "traffic within the limit keeps it open"
        );
    }
    assert!(
        !kernel
            .writer
            .take_idle(clock::now())
            .contains(&pinhole.local)
    );
    sleep(Duration::from_millis(300));
    assert_eq!(
        kernel.run(&media),
        XDP_DROP,
        "silence beyond the limit closes it"
    );
    assert!(
        kernel
            .writer
            .take_idle(clock::now())
            .contains(&pinhole.local),
        "and the daemon learns of it"
    );
    assert_eq!(
        kernel
            .writer
            .apply(&PinholeAction::Update(pinhole), clock::now()),
        PinholeResult::Done
    );
    assert_eq!(kernel.run(&media), XDP_PASS, "signalling opens it again");
}

#[test]
fn pinholes_on_one_port_of_two_addresses_close_one_by_one() {
    let mut settings = settings();
    let neighbour = "203.0.113.26".parse().expect("an address");
    settings.pbx.addresses.push(neighbour);
    let mut kernel = Kernel::load_with(&settings);
    let first = pinholes().into_iter().next().expect("a pinhole");
    let mut second = first.clone();
    second.local.set_ip(neighbour);
    let media = cases()
        .into_iter()
        .find(|case| case.reason == Reason::Media)
        .expect("a case");
    let mut to_neighbour = media.clone();
    // The last byte of the destination address, behind Ethernet's header.
    to_neighbour.frame[14 + 19] = 26;
    let verdicts = |kernel: &mut Kernel| (kernel.run(&media), kernel.run(&to_neighbour));
    let close = |pinhole: &sipfilter_daemon::engine::pinhole::Pinhole| PinholeAction::Close {
        local: pinhole.local,
        call: pinhole.call,
    };
    for (action, expect) in [
        (None, (XDP_PASS, XDP_DROP)),
        (
            Some(PinholeAction::Open(second.clone())),
            (XDP_PASS, XDP_PASS),
        ),
        (
            Some(PinholeAction::Update(first.clone())),
            (XDP_PASS, XDP_PASS),
        ),
        (Some(close(&first)), (XDP_DROP, XDP_PASS)),
        (Some(close(&second)), (XDP_DROP, XDP_DROP)),
        (Some(PinholeAction::Open(first)), (XDP_PASS, XDP_DROP)),
    ] {
        if let Some(action) = &action {
            let done = kernel.writer.apply(action, clock::now());
            assert_eq!(done, PinholeResult::Done);
        }
        assert_eq!(verdicts(&mut kernel), expect, "after {action:?}");
    }
}

#[test]
fn terms_that_change_more_often_than_there_is_room_for_are_always_the_last() {
    let mut kernel = Kernel::load();
    let mut pinhole = pinholes().into_iter().next().expect("a pinhole");
    let media = cases()
        .into_iter()
        .find(|case| case.reason == Reason::Media)
        .expect("a case");
    // Two families' elements have room for as many terms.
    for number in 0..3 * u128::from(CAPACITY + RESTING_PINHOLES) {
        // Every number is another set; the packet's type, which is 0, is in every other one.
        pinhole.terms.payload_types = PayloadTypes::new(number << 1 | number & 1);
        let expect = match number & 1 {
            0 => XDP_DROP,
            _ => XDP_PASS,
        };
        let action = PinholeAction::Update(pinhole.clone());
        let done = kernel.writer.apply(&action, clock::now());
        assert_eq!(done, PinholeResult::Done, "{number}");
        assert_eq!(kernel.run(&media), expect, "{number}");
    }
}

#[test]
fn a_pinhole_that_is_renewed_more_often_than_there_are_elements_is_always_there() {
    let mut kernel = Kernel::load();
    let pinhole = pinholes().into_iter().next().expect("a pinhole");
    let media = cases()
        .into_iter()
        .find(|case| case.reason == Reason::Media)
        .expect("a case");
    for number in 0..2 * (CAPACITY + RESTING_PINHOLES) {
        let action = PinholeAction::Update(pinhole.clone());
        let done = kernel.writer.apply(&action, clock::now());
        assert_eq!(done, PinholeResult::Done, "{number}");
        assert_eq!(kernel.run(&media), XDP_PASS, "{number}");
    }
    let close = PinholeAction::Close {
        local: pinhole.local,
        call: pinhole.call,
    };
    kernel.writer.apply(&close, clock::now());
    assert_eq!(kernel.run(&media), XDP_DROP);
}

#[test]
fn a_full_table_refuses_and_recovers() {
    let mut kernel = Kernel::load();
    let template = pinholes().into_iter().next().expect("a pinhole");
    let open = pinholes().len() as u32;
    let numbered = |number: u32| {
        let mut pinhole = template.clone();
        pinhole.local.set_port(12_000 + number as u16);
        pinhole
    };
    for number in 0..CAPACITY - open {
        assert_eq!(
            kernel
                .writer
                .apply(&PinholeAction::Open(numbered(number)), clock::now()),
            PinholeResult::Done
        );
    }
    let one_more = numbered(CAPACITY);
    assert_eq!(
        kernel
            .writer
            .apply(&PinholeAction::Open(one_more.clone()), clock::now()),
        PinholeResult::Full
    );
    let close = PinholeAction::Close {
        local: numbered(0).local,
        call: template.call,
    };
    assert_eq!(
        kernel.writer.apply(&close, clock::now()),
        PinholeResult::Done
    );
    assert_eq!(
        kernel
            .writer
            .apply(&PinholeAction::Open(one_more), clock::now()),
        PinholeResult::Done
    );
}

#[test]
fn an_empty_policy_lets_everything_through() {
    let tables = HostTables::new(Constants::EMPTY, 0);
    for case in cases()
        .iter()
        .filter(|case| case.way == Way::In && case.reason != Reason::Malformed)
    {
        let verdict = classify_ingress(&case.frame.as_slice(), &tables);
        assert_eq!(verdict.action, Action::Pass, "{}", case.name);
    }
}

#[test]
fn requests_leave_half_of_the_ring_to_calls_in_progress() {
    let mut kernel = Kernel::load();
    let to = "203.0.113.10:5060";
    // More sources than one, each within its budget: the ring itself has to choose.
    let send = |kernel: &mut Kernel, payload: &[u8], sources: std::ops::Range<u8>| {
        for source in sources {
            let frame = Frame::udp(&format!("198.51.100.{source}:5060"), to, payload).build();
            let options = TestRunOptions {
                data_in: Some(&frame),
                repeat: 900,
                ..TestRunOptions::default()
            };
            let ingress = kernel.datapath.ingress().expect("XDP");
            let result = ingress.test_run(options).expect("a test run");
            assert_eq!(result.return_value, XDP_PASS, "lost copies drop no packet");
        }
    };
    let read = |kernel: &Kernel, note| {
        let count = kernel.counters.read(Counter::Note(note));
        count.expect("a counter").packets
    };
    let room = u64::from(RING_BYTES) / (HEADER as u64 + 1_000 + 8);
    send(&mut kernel, b"INVITE sip:pbx SIP/2.0\r\n\r\n", 8..16);
    let copied = read(&kernel, Note::Copied);
    assert!(
        copied.abs_diff(room / 2) <= 2,
        "{copied} requests of {room} places"
    );
    assert_eq!(read(&kernel, Note::CopyShed), 8 * 900 - copied);
    send(&mut kernel, b"BYE sip:pbx SIP/2.0\r\n\r\n", 8..16);
    assert_eq!(
        read(&kernel, Note::Copied),
        room,
        "the rest is for what has begun"
    );
    assert_eq!(
        read(&kernel, Note::CopyLost),
        16 * 900 - room - read(&kernel, Note::CopyShed)
    );
    let first = |reason| {
        cases()
            .into_iter()
            .find(|case| case.reason == reason)
            .expect("a case")
    };
    kernel.run(&first(Reason::EgressSignalling));
    assert_eq!(read(&kernel, Note::EgressCopyLost), 0);
    assert!(
        kernel.leaving.next().is_some(),
        "the PBX's own words have a ring of their own"
    );
    while kernel.arriving.next().is_some() {}
    kernel.run(&first(Reason::Signalling));
    assert!(kernel.arriving.next().is_some(), "what was read makes room");
}

#[test]
fn the_verifier_is_not_much_busier_than_it_was() {
    let policies = scenes().into_iter().map(|scene| policy(&scene.settings));
    if let Err(error) = verifier::check(policies) {
        panic!("{error:#}");
    }
}
