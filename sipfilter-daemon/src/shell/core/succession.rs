//! [`Core::succeed`]: engine and pinholes go from one load of the programs to the next.
//!
//! It neither loads nor attaches. Invariant: nothing is said to the engine or written to a pinhole before the new programs run.

use std::collections::BTreeMap;

use super::{About, Core};
use crate::{
    config::Config,
    engine::{Input, Instant, settings::Settings},
    shell::{
        clock,
        datapath::{Attached, Datapath, DatapathError},
        outer::Outer,
        policy::KernelPolicy,
        provisional::Provisionals,
        reload::places::Place,
    },
};

/// What is to be in force.
pub struct Next<'a> {
    /// The configuration.
    pub config: Config,
    /// What the engine is told of it.
    pub settings: Settings,
    /// What the programs were loaded with.
    pub policy: &'a KernelPolicy,
    /// The routes that they were loaded for.
    pub outer: Outer,
    /// Room for pinholes.
    pub capacity: u32,
}

/// What it did to calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// Calls that ended.
    pub calls_ended: usize,
    /// Pinholes that were closed.
    pub pinholes_closed: usize,
}

impl Core {
    /// Leads the programs of `datapath` to the open pinholes, has `attach` put them in the place of those that run, and goes on under
    /// the other settings: calls of providers that are in them no more end, all others go on.
    ///
    /// # Errors
    /// [`DatapathError`], also of `attach`; nothing has changed then.
    pub fn succeed(
        &mut self,
        datapath: &mut Datapath,
        next: Next<'_>,
        attach: impl FnOnce(&mut Datapath) -> Result<Vec<(String, Attached)>, DatapathError>,
    ) -> Result<Effect, DatapathError> {
        let succession = self.writer.succession(datapath, next.capacity)?;
        let provisionals = Provisionals::new(datapath, next.policy)?;
        let mut attached = attach(datapath)?;
        attached.retain(|(name, _)| next.config.interfaces.contains(name));
        // Those that are not there by their names are as they were last.
        for (name, how) in &self.about.attached {
            let is_meant = next.config.interfaces.contains(name);
            if is_meant && !attached.iter().any(|(other, _)| other == name) {
                attached.push((name.clone(), how.clone()));
            }
        }

        let now = clock::now();
        let before = (self.engine.calls_in_progress(), self.engine.open_pinholes());
        let unprotected = self.writer.accept(succession, &next.settings.providers);
        self.provisionals = provisionals;
        self.pressure.set_outer(next.outer);
        self.settings = next.settings.clone();
        self.about = About {
            config: next.config,
            attached,
            started: self.about.started,
            unconfirmed: self.about.unconfirmed.take(),
            places: std::mem::take(&mut self.about.places),
        };
        self.engine.reconfigure(now, next.settings);
        self.renumber_work();
        self.drain(now);
        for local in unprotected {
            self.handle(now, Input::PinholeIdle { local });
        }
        Ok(Effect {
            calls_ended: before.0.saturating_sub(self.engine.calls_in_progress()),
            pinholes_closed: before.1.saturating_sub(self.engine.open_pinholes()),
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.about.config
    }

    /// The programs were put on an interface of it.
    pub fn set_attached(&mut self, name: &str, how: Attached) {
        match self
            .about
            .attached
            .iter_mut()
            .find(|(known, _)| known == name)
        {
            Some((_, known)) => *known = how,
            None => self.about.attached.push((name.to_owned(), how)),
        }
    }

    /// What `status` tells of where its interfaces are.
    pub fn set_places(&mut self, places: BTreeMap<String, Place>) {
        self.about.places = places;
    }

    /// Whether there is no interface of this name now.
    pub fn awaits(&self, name: &str) -> bool {
        let place = self.about.places.get(name);
        matches!(place, Some(Place::Gone | Place::Awaited))
    }

    /// What `status` tells of a configuration that waits to be confirmed.
    pub fn set_unconfirmed(&mut self, unconfirmed: Option<(String, Instant)>) {
        self.about.unconfirmed = unconfirmed;
    }

    /// What the engine was told of it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
