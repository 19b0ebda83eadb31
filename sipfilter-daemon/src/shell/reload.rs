//! Another configuration while the daemon runs: read, checked and loaded beside what is in force, then put in its place in one step.
//!
//! What takes time (reading, the kernel's check of the programs, filling maps) happens on a thread of its own, while the engine goes on.
//! What takes over is the engine's task alone, and takes a few milliseconds: it leads the new programs to the open pinholes, exchanges
//! the programs on every interface, and only then tells the engine. Invariant: until the programs are exchanged nothing has changed, and
//! whatever fails leaves it so; a packet meets either the old policy or the new one.

mod answer;
mod interfaces;
mod order;
mod own;
pub mod places;
mod prepare;
mod refusal;
mod trial;

use std::{collections::VecDeque, path::Path};

use tokio::{sync::oneshot, task::JoinHandle};

pub use order::{Command, NothingWaits, Order, Source};
pub use trial::Trial;

use answer::{change_view, empty, refusal, report, unplaced};
use interfaces::present;
use own::Lookout;
use places::Places;
use prepare::{InForce, Loaded, Prepared, prepare};
use refusal::{Refused, ReloadError};
use trial::Candidate;

use super::{
    clock,
    core::{Core, succession::Next},
    datapath::{self, Datapath},
    interface::{self, Index},
    logging::LevelSwitch,
    pins::Pins,
    policy::KernelPolicy,
    privacy::Redactor,
};
use crate::{engine::Instant, view};

/// The programs that run, and what is to come after them.
pub struct Reloads {
    pins: Pins,
    policy: KernelPolicy,
    datapath: Datapath,
    level: LevelSwitch,
    redactor: Redactor,
    pending: Option<Pending>,
    trial: Trial,
    places: Places,
    lookout: Lookout,
    /// What was ordered meanwhile, the oldest first.
    waiting: VecDeque<Order>,
}

struct Pending {
    asker: Option<oneshot::Sender<view::Reload>>,
    purpose: Purpose,
    loading: JoinHandle<Result<Loaded, Refused>>,
}

/// What a configuration is loaded for.
enum Purpose {
    /// To stay.
    Stay,
    /// To be tried.
    Try(Box<Candidate>),
    /// To end a trial.
    EndTrial,
}

impl Reloads {
    /// Keeps the programs that run, so that they can be put back.
    pub fn new(
        pins: Pins,
        policy: KernelPolicy,
        datapath: Datapath,
        level: LevelSwitch,
        redactor: Redactor,
        trial: Trial,
        interfaces: &[String],
    ) -> Self {
        let attachments = datapath::attachments(&pins);
        Self {
            pins,
            policy,
            datapath,
            level,
            redactor,
            pending: None,
            trial,
            places: Places::of(interfaces, &attachments),
            lookout: Lookout::new(std::time::Instant::now()),
            waiting: VecDeque::new(),
        }
    }

    /// The programs that run.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Does what it is told, now or once it is done with what it does.
    pub fn obey(&mut self, command: Command, core: &mut Core) {
        match command {
            Command::Load(order) => self.order(order, core),
            Command::Confirm(asker) => {
                let is_going_back = self.pending.as_ref().is_some_and(Pending::ends_trial);
                let confirmed = match is_going_back {
                    true => Err(NothingWaits),
                    false => self.trial.confirm(&core.config().path),
                };
                if confirmed.is_ok() {
                    core.set_unconfirmed(None);
                }
                // The asker may have gone.
                let _ = asker.send(confirmed);
            }
            Command::RollBack(asker) => match self.trial.before() {
                Some(before) => {
                    let order = Order {
                        source: Source::Before(Box::new(before)),
                        asker: Some(asker),
                    };
                    self.order(order, core);
                }
                None => {
                    let refused = Refused::from(ReloadError::from(NothingWaits));
                    let _ = asker.send(refusal(&core.config().path, refused));
                }
            },
        }
    }

    /// When [`Self::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_going_back = self.pending.as_ref().is_some_and(Pending::ends_trial);
        self.trial.deadline().filter(|_| !is_going_back)
    }

    /// Goes back from a configuration that nobody has confirmed in time.
    pub fn handle_timeout(&mut self, now: Instant, core: &Core) {
        let Some(before) = self.trial.take_overdue(now) else {
            return;
        };
        tracing::warn!("nobody has confirmed the configuration: going back");
        let order = Order {
            source: Source::Before(Box::new(before)),
            asker: None,
        };
        if self.pending.is_none() {
            self.begin(order, core);
        } else {
            self.waiting.push_front(order);
        }
    }

    /// Begins to prepare another configuration, or remembers the order where one is being prepared. What is in force stays so until
    /// [`Self::finish`].
    fn order(&mut self, order: Order, core: &Core) {
        if self.pending.is_none() {
            self.begin(order, core);
        } else {
            // Several that nobody waits for are one.
            let is_again = matches!(order.source, Source::Again);
            let is_there = self.waiting.iter().any(|waiting| {
                waiting.asker.is_none() && matches!(waiting.source, Source::Again) == is_again
            });
            if order.asker.is_some() || !is_there {
                self.waiting.push_back(order);
            }
        }
    }

    fn begin(&mut self, order: Order, core: &Core) {
        if let Err(error) = self.check(&order.source, core) {
            let answer = refusal(&core.config().path, error.into());
            report(&answer);
            if let Some(asker) = order.asker {
                let _ = asker.send(answer);
            }
            if let Some(order) = self.waiting.pop_front() {
                self.begin(order, core);
            }
            return;
        }
        let in_force = InForce {
            config: core.config().clone(),
            settings: core.settings().clone(),
            policy: self.policy.clone(),
        };
        tracing::info!(path = %in_force.config.path.display(), "reloading");
        let pins = self.pins.clone();
        let purpose = match &order.source {
            Source::File => Purpose::Stay,
            Source::Text {
                file,
                text,
                patience,
            } => Purpose::Try(Box::new(Candidate {
                file: file.clone(),
                text: text.clone(),
                before: in_force.config.clone(),
                patience: *patience,
            })),
            Source::Before(_) => Purpose::EndTrial,
            Source::Again => Purpose::Stay,
        };
        let loading = tokio::task::spawn_blocking(move || prepare(&order.source, &in_force, &pins));
        self.pending = Some(Pending {
            asker: order.asker,
            purpose,
            loading,
        });
    }

    /// Whether this is the time for it.
    fn check(&self, source: &Source, core: &Core) -> Result<(), ReloadError> {
        match (source, self.trial.file()) {
            (Source::File | Source::Text { .. }, Some(file)) => Err(ReloadError::Waits {
                file: file.to_owned(),
            }),
            (Source::Before(_), None) => Err(NothingWaits.into()),
            (Source::Text { file, .. }, None) => {
                let is_same = std::fs::canonicalize(&core.config().path)
                    .is_ok_and(|config| config == Path::new(file));
                match is_same {
                    true => Err(ReloadError::NoCopy { file: file.clone() }),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether something is being loaded.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Lets go of what was begun, because the daemon ends: whoever ordered it hears so, and what it has pinned beside the rest goes. The
    /// process would wait for the load in any case.
    pub async fn abandon(&mut self) {
        self.waiting.clear();
        let Some(Pending { asker, loading, .. }) = self.pending.take() else {
            return;
        };
        drop(asker);
        let _ = loading.await;
        tracing::info!("what was being loaded is not in force");
        self.pins.give_up_pending();
    }

    /// Waits until what was begun can be finished; for ever where nothing was. Cancelling the wait loses nothing.
    pub async fn wait(&mut self) -> Prepare {
        match &mut self.pending {
            Some(pending) => Prepare((&mut pending.loading).await),
            None => std::future::pending().await,
        }
    }

    /// Puts what was prepared in force, or says why not. The engine must have read what it can by now. Tells whether other programs run
    /// than before.
    pub fn finish(&mut self, prepared: Prepare, core: &mut Core) -> bool {
        let (asker, purpose) = match self.pending.take() {
            Some(pending) => (pending.asker, pending.purpose),
            None => (None, Purpose::Stay),
        };
        let result = prepared
            .0
            .unwrap_or_else(|error| Err(ReloadError::from(error).into()));
        let path = core.config().path.clone();
        let mut is_other = false;
        let answer = match result {
            Ok(Loaded::Same { warnings }) => Ok(view::Reload {
                ok: true,
                warnings,
                ..empty(&path)
            }),
            Ok(Loaded::Other(prepared)) => {
                let done = self.take_over(*prepared, core);
                is_other = done.is_ok();
                done
            }
            Err(refused) => Err(refused),
        };
        let mut answer = answer.unwrap_or_else(|refused| refusal(&path, refused));
        match purpose {
            Purpose::Try(candidate) => {
                answer.file.clone_from(&candidate.file);
                if answer.ok {
                    answer.confirm_within_seconds = Some(candidate.patience.as_secs_f64());
                    self.trial.begin(*candidate, clock::now());
                }
            }
            Purpose::EndTrial if answer.ok => self.trial.end(),
            Purpose::EndTrial => self.trial.postpone(clock::now()),
            Purpose::Stay => {}
        }
        core.set_unconfirmed(self.trial.view());
        report(&answer);
        if let Some(asker) = asker {
            // The asker may have gone.
            let _ = asker.send(answer);
        }
        if let Some(order) = self.waiting.pop_front() {
            self.begin(order, core);
        }
        is_other
    }

    fn take_over(&mut self, prepared: Prepared, core: &mut Core) -> Result<view::Reload, Refused> {
        let Prepared {
            config,
            settings,
            policy,
            outer,
            capacity,
            mut datapath,
            changes,
            warnings,
            is_again,
        } = prepared;
        let (old, pins) = (&mut self.datapath, &self.pins);
        // Nobody has ordered that something is not filtered any more.
        let kept: Vec<Index> = match is_again {
            true => datapath::attachments(pins)
                .iter()
                .map(|attachment| attachment.index)
                .collect(),
            false => self.places.renamed(),
        };
        let names = config.interfaces.clone();
        let mode = config.xdp;
        let (level, redact) = (config.log.level, config.privacy.redact);
        let path = config.path.clone();
        let next = Next {
            config,
            settings,
            policy: &policy,
            outer,
            capacity,
        };
        let done = core.succeed(&mut datapath, next, |datapath| {
            let mut interfaces = present(&names)?;
            interfaces.extend(kept.iter().filter_map(|index| interface::name(*index)));
            interfaces.sort_unstable();
            interfaces.dedup();
            datapath.take_over(old, pins, &interfaces, mode)
        });
        let effect = match done {
            Ok(effect) => effect,
            Err(error) => {
                pins.give_up_pending();
                return Err(Refused {
                    errors: vec![unplaced(&error)],
                    warnings,
                    changes,
                });
            }
        };
        if let Err(error) = datapath.commit(pins) {
            tracing::error!(%error, "the next start will not find what is in force now");
        }
        super::detach_others(pins, core.config(), &kept);
        let attachments = datapath::attachments(pins);
        self.places.settle(&core.config().interfaces, &attachments);
        core.set_places(self.places.all());
        self.level.set(level);
        self.redactor
            .configure(redact, &core.settings().pbx.addresses);
        self.datapath = datapath;
        self.policy = policy;
        Ok(view::Reload {
            ok: true,
            changes: changes.iter().map(change_view).collect(),
            calls_ended: effect.calls_ended,
            pinholes_closed: effect.pinholes_closed,
            warnings,
            ..empty(&path)
        })
    }
}

impl Pending {
    fn ends_trial(&self) -> bool {
        matches!(self.purpose, Purpose::EndTrial)
    }
}

/// What [`Reloads::wait`] waited for.
pub struct Prepare(Result<Result<Loaded, Refused>, tokio::task::JoinError>);
