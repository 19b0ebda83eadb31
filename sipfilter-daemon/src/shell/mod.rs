//! The shell around the engine: kernel programs, maps, ring buffer, clock, control socket and signals.
//!
//! [`run`] is the daemon: it sets up, then one task owns engine and pinholes until a signal ends it. Nothing is attached before
//! everything that can fail has been tried; what is attached outlives the process, and the next one takes it over.

pub mod api;
pub mod capture;
pub mod clock;
pub mod core;
pub mod counters;
pub mod credentials;
pub mod datapath;
pub mod delay;
mod descriptors;
pub mod ephemeral;
pub mod feed;
pub mod fullness;
pub mod harm;
pub mod interface;
pub mod ledger;
pub mod logging;
pub mod map_writer;
pub mod metrics;
pub mod notify;
pub mod outer;
pub mod pcapng;
pub mod pins;
pub mod policy;
pub mod pressure;
pub mod privacy;
pub mod privileges;
pub mod provisional;
pub mod record;
pub mod reload;
mod reread;
pub mod rtnetlink;
pub mod runtime_dir;
pub mod sample;
pub mod sampler;
pub mod scope;
pub mod sessions;
pub mod signals;
pub mod slots;
mod source_filter;
pub mod traffic;
pub mod watch;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use aya_log::EbpfLogger;
use sipfilter_common::abi::map;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle, time::MissedTickBehavior};

use self::{
    api::{Channels, Control, Question, SocketThread},
    capture::Capture,
    core::{About, Core, Kernel, Keys, Watch},
    counters::Counters,
    datapath::{Attached, Attachment, Datapath, Found},
    feed::Feed,
    interface::{Asker, Index},
    ledger::Ledger,
    logging::{Lines, Log},
    map_writer::MapWriter,
    notify::Manager,
    outer::Outer,
    pins::Pins,
    policy::KernelPolicy,
    pressure::Pressure,
    privacy::Redactor,
    provisional::Provisionals,
    reload::{Command, Order, Reloads, Source, Trial, places::Places},
    rtnetlink::{Changes, LinkEvents},
    runtime_dir::RuntimeDir,
    sampler::Sampler,
    signals::{Ending, Hangup, Termination},
};
use crate::{
    config::{Config, OnStop, XdpMode},
    engine::settings::{Enforcement, Settings},
};

/// How often lost copies and limited sources are looked for.
const LOSS_CHECK: Duration = Duration::from_secs(1);

/// Filters until a signal ends it.
///
/// # Errors
/// Whatever keeps the daemon from filtering; the text says what to do. What an earlier run has left attached still is.
pub async fn run(
    config: Config,
    runtime_dir: &Path,
    log: Log,
    redactor: Redactor,
) -> anyhow::Result<()> {
    let started = clock::now();
    let mut manager = Manager::of_environment(started);
    let present = interface::present(&config.interfaces)?;
    let settings = config.resolve(interface::addresses_if_there)?;
    redactor.configure(config.privacy.redact, &settings.pbx.addresses);
    let mut policy = KernelPolicy::new(&settings);
    let outer = Outer::find(&settings.pbx.addresses, &present);
    policy.settings.outer = outer.indices();
    let capacity = u32::try_from(settings.limits.pinholes)
        .context("`pinholes` under [limits] is too large")?;

    for interface in interface::absent(&config.interfaces, &present) {
        let addresses = match config.settings.pbx.addresses.is_empty() {
            true => ", and its own addresses are protected then",
            false => "",
        };
        tracing::warn!(
            interface,
            "there is no such interface: it is filtered as soon as there is{addresses}; if that is no name of one, correct `interfaces`"
        );
    }
    if let Some(warning) = ephemeral::overlap(&settings) {
        tracing::warn!("{warning}");
    }
    if settings.filtering.enforcement == Enforcement::Observe {
        tracing::warn!(
            "enforcement = \"observe\": everything is judged and counted, and NOTHING IS DROPPED"
        );
    }
    for warning in sessions::not_allowed(&settings) {
        tracing::warn!("{warning}");
    }
    privileges::check()?;
    let runtime_dir = RuntimeDir::lock(runtime_dir)?;
    let mut termination = Termination::new().context("cannot handle signals")?;
    let mut hangup = Hangup::new().context("cannot handle signals")?;
    let pins = Pins::of_runtime_dir(runtime_dir.path());
    pins.create()?;
    let _pins_lock = pins.lock()?;
    let mut datapath = Datapath::load(&policy, capacity, Some(&pins))?;
    report_found(datapath.found, &pins);
    let mut logger = spawn_kernel_logger(&mut datapath);
    let (writer, inheritance) =
        MapWriter::inheriting(&mut datapath, capacity, &settings.providers)?;
    let provisionals = Provisionals::new(&mut datapath, &policy)?;
    let counters = datapath.take(map::COUNTERS)?;
    let pressure = Pressure::new(&mut datapath, &counters, outer)?;
    let mut capture = Capture::new(&mut datapath)?;
    let (questions, mut asked) = mpsc::channel(api::QUEUE);
    let (orders, mut ordered) = mpsc::channel(api::QUEUE);
    let (configuring, mut configurations) = mpsc::channel(api::QUEUE);
    let watch = watch(&settings, redactor.clone(), log.lines);
    let sockets = SocketThread::start().context("no thread for the control sockets")?;
    let metrics = serve_metrics(config.metrics, questions.clone(), sockets.handle()).await;
    let mut control = Control::open(
        runtime_dir,
        Channels {
            questions,
            orders,
            configuring,
            watch: watch.clone(),
        },
        sockets.handle(),
    )?;

    let attached = attach(&mut datapath, &pins, &present, config.xdp).inspect_err(|_| {
        // What an earlier run left is worth keeping; what this one made is not.
        pins.give_up_pending();
    })?;
    datapath.commit(&pins)?;
    detach_others(&pins, &config, &[]);
    let mut sampler = take_samples(&mut datapath, &pins, &watch);
    let keys = Keys {
        hash: hash_key(),
        label: datapath.label_key(),
    };
    let about = About {
        places: Places::of(&config.interfaces, &datapath::attachments(&pins)).all(),
        config,
        attached,
        started,
        unconfirmed: None,
    };
    let kernel = Kernel {
        writer,
        inheritance,
        provisionals,
        counters,
        pressure,
    };
    let mut core = Core::new(settings, keys, kernel, about, watch.clone());
    let mut reloads = Reloads::new(
        pins.clone(),
        policy,
        datapath,
        log.level,
        redactor,
        Trial::after_start(control.runtime_dir()),
        &core.config().interfaces,
    );
    let mut links = LinkEvents::new()
        .inspect_err(|error| {
            tracing::warn!(%error, "interfaces that come back are seen once a second only");
        })
        .ok();
    tracing::info!("ready");

    manager.ready(&filtering(&core));

    let pace = manager.pace().unwrap_or(LOSS_CHECK);
    let mut losses = tokio::time::interval(LOSS_CHECK.min(pace));
    losses.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let ending = loop {
        let deadline = core.poll_timeout();
        tokio::select! {
            read = capture.read(|time, input| core.handle(time, input)) => read.context("the ring buffers of signalling copies")?,
            () = sleep_until(deadline) => core.handle_timeout(clock::now()),
            // Which of what is ready comes first is chance. Whoever asks about a step of a call has seen it, so the daemon looks first, too.
            Some(question) = asked.recv(), if core.has_room() => {
                capture.read_ready(|time, input| core.handle(time, input));
                core.answer(question);
            }
            Some(order) = ordered.recv() => {
                capture.read_ready(|time, input| core.handle(time, input));
                core.obey(order);
            }
            // Whatever else is ready comes first: the task gives way, and looks again.
            () = tokio::task::yield_now(), if core.has_work() => core.work(),
            _ = losses.tick() => {
                core.check_losses();
                control.check();
                reloads.check_interfaces(&Changes::default(), &mut core);
            }
            changes = changed(&mut links) => reloads.check_interfaces(&changes, &mut core),
            () = hangup.wait() => reloads.obey(Command::Load(Order { source: Source::File, asker: None }), &mut core),
            Some(command) = configurations.recv() => reloads.obey(command, &mut core),
            () = sleep_until(reloads.poll_timeout()) => reloads.handle_timeout(clock::now(), &core),
            prepared = reloads.wait() => {
                // What is known of calls must be in the pinholes that the next programs are led to.
                capture.read_ready(|time, input| core.handle(time, input));
                if reloads.finish(prepared, &mut core) {
                    if let Some(logger) = logger.take() {
                        logger.abort();
                    }
                    logger = spawn_kernel_logger(reloads.datapath());
                    // The programs that the old one looked at are gone.
                    drop(sampler.take());
                    watch.drops.lock().reconfigure(core.settings());
                    sampler = take_samples(reloads.datapath(), &pins, &watch);
                }
            }
            ending = termination.wait() => break ending,
        }
        manager.turn_ended(clock::now());
        manager.loading(reloads.is_busy(), || filtering(&core));
    };
    manager.stopping();
    control.stop();
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    end(ending, core.config().on_stop, &pins);
    reloads.abandon().await;
    control.unlink();
    Ok(())
}

async fn changed(links: &mut Option<LinkEvents>) -> Changes {
    match links {
        Some(links) => links.wait().await,
        None => std::future::pending().await,
    }
}

/// The ledger of drops and the feed of what happens.
fn watch(settings: &Settings, redactor: Redactor, log: Lines) -> Watch {
    Watch {
        log,
        redactor,
        feed: Feed::default(),
        drops: Ledger::new(settings, SystemTime::now()),
    }
}

/// Begins to look at samples of what is dropped. The filter does not depend on it.
fn take_samples(datapath: &mut Datapath, pins: &Pins, watch: &Watch) -> Option<Sampler> {
    let counters = pins
        .open(map::COUNTERS)
        .map_err(anyhow::Error::from)
        .and_then(|map| Ok(Counters::try_from(map)?));
    let sampler = counters.and_then(|counters| {
        let (drops, feed) = (watch.drops.clone(), watch.feed.clone());
        let sources = sampler::Sources::new(datapath, counters, drops, feed)?;
        Ok(Sampler::start(sources)?)
    });
    sampler
        .inspect_err(|error| {
            tracing::warn!(%error, "no samples of what is dropped: `drops` and `strangers` stay empty");
        })
        .ok()
}

/// What the service manager shows.
fn filtering(core: &Core) -> String {
    let interfaces = core.config().interfaces.iter();
    let (awaited, present): (Vec<_>, Vec<_>) = interfaces.partition(|name| core.awaits(name));
    let names = |names: Vec<&String>| {
        names
            .into_iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match awaited.is_empty() {
        true => format!("filtering on {}", names(present)),
        false => format!(
            "filtering on {}; waiting for {}",
            names(present),
            names(awaited)
        ),
    }
}

/// The maps stay pinned in any case, for `sipfilterctl stats` and for the next start.
fn end(ending: Ending, on_stop: OnStop, pins: &Pins) {
    match (ending, on_stop) {
        (Ending::Handover, _) => {
            tracing::info!("SIGUSR2: the programs stay attached for the next start");
        }
        (Ending::Stop(signal), OnStop::Keep) => {
            tracing::info!(
                signal,
                "stopping; the programs stay attached (on_stop = \"keep\"): calls in progress go on, new ones get no media; `sipfilterctl detach` ends this"
            );
        }
        (Ending::Stop(signal), OnStop::Detach) => {
            tracing::info!(signal, "stopping");
            detach_all(pins);
            tracing::info!("detached");
        }
    }
}

/// Takes the programs of an instance off every interface.
pub fn detach_all(pins: &Pins) {
    for Attachment { index } in datapath::attachments(pins) {
        datapath::detach(pins, index);
    }
}

/// What was to be filtered before, and is not now; `kept` is filtered all the same.
fn detach_others(pins: &Pins, config: &Config, kept: &[Index]) {
    let ours = Asker::new().and_then(|asker| {
        let indices = config.interfaces.iter().map(|name| asker.index(name));
        indices.collect::<io::Result<Vec<_>>>()
    });
    let ours: Vec<Index> = match ours {
        Ok(ours) => ours.into_iter().flatten().collect(),
        Err(error) => {
            tracing::warn!(%error, "what is not configured any more stays filtered: cannot ask for interfaces");
            return;
        }
    };
    for Attachment { index } in datapath::attachments(pins) {
        if !ours.contains(&index) && !kept.contains(&index) {
            let name = interface::name(index);
            tracing::info!(
                interface = name,
                index = index.0,
                "not configured, or gone: detached"
            );
            datapath::detach(pins, index);
        }
    }
}

fn report_found(found: Found, pins: &Pins) {
    let path = pins.directory().display();
    match found {
        Found::Nothing => {}
        Found::Same {
            modes: true,
            policy: true,
        } => tracing::info!(%path, "took over the pinned maps of an earlier run"),
        Found::Same { modes: true, .. } => {
            tracing::info!(%path, "took over the pinned maps of an earlier run; the policy has changed since")
        }
        Found::Same { modes: false, .. } => {
            tracing::info!(%path, "took over the pinned maps of an earlier run; the counters begin at zero, because enforcement, scope or egress changed")
        }
        Found::Resized(stamp) => tracing::info!(
            %path,
            before = stamp.pinholes,
            "moved the pinholes of an earlier run into maps of another size"
        ),
        Found::Different(stamp) => tracing::warn!(
            %path,
            abi_version = stamp.abi_version,
            "pinned maps of another version or shape are not read; new ones take their place, and calls that were in progress must be signalled again"
        ),
    }
}

/// Metrics are no reason not to filter: where they cannot be served, the log says so.
async fn serve_metrics(
    address: Option<SocketAddr>,
    questions: mpsc::Sender<Question>,
    thread: &Handle,
) -> Option<JoinHandle<Infallible>> {
    let address = address?;
    let bound = thread.spawn(metrics::bind(address)).await;
    match bound.unwrap_or_else(|error| Err(error.into())) {
        Ok(listener) => {
            tracing::info!(%address, "metrics for Prometheus");
            Some(thread.spawn(metrics::serve(listener, questions)))
        }
        Err(error) => {
            tracing::warn!(%address, %error, "no metrics: name another address with `listen` under [metrics], or \"off\"");
            None
        }
    }
}

/// The kernel programs' rare diagnostics, as log lines.
fn spawn_kernel_logger(datapath: &mut Datapath) -> Option<JoinHandle<()>> {
    let logger = EbpfLogger::init(datapath.ebpf())
        .map_err(io::Error::other)
        .and_then(watch::watch);
    let mut logger = match logger {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "no diagnostics from the kernel programs");
            return None;
        }
    };
    Some(tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }))
}

/// Puts the programs on every interface; the ones where nothing of ours is yet go first, because those can refuse.
fn attach(
    datapath: &mut Datapath,
    pins: &Pins,
    interfaces: &[String],
    mode: XdpMode,
) -> anyhow::Result<Vec<(String, Attached)>> {
    let known = datapath::attachments(pins);
    let is_known = |name: &String| {
        interface::index(name).is_some_and(|index| known.contains(&Attachment { index }))
    };
    let (known, new): (Vec<_>, Vec<_>) = interfaces.iter().partition(|name| is_known(name));
    let mut attached = Vec::new();
    for interface in new.into_iter().chain(known) {
        let how = datapath.attach_pinned(pins, interface, mode)?;
        match &how {
            Attached::Fallback { why } => {
                tracing::warn!(
                    interface,
                    why,
                    "attached in generic mode: the driver refused native XDP"
                );
            }
            Attached::Native | Attached::Generic => {
                tracing::info!(interface, mode = %how, "attached")
            }
        }
        attached.push((interface.clone(), how));
    }
    Ok(attached)
}

/// Keys the tables that peers could otherwise fill with colliding names.
pub fn hash_key() -> [u64; 2] {
    let mut bytes = [0; 16];
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        // Before the kernel has entropy, the time and the process are better than a constant.
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos() as u64);
        return [time, u64::from(std::process::id())];
    }
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes(rest),
    ]
}

async fn sleep_until(deadline: Option<crate::engine::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now())).await,
        None => std::future::pending().await,
    }
}
