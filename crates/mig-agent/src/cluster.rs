//! The way to the API server, for the options that need one. Most installations have none.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// For an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Between attempts after troubles.
const LONGEST: Duration = Duration::from_secs(150);

/// What went wrong: a word that tells troubles apart, and a line for people.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Trouble {
    /// What the API server said; `rights` is for whom it forbids it.
    pub(crate) fn of(error: &kube::Error, rights: &'static str) -> Self {
        let kube::Error::Api(status) = error else { return Self { kind: "Unreachable", message: chain(error) } };
        let said = if status.message.is_empty() { &status.reason } else { &status.message };
        let (kind, advice) = match status.code {
            401 => ("Unauthorized", "its token is not accepted"),
            403 => ("Forbidden", rights),
            404 => ("NoSuchNode", "--node-name must be the Node's own name"),
            409 => ("Conflict", "somebody else changes the node"),
            422 => {
                ("Denied", "an admission policy or a webhook forbids it; the chart's allows an agent its own node only")
            }
            429 | 500.. => ("ServerError", "it has troubles of its own"),
            _ => ("Refused", "it takes no such request"),
        };
        Self { kind, message: format!("the API server answers {}: {said} ({advice})", status.code) }
    }
}

/// Troubles since the last success. Each is told once, and the API server is left alone ever longer.
#[derive(Default)]
pub(crate) struct Troubles {
    told: BTreeSet<&'static str>,
    backoff: Option<ExponentialBackoff>,
}

impl Troubles {
    /// Whether it is news, and how long to leave the API server alone.
    pub(crate) fn add(&mut self, trouble: &Trouble) -> (bool, Duration) {
        let backoff = ExponentialBuilder::new().with_max_delay(LONGEST).without_max_times().with_jitter();
        let pause = self.backoff.get_or_insert_with(|| backoff.build()).next().unwrap_or(LONGEST);
        (self.told.insert(trouble.kind), pause)
    }

    pub(crate) fn are_none(&self) -> bool {
        self.told.is_empty()
    }

    /// A success. Says whether there were any.
    pub(crate) fn end(&mut self) -> bool {
        !std::mem::take(self).told.is_empty()
    }
}

pub(crate) fn hung() -> Trouble {
    let seconds = PATIENCE.as_secs();
    Trouble { kind: "Hung", message: format!("the API server has not answered for {seconds} s") }
}

/// As a pod's service account, or as the file says that KUBECONFIG names.
pub(crate) async fn client() -> Result<Client, Trouble> {
    let wrong = |message: String| Trouble { kind: "Credentials", message };
    let mut config = if std::env::var_os("KUBECONFIG").is_some() {
        let config = Config::from_kubeconfig(&KubeConfigOptions::default()).await;
        config.map_err(|error| wrong(format!("unable to use the file that KUBECONFIG names: {}", chain(&error))))?
    } else {
        Config::incluster().map_err(|error| {
            wrong(format!(
                "no way to the API server: {} (in a pod, automountServiceAccountToken must be true; elsewhere KUBECONFIG must name a file)",
                chain(&error)
            ))
        })?
    };
    config.connect_timeout = Some(CONNECT);
    // We have a patience of our own.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| wrong(format!("unable to talk to the API server: {}", chain(&error))))
}

/// An error and what it came from. Some repeat in their own words what they came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
