//! Wires the parts together, and ends all of them when one ends or a signal comes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use kubelet::KubeletPaths;
use mig_device_plugin::{Earlier, Status};
use mig_model::{GivenOut, Unhealthy};
use rustix::system::uname;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::config::label::{self, Label};
use crate::config::{self, Chosen};
use crate::health::{self, Rules, Store, Tally};
use crate::known::Known;
use crate::labels::{self, Destination, NodeLabels};
use crate::metrics::Metrics;
use crate::notes::Notes;
use crate::state_file::Life;
use crate::{http, listener, offers, tidy};

/// How long the end waits for files.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is written down of the devices.
struct Noted {
    before: Earlier,
    given_out: watch::Sender<Vec<GivenOut>>,
    unhealthy: watch::Sender<Vec<Unhealthy>>,
}

/// Runs until a signal comes or a part fails.
pub(crate) fn to_the_end(args: &Args) -> anyhow::Result<()> {
    // What is wrong with it is said before anything is begun.
    let rules = args.health.rules()?;
    let timed = mig_nvml::Metrics::default();
    let driver = mig_nvml::Settings {
        library: args.nvml_library.clone(),
        driver_root: args.driver_root_here(),
        sys_root: args.sys_root.clone(),
        poll_interval: args.poll_interval,
        deadline: args.nvml_deadline,
        metrics: timed.clone(),
    };
    // First of all, so that the driver is read while the rest is set up.
    let feed = mig_nvml::start(driver).context("unable to start the driver's thread")?;
    // One thread is enough for a kubelet, and no slower than many.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("unable to start the runtime")?;
    let life = Life::new(&args.proc_root, &args.kubelet_root);
    let notes = Notes::given_out(&args.health.state_dir, &life);
    let ailing = Notes::unhealthy(&args.health.state_dir, &life);
    let store = Store::open(&args.health.state_dir, life);
    let before = store.before().cloned();
    let (records, kept) = watch::channel(before.clone().unwrap_or_default());
    let watched = health::Settings {
        policy: rules.policy.clone(),
        deadline: args.nvml_deadline,
        before,
        records,
        tally: Tally::default(),
        readings: timed.clone(),
    };
    let (note, noted) = watch::channel(Vec::new());
    let (tell, told) = watch::channel(ailing.read::<Unhealthy>());
    let before = Earlier::new({
        let notes = notes.clone();
        move || notes.read()
    });
    let outcome = runtime.block_on(async {
        let over = CancellationToken::new();
        let faults = tokio::spawn(store.keep(kept, over.clone()));
        let given_out = tokio::spawn(notes.keep(noted, over.clone()));
        let unhealthy = tokio::spawn(ailing.keep(told, over.clone()));
        let outcome = serve(args, feed, watched, Noted { before, given_out: note, unhealthy: tell }, rules).await;
        // What has just happened is in no file yet, and the driver tells it once. A disk may hang.
        over.cancel();
        let _ = timeout(LAST_WORDS, async { tokio::join!(faults, given_out, unhealthy) }).await;
        outcome
    });
    runtime.shutdown_background();
    outcome
}

async fn serve(
    args: &Args,
    feed: mig_nvml::Feed,
    watched: health::Settings,
    Noted { before, given_out, unhealthy }: Noted,
    rules: Rules,
) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    let hangup = signal(SignalKind::hangup()).context("unable to listen for SIGHUP")?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("unable to listen at {}: choose another address with --listen", args.listen))?;
    tracing::info!(address = %listener.local_addr()?, strategy = %args.mig_strategy, "serving HTTP");
    let status = Arc::new(Status::default());
    let (offered, offers) = watch::channel(None);
    let (read_last, inventory) = watch::channel(None);
    let mut parts = JoinSet::new();

    let mig_nvml::Feed { views: read, xids, supervision } = feed;
    let details = supervision.details();
    parts.spawn(named("the watch over the driver", mig_nvml::supervise(supervision)));
    let (timed, tally) = (watched.readings.clone(), watched.tally.clone());
    let (marked, views) = watch::channel(mig_nvml::View::default());
    let (choose, choice) = watch::channel(None);
    let (judged, chosen) = watch::channel(None);
    parts.spawn(named("the watch over health", health::watch_over(watched, read, xids, choice, marked, judged)));
    let (config, configured) = watch::channel(config::Standing::default());
    let (labelled, label) = watch::channel(Label::Unknown("the API server has not answered yet".to_owned()));
    if let (Some(name), Some(_)) = (&args.node_name, &args.config.config_file_srcdir) {
        let follow = label::follow(name.clone(), args.config.node_label.clone(), labelled);
        parts.spawn(named("the watch over the node's label", follow));
    }
    let keep = config::watcher::keep(args.clone(), rules, label, hangup, choose, config);
    parts.spawn(named("the watch over the configuration", keep));
    let follow = offers::follow(views.clone(), chosen.clone(), offered, read_last);
    parts.spawn(named("the reading of GPUs", follow));
    let counted = mig_device_plugin::Metrics::default();
    let labelling = label_settings(args, chosen);
    let (standing, labels) = watch::channel(labels::Standing::default());
    let labels = labelling.is_some().then_some(labels);
    let known = Known { views, offers: offers.clone(), config: configured, status: Arc::clone(&status), labels };
    let settings = mig_device_plugin::Settings {
        paths: KubeletPaths::new(&args.kubelet_root),
        domain: args.resource_domain.clone(),
        settle: args.settle_time,
        retire: args.tidy_node_status.then_some(args.settle_time),
        metrics: counted.clone(),
        before,
        given_out,
        unhealthy,
    };
    let fleet = mig_device_plugin::run(settings, offers, inventory, Arc::clone(&status), stop.clone());
    let mut fleet = tokio::spawn(fleet);

    if let (true, Some(node)) = (args.tidy_node_status, &args.node_name) {
        let settings = tidy::Settings {
            node: node.clone(),
            domain: args.resource_domain.clone(),
            after: args.tidy_node_status_after,
        };
        parts.spawn(named("the tidying of the node's status", tidy::keep(settings, Arc::clone(&status))));
    }

    // Ended after serving, for what it has to put in order; until then it has no end of its own.
    let labels = labelling
        .map(|settings| tokio::spawn(labels::keep(settings, details, Arc::clone(&status), standing, stop.clone())));

    let metrics = Metrics::new(&timed, &counted, &tally, known.clone());
    let host = uname().nodename().to_string_lossy().into_owned();
    let router = http::router(http::Answers { known, metrics, host });
    parts.spawn(named("HTTP", listener::serve(listener, router)));

    let failure = tokio::select! {
        // First: told to stop, the fleet ends at the same moment.
        biased;
        () = stop.cancelled() => None,
        ended = parts.join_next() => match ended {
            Some(Ok(part)) => Some(anyhow!("{part} has ended")),
            Some(Err(error)) => Some(anyhow!(error).context("a part has failed")),
            None => Some(anyhow!("nothing is left to run")),
        },
        ended = &mut fleet => {
            ended.context("serving has failed")??;
            bail!("serving has ended");
        }
    };
    stop.cancel();
    fleet.await.context("serving has failed")??;
    if let Some(labels) = labels {
        labels.await.context("labelling has failed")?;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    tracing::info!("stopped");
    Ok(())
}

fn label_settings(args: &Args, chosen: watch::Receiver<Option<Arc<Chosen>>>) -> Option<labels::Settings> {
    let destination = match (args.node_labels, &args.node_name) {
        (NodeLabels::Off, _) => return None,
        (NodeLabels::Node, Some(name)) => Destination::Node(name.clone()),
        _ => Destination::FeatureFile(args.features_dir.clone()),
    };
    Some(labels::Settings { destination, chosen, check: args.poll_interval })
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("unable to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("unable to listen for SIGINT")?;
    let mut quit = signal(SignalKind::quit()).context("unable to listen for SIGQUIT")?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
        tracing::info!("told to stop");
        told.cancel();
    });
    Ok(stop)
}
