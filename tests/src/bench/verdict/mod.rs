//! `verdict`: nanoseconds per packet and reason, by BPF_PROG_TEST_RUN, less what an empty program takes.
//!
//! Every reason of the policy's table of cases is measured on the case's own packet. A repeated test run keeps one key hot, so what
//! rests on the number of pinholes is measured again behind a program that gives every packet another address and port.

mod scene;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sipfilter_common::reason::{Action, Reason};

use self::scene::{Scene, Target};
use super::{
    Options, SubBench,
    outcome::{Chart, Outcome, Table},
    programs::{Plan, Programs, Run, Sample, Timed},
    statistics::{median, rounded},
    xdp_filter,
};
use crate::policy::{
    self,
    cases::{Case, Way},
};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "verdict",
    about: "net nanoseconds per packet and verdict in the kernel, against xdp-filter",
    run,
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_GO_ON: u32 = u32::MAX;
const TC_SHOT: u32 = 2;

/// The two address families.
const FAMILIES: [u32; 2] = [4, 6];

/// One thing that is measured, round after round.
struct Candidate {
    key: Key,
    program: Timed,
    packet: Vec<u8>,
    arrived_on: u32,
    /// The scene whose provisional place it comes to.
    place_in: Option<usize>,
    /// How packets differ, if they do.
    plan: Option<Plan>,
    repeat: u32,
    /// What the program must return, or something else was measured.
    returns: u32,
    samples: Vec<Sample>,
}

/// Runs short enough for the ring buffer or a provisional place are too short for the processor's clock: there the kernel's own counts.
impl Candidate {
    fn is_short(&self) -> bool {
        self.repeat <= scene::COPIES
    }
}

/// What a figure stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// An empty program.
    Empty(Way),
    /// An empty program behind packets that differ; the family.
    EmptyVaried(u32),
    /// A case of the policy's table, with one packet.
    Case(Reason, u32),
    /// Packets that differ: what becomes of them, the family, and how many pinholes there are.
    Varied(Target, u32, usize),
    /// xdp-filter: whether it passes, and the family, with which features.
    Filter(Action, u32, &'static str),
}

/// xdp-filter with what comes nearest to sipfilter's rules: addresses and UDP ports; and with the least that can do.
const FILTERS: [&str; 2] = ["ipv4,ipv6,udp", "udp"];

/// Packets that differ, in one run: two seconds of what 20 000 calls send. Each run begins with whatever the last one has left in the
/// processor's caches, which is nothing of its own; the fewer packets follow, the more that weighs.
const STEADY: u32 = 2_000_000;

fn run(options: &Options) -> Result<Outcome> {
    let sizes: &[usize] = if options.quick {
        &[1, 1_000]
    } else {
        &[1, 20_000, 1_000_000]
    };
    let (repeat, repeat_varied) = if options.quick {
        (5_000, 5_000)
    } else {
        (200_000, STEADY)
    };
    let mut programs = Programs::load()?;
    let mut candidates = Vec::new();

    let pass = |programs: &mut Programs| Timed::xdp(programs.xdp("pass")?.info()?);
    let policy_scenes = enforcing();
    let mut scenes = Vec::new();
    for scene in &policy_scenes {
        scenes.push(Scene::of_policy(scene)?);
    }
    let frames = representative(&policy_scenes);
    let (media, miss) = (Reason::Media, Reason::NoPinhole);
    let packet = |reason, family| {
        frames
            .iter()
            .find(|chosen| chosen.case.reason == reason && chosen.family == family)
            .map(|chosen| chosen.case.frame.clone())
            .with_context(|| format!("no case for {} over IPv{family}", reason.name()))
    };
    let fixed = |key, program, packet, repeat, returns| Candidate {
        key,
        program,
        packet,
        arrived_on: 0,
        place_in: None,
        plan: None,
        repeat,
        returns,
        samples: Vec::new(),
    };
    let hit = packet(media, 4)?;
    candidates.push(fixed(
        Key::Empty(Way::In),
        pass(&mut programs)?,
        hit.clone(),
        repeat,
        XDP_PASS,
    ));
    candidates.push(fixed(
        Key::Empty(Way::Out),
        Timed::tc(programs.leave()?.info()?)?,
        hit,
        repeat,
        TC_GO_ON,
    ));
    for Representative {
        scene,
        case,
        family,
    } in &frames
    {
        let copies = case.copy_from.is_some();
        let action = policy_scenes.get(*scene).map(|of| of.action(case.reason));
        let returns = match (case.way, action) {
            (Way::In, Some(Action::Drop)) => XDP_DROP,
            (Way::In, _) => XDP_PASS,
            (Way::Out, Some(Action::Drop)) => TC_SHOT,
            (Way::Out, _) => TC_GO_ON,
        };
        let is_early = case.reason == Reason::Provisional;
        let loaded = scenes.get_mut(*scene).context("every scene is loaded")?;
        candidates.push(Candidate {
            arrived_on: case.arrived_on,
            place_in: is_early.then_some(*scene),
            ..fixed(
                Key::Case(case.reason, *family),
                loaded.program(case.way)?,
                case.frame.clone(),
                if copies {
                    repeat.min(scene::COPIES)
                } else if is_early {
                    repeat.min(scene::EARLY_PACKETS)
                } else {
                    repeat
                },
                returns,
            )
        });
    }
    for features in FILTERS {
        for family in FAMILIES {
            for (reason, action, returns) in [
                (media, Action::Pass, XDP_PASS),
                (miss, Action::Drop, XDP_DROP),
            ] {
                candidates.push(fixed(
                    Key::Filter(action, family, features),
                    xdp_filter::load(features, &[10_000])?,
                    packet(reason, family)?,
                    repeat,
                    returns,
                ));
            }
        }
    }
    // Loaded here and kept: a program's maps go with its last handle.
    for family in FAMILIES {
        candidates.push(Candidate {
            plan: Some(scene::plan(Target::Media, family, 1)),
            ..fixed(
                Key::EmptyVaried(family),
                pass(&mut programs)?,
                scene::packet(Target::Media, family),
                repeat_varied,
                XDP_PASS,
            )
        });
        for &size in sizes {
            eprintln!("    opening {size} pinholes over IPv{family}");
            let mut scene = Scene::of_size(family, size)?;
            for target in Target::ALL {
                candidates.push(Candidate {
                    plan: Some(scene::plan(target, family, size)),
                    ..fixed(
                        Key::Varied(target, family, size),
                        scene.program(Way::In)?,
                        scene::packet(target, family),
                        repeat_varied,
                        target.returns(),
                    )
                });
            }
        }
    }

    for round in 0..=options.rounds {
        for scene in &mut scenes {
            scene.rehearse()?;
        }
        for candidate in &mut candidates {
            if let Some(scene) = candidate.place_in.and_then(|of| scenes.get_mut(of)) {
                scene.keep_open(&candidate.packet)?;
            }
            let sample = measure(candidate, &mut programs)?;
            scenes.iter_mut().for_each(Scene::drain);
            // The first round fills caches.
            if round > 0 {
                candidate.samples.push(sample);
            }
        }
    }
    Ok(evaluate(&candidates, sizes))
}

/// A case that stands for its reason.
struct Representative {
    /// The place of its scene.
    scene: usize,
    case: Case,
    family: u32,
}

/// The policy's scenes in which verdicts are carried out.
fn enforcing() -> Vec<policy::scenes::Scene> {
    let scenes = policy::scenes::scenes().into_iter();
    scenes
        .filter(|scene| scene.action(Reason::NoPinhole) == Action::Drop)
        .collect()
}

/// The first case of each reason and family, in the scenes' order: a new reason comes in by itself.
fn representative(scenes: &[policy::scenes::Scene]) -> Vec<Representative> {
    let mut chosen: Vec<Representative> = Vec::new();
    for (scene, of) in scenes.iter().enumerate() {
        for case in &of.cases {
            let family = if case.frame.get(12..14) == Some(&[0x86, 0xdd]) {
                6
            } else {
                4
            };
            let known =
                |known: &Representative| known.case.reason == case.reason && known.family == family;
            if !chosen.iter().any(known) {
                chosen.push(Representative {
                    scene,
                    case: case.clone(),
                    family,
                });
            }
        }
    }
    chosen
}

fn measure(candidate: &Candidate, programs: &mut Programs) -> Result<Sample> {
    let run = Run {
        packet: &candidate.packet,
        repeat: candidate.repeat,
        arrived_on: candidate.arrived_on,
    };
    let sample = match candidate.plan {
        Some(plan) => programs.time_varied(&candidate.program, plan, run),
        None => candidate.program.time(run),
    }
    .with_context(|| format!("{:?}", candidate.key))?;
    ensure!(
        sample.returned == candidate.returns,
        "{:?} returned {}, not {}: something else was measured",
        candidate.key,
        sample.returned,
        candidate.returns
    );
    Ok(sample)
}

/// Medians, by key.
struct Figures<'a>(&'a [Candidate]);

impl Figures<'_> {
    fn find(&self, key: &Key) -> Option<&Candidate> {
        self.0.iter().find(|candidate| candidate.key == *key)
    }

    /// Less what an empty program takes; never nothing, so that ratios stay finite.
    fn net(&self, key: &Key) -> Option<f64> {
        let candidate = self.find(key)?;
        let empty = match key {
            Key::Varied(_, family, _) => Key::EmptyVaried(*family),
            _ if is_egress(candidate) => Key::Empty(Way::Out),
            _ => Key::Empty(Way::In),
        };
        let empty = self.find(&empty)?;
        let short = candidate.is_short();
        Some((gross(candidate, short) - gross(empty, short)).max(0.1))
    }

    fn cell(&self, key: &Key) -> String {
        self.net(key)
            .map_or_else(|| "–".into(), |net| format!("{net:.1}"))
    }

    fn ratio(&self, one: &Key, other: &Key) -> f64 {
        match (self.net(one), self.net(other)) {
            (Some(one), Some(other)) => rounded(one / other),
            _ => 0.0,
        }
    }
}

fn gross(candidate: &Candidate, short: bool) -> f64 {
    let figures = candidate.samples.iter();
    let figures = figures.map(|sample| {
        if short {
            sample.kernel
        } else {
            sample.processor
        }
    });
    median(&figures.collect::<Vec<_>>())
}

/// Whether the figure is the TC program's.
fn is_egress(candidate: &Candidate) -> bool {
    matches!(candidate.program, Timed::Tc(_))
}

fn evaluate(candidates: &[Candidate], sizes: &[usize]) -> Outcome {
    let figures = Figures(candidates);
    let mut reasons = Table::new(
        "Net nanoseconds per packet, by reason (one packet again and again)",
        &["reason", "IPv4", "IPv6"],
    );
    for reason in Reason::ALL {
        reasons.row([
            reason.name().to_owned(),
            figures.cell(&Key::Case(*reason, 4)),
            figures.cell(&Key::Case(*reason, 6)),
        ]);
    }
    let mut filter = Table::new(
        "xdp-filter on the same packets, net nanoseconds",
        &[
            "features",
            "IPv4 pass",
            "IPv4 drop",
            "IPv6 pass",
            "IPv6 drop",
        ],
    );
    for features in FILTERS {
        let cell = |action, family| figures.cell(&Key::Filter(action, family, features));
        filter.row([
            features.to_owned(),
            cell(Action::Pass, 4),
            cell(Action::Drop, 4),
            cell(Action::Pass, 6),
            cell(Action::Drop, 6),
        ]);
    }
    let mut header = vec!["reason".to_owned()];
    for family in FAMILIES {
        header.extend(sizes.iter().map(|size| format!("IPv{family}, {size}")));
    }
    let mut varied = Table {
        title: "Net nanoseconds per packet with random keys, by number of pinholes".into(),
        header,
        rows: Vec::new(),
    };
    for target in Target::ALL {
        let mut row = vec![target.name().to_owned()];
        for family in FAMILIES {
            let sizes = sizes.iter();
            row.extend(sizes.map(|&size| figures.cell(&Key::Varied(target, family, size))));
        }
        varied.row(row);
    }
    let mut baselines = Table::new(
        "Empty programs, nanoseconds per packet (subtracted above)",
        &["program", "ns"],
    );
    for (name, key) in [
        ("XDP", Key::Empty(Way::In)),
        ("TC", Key::Empty(Way::Out)),
        ("XDP behind packets that differ, IPv4", Key::EmptyVaried(4)),
        ("XDP behind packets that differ, IPv6", Key::EmptyVaried(6)),
    ] {
        let gross = figures.find(&key).map_or(0.0, |empty| gross(empty, false));
        baselines.row([name.to_owned(), format!("{gross:.1}")]);
    }
    let hit = |family| Key::Case(Reason::Media, family);
    let random = |size: usize| Key::Varied(Target::Media, 4, size);
    let size = |place: usize| sizes.get(place).or(sizes.last()).copied().unwrap_or(1);
    Outcome {
        summary: json!({
            "rtp_hit_vs_xdp_filter": figures.ratio(&hit(4), &Key::Filter(Action::Pass, 4, FILTERS[0])),
            "no_pinhole_vs_xdp_filter": figures.ratio(&Key::Case(Reason::NoPinhole, 4), &Key::Filter(Action::Drop, 4, FILTERS[0])),
            "ipv6_vs_ipv4": figures.ratio(&hit(6), &hit(4)),
            "random_20k_vs_one": figures.ratio(&random(size(1)), &random(1)),
            "random_1m_vs_one": figures.ratio(&random(size(2)), &random(1)),
        }),
        charts: charts(&figures, sizes),
        tables: vec![reasons, filter, varied, baselines],
        notes: vec![
            "Net means less an empty program of the same kind (XDP or TC) in the same round. Processor time of the measuring thread, by \
             BPF_PROG_TEST_RUN. Where packets are copied to the ring buffer or come to a provisional place, runs are short and the kernel's own clock counts, in whole \
             nanoseconds; the copy is included."
                .into(),
            "xdp-filter refuses by default and is given the RTP port. With the features `ipv4,ipv6,udp` it looks at what sipfilter looks \
             at; the ratios are against that. With `udp` alone it looks at ports only."
                .into(),
            "Packets with random keys follow each other two million times, as in two seconds of 20 000 calls: a figure of steady traffic, with \
             what belongs to it in the processor's caches as far as it fits."
                .into(),
            "One million pinholes lie on 16 protected addresses, which the policy compares one after the other; 20 000 on one."
                .into(),
        ],
    }
}

fn charts(figures: &Figures<'_>, sizes: &[usize]) -> Vec<Chart> {
    let of = |key: &Key| figures.net(key);
    let bars = Reason::ALL
        .iter()
        .map(|&reason| {
            let values = FAMILIES
                .iter()
                .map_while(|&family| of(&Key::Case(reason, family)));
            (reason.name().to_owned(), values.collect())
        })
        .chain(FILTERS.iter().flat_map(|features| {
            [(Action::Pass, "pass"), (Action::Drop, "drop")].map(|(action, name)| {
                let key = |family| Key::Filter(action, family, features);
                let values = FAMILIES.iter().map_while(|&family| of(&key(family)));
                (format!("xdp-filter {name} ({features})"), values.collect())
            })
        }));
    let random = Target::ALL.iter().map(|&target| {
        let values = sizes
            .iter()
            .map_while(|&size| of(&Key::Varied(target, 4, size)));
        (target.name().to_owned(), values.collect())
    });
    vec![
        Chart {
            file: "verdict-reasons".into(),
            title: "Net time per packet, by reason".into(),
            unit: "ns".into(),
            series: vec!["IPv4".into(), "IPv6".into()],
            bars: bars.collect(),
        },
        Chart {
            file: "verdict-random".into(),
            title: "Net time per packet with random keys, IPv4".into(),
            unit: "ns".into(),
            series: sizes
                .iter()
                .map(|size| format!("{size} pinholes"))
                .collect(),
            bars: random.collect(),
        },
    ]
}
