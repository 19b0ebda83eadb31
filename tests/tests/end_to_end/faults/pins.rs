//! What is pinned is not what it was: of another version, garbage, a directory, somebody else's. It is never read for what it is not, the
//! filter stays where it is, and a start says what it found.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use rustix::process::Signal;
use sipfilter_common::{
    abi::{map, program},
    value::Stamp,
};
use sipfilter_daemon::shell::pins::Pins;
use sipfilter_tests::lab::{
    address::Family,
    attack::{Attack, Kind},
    call::Direction,
    daemon::{Daemon, Filter, Mode},
    namespace::run,
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use super::{calls, hang_up, one_of_each, says, survive};
use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("faults::what_calls_do_not_rest_on_is_made_anew", kept),
        Test::new(
            "faults::pins_of_another_version_or_shape_are_never_read",
            rebuilt,
        ),
        Test::new("faults::links_that_are_none_are_attached_anew", no_links),
    ]
}

/// What is done to the pins, and what the next start must say of it.
type Case = (
    &'static str,
    fn(&Pins) -> Result<()>,
    &'static [&'static str],
);

const KEPT: [Case; 6] = [
    (
        "another policy",
        |pins| restamp(pins, |stamp| stamp.policy ^= 1),
        &["took over the pinned maps", "the policy has changed"],
    ),
    (
        "a directory",
        |pins| directory(pins, map::FRAGMENTS),
        &["FRAGMENTS", "no map of ours", "took over"],
    ),
    (
        "a map of the same size and another kind",
        |pins| foreign(pins, map::COUNTERS, "hash key 4 value 16 entries 77"),
        &["COUNTERS", "no map of ours", "took over"],
    ),
    (
        "a map of another size",
        |pins| foreign(pins, map::SOURCES, "array key 4 value 8 entries 3"),
        &["SOURCES", "no map of ours", "took over"],
    ),
    (
        "nothing",
        |pins| Ok(fs::remove_file(pins.path(map::SIGNALLING_IN))?),
        &["took over"],
    ),
    (
        "a directory where something waits for its place",
        |pins| Ok(fs::create_dir(pins.next_path(map::SLOTS))?),
        &["took over"],
    ),
];

const REBUILT: [Case; 6] = [
    (
        "an older version",
        |pins| restamp(pins, |stamp| stamp.abi_version -= 1),
        &["another version or shape", "signalled again"],
    ),
    (
        "garbage",
        |pins| {
            restamp(pins, |stamp| {
                *stamp = Stamp {
                    abi_version: 0xa5a5,
                    pinholes: u32::MAX,
                    policy: u64::MAX,
                    ..*stamp
                }
            })
        },
        &["another version or shape"],
    ),
    (
        "a directory for a stamp",
        |pins| directory(pins, map::STAMP),
        &["another version or shape"],
    ),
    (
        "a program for a stamp",
        |pins| {
            Ok(fs::rename(
                pins.path(program::INGRESS),
                pins.path(map::STAMP),
            )?)
        },
        &["another version or shape"],
    ),
    (
        "pinholes of another shape",
        |pins| foreign(pins, map::PINHOLES4, "array key 4 value 8 entries 1"),
        &["another version or shape"],
    ),
    (
        "a directory for slots",
        |pins| directory(pins, map::SLOTS),
        &["another version or shape"],
    ),
];

fn kept() -> Result<()> {
    let mut stage = calls(2, 2)?;
    for (what, tamper, words) in KEPT {
        survive(&mut stage, what, |network, daemon| {
            let pins = Pins::of_runtime_dir(daemon.runtime());
            daemon.stop(Signal::KILL)?;
            tamper(&pins).context("cannot tamper with it")?;
            let daemon = Daemon::start(network, Mode::Native)?;
            says(what, &daemon.log(), words)?;
            Ok(daemon)
        })?;
    }
    hang_up(&stage)
}

/// Calls in progress are lost, as the daemon says; nobody else's packets arrive for it, and the next calls are heard.
fn rebuilt() -> Result<()> {
    for (what, tamper, words) in REBUILT {
        let network = Network::build(Topology::Routed, Family::V4, &[])?;
        let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
        stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
        ensure!(stage.pinholes()? > 0, "{what}: no pinhole is open");
        let attack = Attack::endless_on_media(&stage.network, &stage.calls)?;
        let fired = attack.fired();
        sleep(Duration::from_millis(200));
        let daemon = stage.daemon.take().context("no daemon")?;
        let pins = Pins::of_runtime_dir(daemon.runtime());
        daemon.stop(Signal::KILL)?;
        tamper(&pins).with_context(|| format!("{what}: cannot tamper with it"))?;
        let daemon = Daemon::start(&stage.network, Mode::Native).context(what)?;
        sleep(Duration::from_millis(200));
        drop(attack);
        says(what, &daemon.log(), words)?;
        one_of_each(&stage.network).context(what)?;
        ensure!(
            daemon.pinholes()? == 0,
            "{what}: pinholes were read from it"
        );
        stage.daemon = Some(daemon);
        stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
        stage
            .talk(|call| call.direction == Direction::Outbound, 10)
            .context(what)?;
        let (sent, arrived) = Kind::ALL.iter().fold((0, 0), |(sent, arrived), &kind| {
            (sent + fired.count(kind), arrived + stage.arrived(kind))
        });
        ensure!(
            sent > 0 && arrived == 0,
            "{what}: {arrived} of {sent} packets of strangers arrived"
        );
    }
    Ok(())
}

fn no_links() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    for is_directory in [true, false] {
        let daemon = Daemon::start(&network, Mode::Native)?;
        let pins = Pins::of_runtime_dir(daemon.runtime());
        daemon.stop(Signal::KILL)?;
        let files = pins.files();
        let is_link =
            |name: &&String| name.starts_with("xdp_native_") || name.starts_with("egress_");
        let links: Vec<&String> = files.iter().filter(is_link).collect();
        ensure!(links.len() == 2, "no links among {files:?}");
        for name in links {
            match is_directory {
                true => directory(&pins, name)?,
                false => foreign(&pins, name, "percpu_array key 4 value 8 entries 1")?,
            }
        }
        // The kernel lets go of a link a moment after its last name.
        sleep(Duration::from_millis(300));
        let daemon = Daemon::start(&network, Mode::Native)?;
        says("no links", &daemon.log(), &["no link of ours", "took over"])?;
        one_of_each(&network)?;
        daemon.stop(Signal::USR2)?;
        one_of_each(&network)?;
    }
    Ok(())
}

fn restamp(pins: &Pins, change: fn(&mut Stamp)) -> Result<()> {
    let map = Map::from_map_data(MapData::from_pin(pins.path(map::STAMP))?)?;
    let mut array: Array<MapData, Stamp> = map.try_into()?;
    let mut stamp = array.get(&0, 0)?;
    change(&mut stamp);
    Ok(array.set(0, stamp, 0)?)
}

fn directory(pins: &Pins, name: &str) -> Result<()> {
    fs::remove_file(pins.path(name))?;
    fs::create_dir(pins.path(name))?;
    Ok(fs::create_dir(pins.path(name).join("inside"))?)
}

/// A map of these properties in the place of another.
fn foreign(pins: &Pins, name: &str, properties: &str) -> Result<()> {
    let path = pins.path(name);
    fs::remove_file(&path)?;
    run(std::process::Command::new("bpftool")
        .args(["map", "create"])
        .arg(&path)
        .arg("type")
        .args(properties.split_whitespace())
        .args(["name", "foreign"]))?;
    Ok(())
}
