//! Flags of health.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::ArgAction;
use clap::builder::BoolishValueParser;
use mig_health::{Policy, PolicyError, Settings, Switches, parse};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HealthArgs {
    /// Offer GPUs, too, whose errors (XIDs) the driver does not tell; they are Unhealthy else
    #[arg(
        long,
        env = "ADVERTISE_UNWATCHED",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) advertise_unwatched: bool,

    /// XIDs that make nothing Unhealthy: numbers separated by commas, xids for all of them, or all for the state of the
    /// hardware too
    #[arg(long, env = "DP_DISABLE_HEALTHCHECKS", value_name = "XIDS", default_value = "", hide_default_value = true)]
    pub(crate) dp_disable_healthchecks: String,

    /// XIDs that make what they concern Unhealthy though they are ignored else; wins over --dp-disable-healthchecks
    #[arg(long, env = "DP_ENABLE_HEALTHCHECKS", value_name = "XIDS", default_value = "", hide_default_value = true)]
    pub(crate) dp_enable_healthchecks: String,

    /// A file that says what is done about which XID, and when it is over, where it differs from what is built in;
    /// goes before `health` in the configuration file
    #[arg(long, env = "HEALTH_POLICY", value_name = "FILE")]
    pub(crate) health_policy: Option<PathBuf>,

    /// Where faults are kept over a restart of the agent; emptied when the node starts
    #[arg(long, env = "STATE_DIR", value_name = "DIR", default_value = "/run/mig-agent")]
    pub(crate) state_dir: PathBuf,
}

/// What flags and variables say of health.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Of `--health-policy`.
    file: Option<Settings>,
    switches: Switches,
    /// What holds where nothing else does.
    pub(crate) policy: Policy,
}

impl HealthArgs {
    /// What is wrong with it is said at once.
    pub(crate) fn rules(&self) -> anyhow::Result<Rules> {
        let read = |file: &PathBuf| {
            let text = crate::config::file::text(file)
                .map_err(|why| anyhow!("the health policy {}: {why}", file.display()))?;
            parse(&text).with_context(|| format!("the health policy {} is wrong", file.display()))
        };
        let file = self.health_policy.as_ref().map(read).transpose()?;
        let settings = file.clone().unwrap_or_default();
        let (switches, strange) = Switches::read(&self.dp_disable_healthchecks, &self.dp_enable_healthchecks);
        for word in strange {
            tracing::warn!(
                "{word:?} in DP_DISABLE_HEALTHCHECKS or DP_ENABLE_HEALTHCHECKS is no XID, and is passed over"
            );
        }
        let policy =
            Policy::new(&settings, switches.clone(), self.advertise_unwatched).context("the health policy is wrong")?;
        let switched =
            [&self.dp_disable_healthchecks, &self.dp_enable_healthchecks].iter().any(|text| !text.is_empty());
        if switched || settings != Settings::default() {
            tracing::info!("these XIDs make nothing Unhealthy: {:?}", policy.ignored());
        }
        Ok(Rules { file, switches, policy })
    }
}

impl Rules {
    /// Whether `--health-policy` goes before the configuration file.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The rules that hold with those of the configuration file, `advertise_unwatched` having been settled.
    pub(crate) fn with(&self, said: Option<&Settings>, advertise_unwatched: bool) -> Result<Policy, PolicyError> {
        match said.filter(|_| !self.has_file()) {
            None => Ok(self.policy.clone()),
            Some(said) => {
                let said = Settings { advertise_unwatched: Some(advertise_unwatched), ..said.clone() };
                Policy::new(&said, self.switches.clone(), advertise_unwatched)
            }
        }
    }
}
