//! End to end: the built daemon, attached to a namespace's interface, between real agents.
//!
//! The tests have a harness of their own, so that one that cannot run is shown as ignored, with the reason, and fails where `CI` is
//! set. Each builds its own lab; they share nothing and may run side by side.

mod addresses;
mod agents;
mod apply;
mod captures;
mod chaos;
mod cleanup;
mod commands;
mod diagnosis;
mod doctor;
mod drops;
mod eyes;
mod faults;
mod filters;
mod floods;
mod identity;
mod interfaces;
mod jumbo;
mod lifecycle;
mod modes;
mod names;
mod offer_cases;
mod offers;
mod privacy;
mod promises;
mod provisional;
mod questions;
mod reasons;
mod reload;
mod report;
mod rights;
mod stories;
mod strangers;
mod telling;
mod terms;
mod top;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use sipfilter_tests::lab::privilege;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A lab is a dozen threads and five processes; more than two at once measure the machine instead of the filter.
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(2).min(2));
    let able = privilege::check();
    if let Err(why) = &able {
        eprintln!("end-to-end tests cannot run here: {why:#}");
    }
    let must_run = std::env::var_os("CI").is_some();
    let trials = promises::tests()
        .into_iter()
        .chain(stories::tests())
        .chain(identity::tests())
        .chain(interfaces::tests())
        .chain(addresses::tests())
        .chain(jumbo::tests())
        .chain(lifecycle::tests())
        .chain(cleanup::tests())
        .chain(diagnosis::tests())
        .chain(agents::tests())
        .chain(floods::tests())
        .chain(offers::tests())
        .chain(questions::tests())
        .chain(terms::tests())
        .chain(reasons::tests())
        .chain(rights::tests())
        .chain(modes::tests())
        .chain(privacy::tests())
        .chain(names::tests())
        .chain(commands::tests())
        .chain(provisional::tests())
        .chain(doctor::tests())
        .chain(top::tests())
        .chain(eyes::tests())
        .chain(reload::tests())
        .chain(report::tests())
        .chain(drops::tests())
        .chain(strangers::tests())
        .chain(filters::tests())
        .chain(apply::tests())
        .chain(captures::tests())
        .chain(telling::tests())
        .chain(chaos::tests())
        .chain(faults::tests())
        .map(|test| {
            let why = able.as_ref().err().map(|why| format!("{why:#}"));
            let ignored = why.is_some() && !must_run;
            let body = test.body;
            Trial::test(test.name, move || {
                if let Some(why) = why {
                    return Err(format!("cannot run here: {why}").into());
                }
                body().map_err(|error| format!("{error:#}").into())
            })
            .with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test by name; it passes where its body gives `Ok`.
pub struct Test {
    name: String,
    body: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl Test {
    fn new(name: impl Into<String>, body: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self {
            name: name.into(),
            body: Box::new(body),
        }
    }
}
