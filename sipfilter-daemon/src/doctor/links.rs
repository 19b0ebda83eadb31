//! The outer interfaces: driver, mode of XDP, offloads, queues, and programs of others.
//!
//! The kernel is asked by `ip` and `ethtool`, which see the network namespace that they run in; `/sys` may show another one.

use std::{path::Path, process::Command};

use serde_json::Value;

use super::Findings;
use crate::{
    config::XdpMode,
    shell::{
        datapath::{self, Occupied},
        interface::{self, Index},
        pins::Pins,
    },
    view::{Check, Status},
};

/// Drivers whose native XDP the kernel's documentation lists; others may have it, too.
const NATIVE: [&str; 20] = [
    "bnxt_en",
    "ena",
    "ice",
    "i40e",
    "iavf",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "qede",
    "sfc",
    "tun",
    "veth",
    "virtio_net",
    "vmxnet3",
];

pub(super) fn checks(
    name: &str,
    mode: XdpMode,
    status: Option<&Status>,
    runtime_dir: &Path,
) -> Vec<Check> {
    let mut found = Findings::of(format!("interface {name}"));
    let index = match interface::check(name) {
        Ok(index) => index,
        Err(error) => {
            found.problem(
                "exists",
                error.to_string(),
                "`ip link` lists the interfaces; correct `interfaces`, unless it is still to come: then it is filtered as soon as it is there",
            );
            return found.checks;
        }
    };
    let driver = run("ethtool", &["-i", name])
        .ok()
        .and_then(|text| field(&text, "driver").map(str::to_owned));
    xdp_mode(&mut found, name, mode, driver.as_deref(), status);
    match run("ip", &["-json", "-details", "link", "show", "dev", name])
        .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string()))
    {
        Ok(link) => {
            let is_ours = datapath::attachments(&Pins::of_runtime_dir(runtime_dir))
                .iter()
                .any(|attachment| attachment.index == index);
            let way_out = Occupied::look(name, index).map_or_else(
                || format!("`ip link set dev {name} xdp off`"),
                |occupied| occupied.way_out,
            );
            of_link(&mut found, &link[0], is_ours, status.is_some(), &way_out);
        }
        Err(why) => found.unknown(
            "link",
            format!("cannot look at MTU and queues: {why}"),
            format!("look yourself: ip -details link show dev {name} (Debian: iproute2)"),
        ),
    }
    match run("ethtool", &["-k", name]) {
        Ok(text) => offloads(&mut found, name, &text),
        Err(why) => found.unknown(
            "offloads",
            format!("cannot look at LRO and GRO-HW: {why}"),
            format!("install ethtool; `ethtool -k {name}` should say that large-receive-offload and rx-gro-hw are off"),
        ),
    }
    found.checks
}

fn xdp_mode(
    found: &mut Findings,
    name: &str,
    mode: XdpMode,
    driver: Option<&str>,
    status: Option<&Status>,
) {
    let driver_text = driver.map_or("an unknown driver".to_owned(), |name| {
        format!("driver {name}")
    });
    let attached = status.and_then(|status| {
        status
            .interfaces
            .iter()
            .find(|interface| interface.name == name)
    });
    match attached {
        Some(attached) => match &attached.fallback {
            Some(why) => found.warning(
                "xdp_mode",
                format!("{driver_text}; attached in {} mode, because {why}", attached.mode),
                "everything works, more slowly: mend the cause and restart, or set [xdp] mode = \"generic\" to say that this is meant",
            ),
            None => found.ok("xdp_mode", format!("{driver_text}; attached in {} mode", attached.mode)),
        },
        None if mode == XdpMode::Native && driver.is_some_and(|driver| !NATIVE.contains(&driver)) => {
            found.warning(
                "xdp_mode",
                format!("{driver_text} is not known to have native XDP, and [xdp] mode = \"native\" takes nothing else"),
                "[xdp] mode = \"auto\" falls back to generic mode",
            );
        }
        None => match driver {
            Some(driver) if NATIVE.contains(&driver) => {
                found.ok("xdp_mode", format!("{driver_text} has native XDP; not attached now"));
            }
            Some(_) => found.ok(
                "xdp_mode",
                format!("{driver_text} is not known to have native XDP: generic mode is likely; not attached now"),
            ),
            None => found.unknown(
                "xdp_mode",
                "not attached now, and the driver cannot be told (ethtool)",
                "install ethtool, or start sipfilterd: `sipfilterctl status` says which mode it got",
            ),
        },
    }
}

/// What `ip -details link` says.
fn of_link(found: &mut Findings, link: &Value, is_ours: bool, is_running: bool, way_out: &str) {
    let mtu = link["mtu"].as_u64().unwrap_or_default();
    let (rx, tx) = (&link["num_rx_queues"], &link["num_tx_queues"]);
    found.ok(
        "link",
        format!(
            "MTU {mtu} (packets of several pages are judged too), {rx} receive and {tx} send queues"
        ),
    );
    let is_up = link["flags"]
        .as_array()
        .is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
    if !is_up {
        found.problem("up", "it is down", "ip link set dev NAME up");
    }
    let program = &link["xdp"]["prog"];
    match (program.is_null(), is_ours) {
        (false, true) => found.ok(
            "other_xdp",
            format!("its XDP program ({}) is ours", program["id"]),
        ),
        (true, true) if is_running => found.problem(
            "other_xdp",
            "sipfilterd runs, and no XDP program is attached",
            "somebody has taken it off (`ip link set … xdp off`): restart sipfilterd",
        ),
        (false, false) => found.problem(
            "other_xdp",
            format!(
                "an XDP program of somebody else is attached (id {}, {})",
                program["id"], program["name"]
            ),
            format!("only one program fits: stop whoever it belongs to, or take it off: {way_out}"),
        ),
        _ => found.ok("other_xdp", "no XDP program is attached"),
    }
    if let Some(master) = link["master"].as_str() {
        found.warning(
            "master",
            format!("it is a port of {master}"),
            format!("addresses and routes are {master}'s; where that is a bridge to the PBX this is as it should be, where it is a bond, filter the bond"),
        );
    }
}

/// What `ethtool -k` says: large receive offload and XDP exclude each other, whoever does it.
fn offloads(found: &mut Findings, name: &str, text: &str) {
    let is_on = |feature: &str| field(text, feature).is_some_and(|value| value.starts_with("on"));
    let on: Vec<(&str, &str)> = [("large-receive-offload", "lro"), ("rx-gro-hw", "rx-gro-hw")]
        .into_iter()
        .filter(|(feature, _)| is_on(feature))
        .collect();
    if on.is_empty() {
        found.ok("offloads", "LRO and GRO-HW are off");
        return;
    }
    let names: Vec<&str> = on.iter().map(|(feature, _)| *feature).collect();
    let commands: Vec<String> = on
        .iter()
        .map(|(_, switch)| format!("ethtool -K {name} {switch} off"))
        .collect();
    found.warning(
        "offloads",
        format!(
            "{} on: packets are merged before XDP sees them, and most drivers refuse native XDP",
            names.join(", ")
        ),
        commands.join("; "),
    );
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("`{program}` cannot be run ({error})"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "`{program} {}`: {}",
            arguments.join(" "),
            error.trim()
        ))
    }
}

/// The interface that has an address of this host.
pub(super) fn holder(address: std::net::IpAddr) -> Option<String> {
    let own = interface::all_addresses().ok()?;
    let (name, _) = own.into_iter().find(|(_, held)| *held == address)?;
    Some(name)
}

/// Whether there is such an interface.
pub(super) fn exists(name: &str) -> bool {
    interface::index(name).is_some_and(|Index(index)| index > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_of_others_are_told_from_ours() {
        let with = json!({"mtu": 1500, "flags": ["UP"], "xdp": {"prog": {"id": 7, "name": "lb"}}});
        let without = json!({"mtu": 1500, "flags": ["UP"]});
        for (link, is_ours, is_running, outcome) in [
            (&with, true, true, "ok"),
            (&with, false, false, "problem"),
            (&without, true, true, "problem"),
            (&without, false, false, "ok"),
        ] {
            let mut found = Findings::of("interface x");
            of_link(&mut found, link, is_ours, is_running, "`true`");
            let check = found.checks.iter().find(|check| check.code == "other_xdp");
            assert_eq!(
                check.map(|check| check.outcome.as_str()),
                Some(outcome),
                "{link}"
            );
        }
    }

    #[test]
    fn offloads_that_merge_packets_are_named_with_the_command() {
        let text = "Features for eth0:\nlarge-receive-offload: on [requested off]\nrx-gro-hw: off [fixed]\n";
        let mut found = Findings::of("interface eth0");
        offloads(&mut found, "eth0", text);
        assert_eq!(found.checks[0].outcome, "warning");
        assert_eq!(
            found.checks[0].remedy.as_deref(),
            Some("ethtool -K eth0 lro off")
        );
        let mut found = Findings::of("interface eth0");
        offloads(&mut found, "eth0", "large-receive-offload: off\n");
        assert_eq!(found.checks[0].outcome, "ok");
    }
}
