//! One running node: everything that `tandem run` and `tandem demo` start, in order, and how it stops.
//!
//! Invariant: whatever can be wrong is found before the first socket serves anybody; a node that
//! started stops by itself and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::command::assemble::{self, Ground};
use crate::command::check::{Report, judge};
use crate::config::{Config, OrderCore};
use crate::dialplan::Mistake;
use crate::edge::certificate::{self, DtlsCertificate};
use crate::edge::driver::{self, Driver, Ends, Handle, Lookup, Outlets};
use crate::edge::log::EventsFile;
use crate::edge::media::{MediaConfig, MediaPlane, Sounds, sounds};
use crate::edge::metrics::Metrics;
use crate::edge::orders::{CoreConfig, Courier, core_http};
use crate::edge::replays::Replays;
use crate::edge::sip::udp::Udp;
use crate::edge::store::{Store, StoreConfig};
use crate::edge::thread::EngineThread;
use crate::edge::web::control::Control;
use crate::edge::web::{self, Listening, Web};
use crate::edge::{clock, limits};
use crate::engine::{Engine, Input};
use crate::media::command::{Counts, Event as MediaEvent};
use crate::media::dtls::Identity;
use crate::report::Board;
use crate::terms::Secret;

/// Media events that may wait for the engine.
const MEDIA_EVENTS: usize = 16_384;
/// Facts older than this are forgotten; call records and orders are not.
const FACTS_KEPT_MS: i64 = 90 * 24 * 3_600_000;
/// How often that is done.
const HOUSEKEEPING: Duration = Duration::from_secs(24 * 3_600);
/// How long providers have to answer that this node leaves.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often values that histograms were told are counted.
const METRICS_TIDIED: Duration = Duration::from_secs(5);
/// Look-ups of customers under way at once.
const LOOKUPS_AT_ONCE: usize = 32;

/// What a node is started with beside its configuration.
#[derive(Debug, Clone)]
pub struct Start {
    /// The configuration, already checked.
    pub config: Config,
    /// Where it came from, to read it again on `SIGHUP`.
    pub file: Option<PathBuf>,
    /// The folder of dialplans and sounds; those that come with Tandem where there is none.
    pub dialplans: PathBuf,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// To talk to it.
    pub handle: Handle,
    /// Where its web listens.
    pub web: SocketAddr,
    /// Where its SIP over UDP listens.
    pub sip: Option<SocketAddr>,
    start: Start,
    ground: Ground,
    stop: watch::Sender<bool>,
    web_stop: axum_server::Handle<SocketAddr>,
    tasks: Tasks,
    thread: EngineThread,
}

/// What runs, by how it ends.
#[derive(Debug, Default)]
struct Tasks {
    /// Carries from one to another and has nothing of its own to finish: ended at once.
    carrying: Vec<JoinHandle<()>>,
    /// Ends by itself after it was told to stop; waited for in this order.
    finishing: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// In words that say what to do, when anything cannot be started.
    pub async fn start(start: Start) -> Result<Self> {
        let config = &start.config;
        limits::make_room(u64::from(config.limits.calls))?;
        install_crypto();
        let data_dir = &config.node.data_dir;
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("node.data_dir {}: cannot be made", data_dir.display()))?;
        let report = judge(config.clone(), &start.dialplans)
            .map_err(|errors: Vec<Mistake>| anyhow!(lines(&errors)))?;
        report.warnings.iter().for_each(|warning| warn!("{warning}"));
        let sounds = load_sounds(&report)?;
        let store = open_store(config).await?;
        let metrics = Metrics::new()?;
        let thread = EngineThread::start().context("the engine's thread cannot be started")?;
        let udp = {
            let _there = thread.enter();
            config.sip.udp.map(|address| bind_udp(address, &metrics)).transpose()?.map(Arc::new)
        };
        let listening = web::listen(config.web.listen).with_context(|| {
            format!("web.listen {}: cannot listen there; is a node running?", config.web.listen)
        })?;
        let (media_events, heard) = mpsc::channel(MEDIA_EVENTS);
        let plane = start_media(config, data_dir, sounds, media_events)?;
        let ground = lay_ground(config, &store, udp.as_deref(), &plane).await?;
        let mut setup = assemble::setup(config, report.plan, &ground).map_err(|words| anyhow!(words))?;
        let loaded = store.load(clock::wall_ms(), &BTreeSet::new()).await?;
        if !loaded.lost.is_empty() {
            warn!(
                "{} calls were under way when the last run ended: their records say `lost`",
                loaded.lost.len()
            );
        }
        setup.last_seq = loaded.last_seq;
        setup.cards = loaded.cards;
        Self::serve(start, ground, setup, Parts { store, metrics, thread, udp, listening, plane, heard })
    }

    fn serve(start: Start, ground: Ground, setup: crate::engine::Setup, parts: Parts) -> Result<Self> {
        let Parts { store, metrics, thread, udp, listening, plane, heard } = parts;
        let config = &start.config;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Tasks::default();
        let (writer, write) = store.writer();
        let zone = config.node.time_zone();
        let board = Board::new(assemble::roster(config), day_of(zone), clock::wall_ms());
        let (handle, ends) = driver::connect(board, ground.epoch, store.clone(), writer.health());
        let Ends { inbox, lookups } = ends;
        let writing = tokio::spawn(write);
        tasks.carrying.push(thread.spawn(give_media(heard, handle.clone(), metrics.clone())));
        if let Some(udp) = &udp {
            tasks.carrying.push(thread.spawn(Arc::clone(udp).run(handle.clone())));
        }
        let courier = start_courier(config, &store, &handle, stopped.clone(), &mut tasks)?;
        tasks.carrying.push(tokio::spawn(look_up(lookups, courier, handle.clone())));
        tasks.carrying.push(tokio::spawn(tell_sip_phones(store.clone(), handle.clone())));
        tasks.finishing.push(tokio::spawn(keep_house(store.clone(), stopped.clone())));
        tasks.carrying.push(tokio::spawn(tidy_metrics(metrics.clone())));
        let file = config.log.events.as_deref().map(EventsFile::open).transpose()?;
        let sip = udp.as_ref().map(|udp| udp.local());
        let replays = Replays::below(&config.node.data_dir, config.log.replays);
        let outlets = Outlets { plane, udp, writer, file, metrics: metrics.clone(), replays };
        let engine = Engine::new(setup.clone(), fresh_seed(), clock::now());
        let driver = Driver::new(engine, setup, &handle, inbox, outlets, fresh_seed);
        tasks.finishing.push(thread.spawn(driver.run(stopped.clone())));
        let local = listening.local;
        let web_stop = axum_server::Handle::new();
        let served = serve_web(config, &ground, &store, &handle, metrics, listening, web_stop.clone(), sip)?;
        // The writer ends when the driver has let go of it, with all that it was given.
        tasks.finishing.extend([served, writing]);
        let udp = sip.map_or("off".to_owned(), |at| at.to_string());
        info!("web and SIP over WebSocket at {local}, SIP over UDP at {udp}");
        Ok(Self { handle, web: local, sip, start, ground, stop, web_stop, tasks, thread })
    }

    /// Reads configuration and dialplans again; a mistake leaves everything as it is.
    pub async fn reload(&mut self) {
        match self.read_again() {
            Ok((config, setup, sounds)) => {
                self.handle.reload_sounds(sounds).await;
                self.handle.reload_board(assemble::roster(&config));
                self.handle.give(Input::Reload(Box::new(setup))).await;
                self.start.config = config;
                info!("trunks, queues, dialplans and sounds were read again");
            }
            Err(why) => error!("not reloaded, the old plan goes on:\n{why:#}"),
        }
    }

    fn read_again(&self) -> Result<(Config, crate::engine::Setup, Sounds)> {
        let config = match &self.start.file {
            Some(file) => Config::load(Some(file)).map_err(|errors: Vec<Mistake>| anyhow!(lines(&errors)))?,
            None => self.start.config.clone(),
        };
        let report = judge(config.clone(), &self.start.dialplans)
            .map_err(|errors: Vec<Mistake>| anyhow!(lines(&errors)))?;
        let sounds = load_sounds(&report)?;
        let setup = assemble::setup(&config, report.plan, &self.ground).map_err(|words| anyhow!(words))?;
        Ok((config, setup, sounds))
    }

    /// Refuses new calls, lets live ones end for at most `node.drain`, then stops.
    pub async fn drain_and_stop(self) {
        let drain = Duration::from_millis(self.start.config.node.drain_ms);
        self.handle.give(Input::Drain).await;
        if tokio::time::timeout(drain, self.handle.drained()).await.is_err() {
            warn!("calls were still alive after {} s: stopping all the same", drain.as_secs());
        }
        self.stop().await;
    }

    /// Stops now. Providers are told first: calls must not come to a node that is gone.
    pub async fn stop(self) {
        self.handle.give(Input::Leave).await;
        if tokio::time::timeout(FAREWELL, self.handle.left()).await.is_err() {
            warn!("a provider did not answer that we leave: its calls may come here until it forgets us");
        }
        self.web_stop.shutdown();
        self.stop.send_replace(true);
        drop(self.handle);
        self.tasks.carrying.iter().for_each(JoinHandle::abort);
        for task in self.tasks.finishing {
            let stopper = task.abort_handle();
            if tokio::time::timeout(Duration::from_secs(2), task).await.is_err() {
                stopper.abort();
            }
        }
        self.thread.stop().await;
    }
}

/// What was opened before anybody is served.
struct Parts {
    store: Store,
    metrics: Metrics,
    thread: EngineThread,
    udp: Option<Arc<Udp>>,
    listening: Listening,
    plane: MediaPlane,
    heard: mpsc::Receiver<(usize, MediaEvent)>,
}

/// The mistakes of a configuration file, one a line.
pub fn lines(errors: &[Mistake]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One TLS and crypto provider for everything in the process.
fn install_crypto() {
    // A second node in one process (tests) finds it installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A seed from the operating system.
///
/// A machine without entropy cannot make a safe identifier: the process ends, before any call.
fn fresh_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    if getrandom::fill(&mut seed).is_err() {
        error!("the operating system gives no randomness: nothing can be secured");
        std::process::exit(1);
    }
    seed
}

/// Which day of the local calendar a moment belongs to.
fn day_of(zone: jiff::tz::TimeZone) -> crate::report::DayOf {
    Arc::new(move |at| {
        let moment = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let date = zone.to_datetime(moment).date();
        i64::from(date.year()) * 1_000 + i64::from(date.day_of_year())
    })
}

/// Every sound of the dialplans, ready to be played.
fn load_sounds(report: &Report) -> Result<Sounds> {
    let mut sounds = Sounds::default();
    for sound in &report.sounds {
        let bytes = sound.bytes().with_context(|| format!("sound {}: cannot be read", sound.name))?;
        sounds = sounds.with(&sound.name, sounds::decode(&sound.name, &bytes)?);
    }
    Ok(sounds)
}

async fn open_store(config: &Config) -> Result<Store> {
    let store = StoreConfig {
        url: config.store.url.expose().clone(),
        data_dir: config.node.data_dir.clone(),
        max_pages: 0,
    };
    let store = Store::open(&store).await.context("the store cannot be opened")?;
    if !store.is_alone() {
        bail!(
            "another node runs on {}: stop it, or give this one its own node.data_dir",
            config.node.data_dir.display()
        );
    }
    Ok(store)
}

fn bind_udp(address: SocketAddr, metrics: &Metrics) -> Result<Udp> {
    Udp::bind(address, metrics.clone())
        .with_context(|| format!("sip.udp {address}: cannot listen there; is a node running?"))
}

fn start_media(
    config: &Config,
    data_dir: &Path,
    sounds: Sounds,
    events: mpsc::Sender<(usize, MediaEvent)>,
) -> Result<MediaPlane> {
    let media = &config.media;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if media.workers == 0 { cores.saturating_sub(1).max(1) } else { media.workers };
    let DtlsCertificate { certificate, key, .. } = certificate::dtls(data_dir)?;
    let identity = Identity { certificate, key };
    let bind = if config.web.listen.is_ipv6() {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    };
    let setup = MediaConfig {
        workers,
        webrtc_port: media.webrtc_port,
        address: bind,
        dscp: media.dscp,
        silence_alarm_ms: media.silence_alarm_ms,
        dead_after_ms: media.dead_after_ms,
        identity,
        sounds,
    };
    let words = || format!("media.webrtc_port {}: a worker's UDP port cannot be opened", media.webrtc_port);
    MediaPlane::start(setup, events).with_context(words)
}

async fn lay_ground(config: &Config, store: &Store, udp: Option<&Udp>, plane: &MediaPlane) -> Result<Ground> {
    let range = config.media.rtp_ports;
    let any = std::net::Ipv4Addr::UNSPECIFIED.into();
    let rtp_ports = plane.free_rtp_ports(any, range.first..=range.last);
    if rtp_ports.is_empty() {
        bail!("media.rtp_ports {}-{}: no even port with its next is free there", range.first, range.last);
    }
    let secret = store.pair_secret().await?;
    let pair_secret =
        secret.expose().as_slice().try_into().context("the pair's secret is not 32 bytes long")?;
    Ok(Ground {
        epoch: store.start().await?,
        last_seq: 0,
        pair_secret: Secret::new(pair_secret),
        udp: udp.map(Udp::local),
        rtp_ports,
        webrtc_ports: (0..plane.workers()).map(|worker| plane.webrtc_port(worker)).collect(),
        fingerprint: plane.fingerprint(),
    })
}

/// Carries what the workers say to the engine; their counts go to the metrics on the way.
async fn give_media(mut heard: mpsc::Receiver<(usize, MediaEvent)>, handle: Handle, metrics: Metrics) {
    let mut known: BTreeMap<usize, Counts> = BTreeMap::new();
    while let Some((worker, event)) = heard.recv().await {
        if let MediaEvent::Counts(counts) = &event {
            let before = known.insert(worker, *counts).unwrap_or_default();
            let grown = |of: fn(&Counts) -> u64| of(counts).saturating_sub(of(&before));
            metrics.rtp(grown(|all| all.received), grown(|all| all.sent), grown(|all| all.lost));
        }
        if !handle.give(Input::Media(event)).await {
            return;
        }
    }
}

fn start_courier(
    config: &Config,
    store: &Store,
    handle: &Handle,
    stopped: watch::Receiver<bool>,
    tasks: &mut Tasks,
) -> Result<Arc<Courier>> {
    let bases = match &config.orders.core {
        OrderCore::Embedded => vec!["embedded".to_owned()],
        OrderCore::At(bases) => bases.clone(),
    };
    let core = CoreConfig { bases, token: config.orders.token.clone(), timeout_ms: config.orders.timeout_ms };
    let (made, mut orders) = mpsc::channel(1_024);
    let courier = Arc::new(Courier::new(store.clone(), &core, Arc::new(clock::now), made)?);
    let carrier = Arc::clone(&courier);
    tasks.finishing.push(tokio::spawn(async move { carrier.run(stopped).await }));
    let board = handle.clone();
    tasks.carrying.push(tokio::spawn(async move {
        while let Some(made) = orders.recv().await {
            board.order_made(made.card, &made.order);
        }
    }));
    Ok(courier)
}

/// Forgets old facts and records once a day, so that the store does not grow for ever.
async fn keep_house(store: Store, mut stopped: watch::Receiver<bool>) {
    loop {
        let before = clock::wall_ms().saturating_sub(FACTS_KEPT_MS);
        match store.forget(before).await {
            Ok(0) => {}
            Ok(gone) => info!("{gone} facts older than 90 days were forgotten"),
            Err(why) => warn!("old facts could not be forgotten: {why}"),
        }
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING) => {}
            _ = stopped.changed() => return,
        }
    }
}

/// Keeps the metrics small where nobody reads them.
async fn tidy_metrics(metrics: Metrics) {
    loop {
        tokio::time::sleep(METRICS_TIDIED).await;
        metrics.tidy_up();
    }
}

/// Ordinary SIP phones of accounts may log in from the start on.
async fn tell_sip_phones(store: Store, handle: Handle) {
    match store.sip_phones().await {
        Ok(phones) => {
            for (account, ha1) in phones {
                handle.tell_sip_phone(&account, ha1).await;
            }
        }
        Err(why) => error!("SIP phones of accounts cannot be read, they cannot register: {why}"),
    }
}

/// Asks the order core who calls, a few at a time.
async fn look_up(mut wanted: mpsc::Receiver<Lookup>, courier: Arc<Courier>, handle: Handle) {
    let places = Arc::new(tokio::sync::Semaphore::new(LOOKUPS_AT_ONCE));
    while let Some(lookup) = wanted.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (courier, handle) = (Arc::clone(&courier), handle.clone());
        tokio::spawn(async move {
            match lookup {
                Lookup::Card(card, number) => {
                    if let Some(customer) = courier.lookup(number.reveal()).await {
                        handle.give(Input::Customer { card, customer }).await;
                    }
                }
                Lookup::Asked(number, reply) => {
                    // The asker may have gone away meanwhile.
                    drop(reply.send(courier.lookup(number.reveal()).await));
                }
            }
            drop(place);
        });
    }
}

#[expect(clippy::too_many_arguments, reason = "each part is a different thing that only the start knows")]
fn serve_web(
    config: &Config,
    ground: &Ground,
    store: &Store,
    handle: &Handle,
    metrics: Metrics,
    listening: Listening,
    stop: axum_server::Handle<SocketAddr>,
    sip: Option<SocketAddr>,
) -> Result<JoinHandle<()>> {
    let tls = match (&config.web.tls_cert, &config.web.tls_key) {
        (Some(certificate), Some(key)) => Some(web::server_config(certificate, key)?),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            bail!("web.tls_cert and web.tls_key belong together: give both or none")
        }
    };
    let settings = web::Settings {
        domain: config.sip.domain.clone(),
        secure: tls.is_some(),
        local: listening.local,
        allowed_origins: config.web.allowed_origins.clone(),
        trusted_proxies: config.web.trusted_proxies.iter().map(|cidr| assemble::prefix(*cidr)).collect(),
        guard: assemble::guard(config),
        pair_secret: ground.pair_secret.clone(),
        time_zone: config.node.time_zone(),
        sip_udp: sip,
    };
    let web = Web::new(handle.clone(), metrics, settings);
    let core = matches!(config.orders.core, OrderCore::Embedded)
        .then(|| core_http::router(store.clone(), config.orders.token.clone()));
    let control = Control::open(&config.node.data_dir)?;
    Ok(tokio::spawn(async move {
        if let Err(why) = web.follow_sessions().await {
            error!("live sessions could not be told to the engine: {why}");
        }
        let beside =
            [tokio::spawn(web.clone().keep_following_sessions()), tokio::spawn(control.serve(web.clone()))];
        if let Err(why) = listening.serve(web::router(web, core), tls, stop).await {
            error!("the web server ended: {why}");
        }
        beside.iter().for_each(JoinHandle::abort);
    }))
}
