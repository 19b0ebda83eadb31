//! Another configuration while the daemon runs: read, checked and loaded beside what is in force, then put in its place in one step.
//!
//! What takes time (reading, the kernel's check of the programs, filling maps) happens on a thread of its own, while the engine goes on.
//! What takes over is the engine's task alone, and takes a few milliseconds: it leads the new programs to the open pinholes, exchanges
//! the programs on every interface, and only then tells the engine. Invariant: until the programs are exchanged nothing has changed, and
//! whatever fails leaves it so; a packet meets either the old policy or the new one.

pub mod places;
mod trial;

use std::{collections::VecDeque, path::Path, time::Duration};

use tokio::{sync::oneshot, task::JoinHandle};

use places::Places;
use trial::Candidate;
pub use trial::Trial;

use super::{
    clock,
    core::{Core, succession::Next},
    datapath::{self, Attached, Attachment, Datapath, DatapathError, Occupied, Provisional},
    ephemeral,
    interface::{self, Index},
    interface_addresses,
    logging::LevelSwitch,
    outer::Outer,
    pins::Pins,
    policy::KernelPolicy,
    privacy::Redactor,
    rtnetlink::Changes,
    sessions,
};
use crate::{
    config::{Change, Config, Diagnostic, LoadError, ResolveError, XdpMode, changes},
    engine::{Instant, settings::Settings},
    error_text, view,
};

/// Where another configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The daemon's own file.
    File,
    /// This text, to be tried for so long.
    Text {
        /// Where it is from.
        file: String,
        /// What it says.
        text: String,
        /// How long it is in force unless it is confirmed.
        patience: Duration,
    },
    /// What was in force before the one that waits to be confirmed.
    Before(Box<Config>),
    /// What is in force, whose interfaces are others by now.
    Again,
}

/// An order to load another configuration. `asker` hears what became of it, unless it has gone.
#[derive(Debug)]
pub struct Order {
    /// Where it is.
    pub source: Source,
    /// Who wants to know.
    pub asker: Option<oneshot::Sender<view::Reload>>,
}

/// What can be told the task that owns the configuration.
#[derive(Debug)]
pub enum Command {
    /// Load another one.
    Load(Order),
    /// Keep the one that waits for it.
    Confirm(oneshot::Sender<Result<view::Confirmed, NothingWaits>>),
    /// Go back from it.
    RollBack(oneshot::Sender<view::Reload>),
}

/// There is no configuration to confirm.
#[derive(Debug, thiserror::Error)]
#[error(
    "no configuration waits to be confirmed; `sipfilterctl apply FILE` tries one, and the log says what became of the last"
)]
pub struct NothingWaits;

/// What is in force, for whoever prepares what comes after it.
#[derive(Debug, Clone)]
struct InForce {
    config: Config,
    settings: Settings,
    policy: KernelPolicy,
}

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

/// A configuration that can be put in force.
enum Loaded {
    /// It says what is in force already.
    Same { warnings: Vec<view::Problem> },
    /// It says something else, and its programs are loaded.
    Other(Box<Prepared>),
}

struct Prepared {
    config: Config,
    settings: Settings,
    policy: KernelPolicy,
    outer: Outer,
    capacity: u32,
    datapath: Datapath,
    changes: Vec<Change>,
    warnings: Vec<view::Problem>,
    is_again: bool,
}

/// A configuration that cannot.
struct Refused {
    errors: Vec<view::Problem>,
    warnings: Vec<view::Problem>,
    changes: Vec<Change>,
}

/// Why a configuration that is good in itself cannot take the place of the one in force.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// A key that is read at the start only.
    #[error(
        "`{key}` cannot change while the daemon runs; restart sipfilterd for it (calls in progress go on)"
    )]
    Fixed { key: &'static str },
    /// What it says of interfaces does not hold here.
    #[error(transparent)]
    Resolve(#[from] ResolveError<std::io::Error>),
    /// The programs cannot be loaded or attached.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Another one is being tried.
    #[error(
        "{file} waits to be confirmed: `sipfilterctl confirm` keeps it, `sipfilterctl rollback` goes back; then try again"
    )]
    Waits { file: String },
    /// The file that the next start reads.
    #[error(
        "{file} is the configuration file, which the next start reads whether or not it was confirmed; apply a copy of it: `sipfilterctl confirm` puts that in its place"
    )]
    NoCopy { file: String },
    /// Nothing is being tried.
    #[error(transparent)]
    NothingWaits(#[from] NothingWaits),
    /// More than there can be.
    #[error("`pinholes` under [limits] is too large")]
    Pinholes,
    /// The thread that prepares it is gone.
    #[error("it could not be prepared: {0}")]
    Thread(#[from] tokio::task::JoinError),
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
        Self {
            pins,
            policy,
            datapath,
            level,
            redactor,
            pending: None,
            trial,
            places: Places::of(interfaces),
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

    /// Looks whether the configured interfaces are those that are filtered. One that was deleted and made again gets the programs that run
    /// at once; whatever else follows from it for them, another load brings.
    pub fn check_interfaces(&mut self, changes: &Changes, core: &mut Core) {
        let before = self.places.all();
        self.places.forget(changes);
        let mut is_anew = false;
        for name in self.places.look() {
            match self.filter_anew(&name, core.config().xdp) {
                Ok((index, attached)) => {
                    self.places.attached(&name, index);
                    core.set_attached(&name, attached);
                    is_anew = true;
                }
                Err(error) => self.places.refused(&name, error_text::with_causes(&error)),
            }
        }
        let places = self.places.all();
        if is_anew || places != before {
            for Attachment { index } in datapath::attachments(&self.pins) {
                if interface::name(index).is_none() {
                    datapath::detach(&self.pins, index);
                }
            }
            core.set_places(places);
        }
        if is_anew {
            let config = core.config();
            let outer = Outer::find(&core.settings().pbx.addresses, &present(&config.interfaces));
            if outer.indices() != self.policy.settings.outer {
                self.order(
                    Order {
                        source: Source::Again,
                        asker: None,
                    },
                    core,
                );
            }
        }
    }

    fn filter_anew(
        &mut self,
        name: &str,
        mode: XdpMode,
    ) -> Result<(Index, Attached), DatapathError> {
        let index = interface::check(name)?;
        let is_ours = datapath::attachments(&self.pins).contains(&Attachment { index });
        if !is_ours && let Some(occupied) = Occupied::look(name, index) {
            // To try is to wait for whoever is about to leave, and the engine's task must not.
            return Err(DatapathError::Occupied(Box::new(occupied)));
        }
        // A link of an earlier one of this number is dead, and says so.
        let attached = self.datapath.attach_pinned(&self.pins, name, mode)?;
        Ok((index, attached))
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
        if let Err(error) = self.pins.remove_pending() {
            tracing::warn!(%error, "maps stay pinned");
        }
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
        let mut interfaces = present(&config.interfaces);
        interfaces.extend(kept.iter().filter_map(|index| interface::name(*index)));
        interfaces.sort_unstable();
        interfaces.dedup();
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
            datapath.take_over(old, pins, &interfaces, mode)
        });
        let effect = match done {
            Ok(effect) => effect,
            Err(error) => {
                if let Err(error) = pins.remove_pending() {
                    tracing::warn!(%error, "maps stay pinned");
                }
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
        self.places.settle(&core.config().interfaces);
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

impl From<ReloadError> for Refused {
    fn from(error: ReloadError) -> Self {
        Self {
            errors: vec![unplaced(&error)],
            warnings: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// Everything that can fail and does not touch what runs.
fn prepare(source: &Source, in_force: &InForce, pins: &Pins) -> Result<Loaded, Refused> {
    let path = &in_force.config.path;
    let config = match source {
        Source::File => Config::load(path),
        Source::Text { file, text, .. } => Config::parse_for(Path::new(file), path, text),
        Source::Before(config) => Ok(Config::clone(config)),
        Source::Again => Ok(in_force.config.clone()),
    };
    let config = config.map_err(|error| Refused {
        errors: problems(&error),
        warnings: Vec::new(),
        changes: Vec::new(),
    })?;
    let mut changes = changes(&in_force.config, &config);
    let mut warnings: Vec<view::Problem> = config.warnings.iter().map(problem).collect();
    let refuse = |error: ReloadError, changes: &[Change], warnings: &[view::Problem]| Refused {
        errors: vec![unplaced(&error)],
        warnings: warnings.to_vec(),
        changes: changes.to_vec(),
    };
    warnings.extend(
        config
            .interfaces
            .iter()
            .filter(|name| interface::index(name).is_none())
            .map(|name| {
                spoken(&format!(
                    "interface {name:?} is not there; it is filtered as soon as it is"
                ))
            }),
    );
    let checked = check(&config, in_force, source);
    let Checked {
        settings,
        policy,
        outer,
        capacity,
    } = checked.map_err(|error| refuse(error, &changes, &warnings))?;
    warnings.extend(
        ephemeral::overlap(&settings)
            .into_iter()
            .map(|warning| spoken(&warning.to_string())),
    );
    warnings.extend(
        sessions::not_allowed(&settings)
            .iter()
            .map(|warning| spoken(&warning.to_string())),
    );
    let written = |settings: &Settings| -> Vec<String> {
        let addresses = settings.pbx.addresses.iter();
        addresses.map(ToString::to_string).collect()
    };
    if !changes.iter().any(|change| change.key == ADDRESSES) {
        // They may be the interfaces' own, and those may be others by now.
        let (before, after) = (written(&in_force.settings), written(&settings));
        changes.extend(Change::of_lists(ADDRESSES, &before, &after));
    }
    let is_again = matches!(source, Source::Again);
    if !is_again && changes.is_empty() && settings == in_force.settings && policy == in_force.policy
    {
        return Ok(Loaded::Same { warnings });
    }
    let provisional = if keeps_numbers(&in_force.settings, &settings) {
        Provisional::Kept
    } else {
        Provisional::New
    };
    let datapath = Datapath::load_beside(&policy, capacity, pins, provisional)
        .map_err(|error| refuse(error.into(), &changes, &warnings))?;
    Ok(Loaded::Other(Box::new(Prepared {
        config,
        settings,
        policy,
        outer,
        capacity,
        datapath,
        changes,
        warnings,
        is_again,
    })))
}

const ADDRESSES: &str = "pbx.addresses";

/// What a configuration means here and now.
struct Checked {
    settings: Settings,
    policy: KernelPolicy,
    outer: Outer,
    capacity: u32,
}

/// Interfaces that are not there are waited for only where they were before, so that no misspelt name goes unnoticed.
fn check(config: &Config, in_force: &InForce, source: &Source) -> Result<Checked, ReloadError> {
    let before = &in_force.config;
    for (key, is_same) in [
        ("log.format", config.log.format == before.log.format),
        ("metrics.listen", config.metrics == before.metrics),
    ] {
        if !is_same {
            return Err(ReloadError::Fixed { key });
        }
    }
    for name in &config.interfaces {
        match interface::check(name) {
            Err(DatapathError::NoInterface(_))
                if before.interfaces.contains(name) || matches!(source, Source::Before(_)) => {}
            checked => {
                checked?;
            }
        }
    }
    let settings = match source {
        // Those of an interface that has just been made may not be there yet.
        Source::Again => in_force.settings.clone(),
        _ => config.resolve(|name| match interface::index(name) {
            Some(_) => interface_addresses(name),
            None => Ok(Vec::new()),
        })?,
    };
    let mut policy = KernelPolicy::new(&settings);
    let outer = Outer::find(&settings.pbx.addresses, &present(&config.interfaces));
    policy.settings.outer = outer.indices();
    let capacity = u32::try_from(settings.limits.pinholes).map_err(|_| ReloadError::Pinholes)?;
    Ok(Checked {
        settings,
        policy,
        outer,
        capacity,
    })
}

fn present(interfaces: &[String]) -> Vec<String> {
    let is_there = |name: &&String| interface::index(name).is_some();
    interfaces.iter().filter(is_there).cloned().collect()
}

/// Whether protected addresses and providers have the numbers that they had. More providers behind them do no harm.
fn keeps_numbers(before: &Settings, after: &Settings) -> bool {
    let mut providers = before.providers.iter().zip(&after.providers);
    before.pbx.addresses == after.pbx.addresses
        && before.providers.len() <= after.providers.len()
        && providers.all(|(before, after)| before.name == after.name)
}

fn report(answer: &view::Reload) {
    for warning in &answer.warnings {
        tracing::warn!("{}", warning.message);
    }
    for error in &answer.errors {
        match &error.place {
            Some(place) => {
                tracing::error!("{}:{}: {}", place.file, place.line, error.message);
            }
            None => tracing::error!("{}", error.message),
        }
    }
    if !answer.ok {
        tracing::error!("nothing has changed");
        return;
    }
    for view::Change {
        key,
        removed,
        added,
    } in &answer.changes
    {
        tracing::info!(key, ?removed, ?added, "changed");
    }
    tracing::info!(
        file = answer.file,
        changes = answer.changes.len(),
        calls_ended = answer.calls_ended,
        pinholes_closed = answer.pinholes_closed,
        "reloaded"
    );
}

fn refusal(path: &Path, refused: Refused) -> view::Reload {
    view::Reload {
        errors: refused.errors,
        warnings: refused.warnings,
        changes: refused.changes.iter().map(change_view).collect(),
        ..empty(path)
    }
}

fn empty(path: &Path) -> view::Reload {
    view::Reload {
        ok: false,
        file: path.display().to_string(),
        changes: Vec::new(),
        calls_ended: 0,
        pinholes_closed: 0,
        confirm_within_seconds: None,
        errors: Vec::new(),
        warnings: Vec::new(),
    }
}

fn change_view(change: &Change) -> view::Change {
    view::Change {
        key: change.key.clone(),
        removed: change.removed.clone(),
        added: change.added.clone(),
    }
}

fn problems(error: &LoadError) -> Vec<view::Problem> {
    match error.diagnostics() {
        [] => vec![unplaced(error)],
        some => some.iter().map(problem).collect(),
    }
}

fn problem(diagnostic: &Diagnostic) -> view::Problem {
    view::Problem {
        place: Some(view::ProblemPlace {
            file: diagnostic.file.name.clone(),
            line: diagnostic.line(),
            column: diagnostic.column(),
            key: diagnostic.key.clone(),
        }),
        message: format!("{}; {}", diagnostic.message, diagnostic.help),
        text: diagnostic.to_string(),
    }
}

fn unplaced(error: &(dyn std::error::Error + 'static)) -> view::Problem {
    spoken(&error_text::with_causes(error))
}

fn spoken(message: &str) -> view::Problem {
    view::Problem {
        place: None,
        message: message.to_owned(),
        text: message.to_owned(),
    }
}
