//! What may change while the agent runs: what the command line and the variables say, and below them the configuration
//! file, which is NVIDIA's `version: v1`.
//!
//! ```text
//!   the Node's label --choice--> file --file::parse--> File --Chosen::of(Args)--> watch<Option<Arc<Chosen>>> --> health --> offers, labels
//! ```
//! A file that is bad, or goes away, leaves the last good one in force. Before there was a good one nothing is offered.

mod args;
mod choice;
pub(crate) mod file;
pub(crate) mod label;
mod schema;
pub(crate) mod watcher;

use std::sync::Arc;

use mig_device_plugin::{ContainerSettings, DeviceIdStrategy, DeviceListStrategy, Files};
use mig_health::Policy;
use mig_model::{NamePattern, Terms, TimeSlicing};

pub(crate) use args::ConfigArgs;
pub(crate) use choice::Source;

use crate::args::Args;
use crate::health::Rules;
use schema::File;

/// One whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) terms: Terms,
    pub(crate) container: Arc<ContainerSettings>,
    /// What makes devices Unhealthy, and for how long.
    pub(crate) health: Policy,
}

/// How it stands with the configuration, for those who ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which file was asked for last; nothing where none is.
    pub(crate) file: Option<String>,
    /// Why that one is not in force.
    pub(crate) problem: Option<String>,
    /// Whether any configuration is in force.
    pub(crate) has_any: bool,
}

// === impl Chosen ===

impl Chosen {
    /// The command line and the variables come before the file, and the file before what we would do by ourselves.
    pub(crate) fn of(args: &Args, rules: &Rules, file: &File) -> Result<Self, String> {
        let flags = &file.flags;
        let plugin = flags.plugin.clone().unwrap_or_default();
        let strategy =
            args.unless_given("mig_strategy", args.mig_strategy, flags.mig_strategy.as_ref().map(|word| word.0));
        let domain = args.resource_domain.clone();
        let names = |said: &[schema::Named]| -> Result<Vec<NamePattern>, String> {
            let read = |said: &schema::Named| {
                let name = said.name.parse(&domain)?;
                Ok(NamePattern { pattern: said.pattern.clone(), name })
            };
            said.iter().map(read).collect()
        };
        let resources = file.resources.clone().unwrap_or_default();
        let (gpu_names, mig_names) = (names(&resources.gpus)?, names(&resources.mig)?);
        let time_slicing = match file.sharing.as_ref().and_then(|sharing| sharing.time_slicing.as_ref()) {
            Some(said) => said.read(&domain)?,
            None => TimeSlicing::default(),
        };
        let list_strategies = plugin.device_list_strategy.map(|list| list.0);
        let id_strategy = plugin.device_id_strategy.map(|word| word.0);
        let said = [flags.gdrcopy_enabled, flags.gds_enabled, flags.mofed_enabled];
        let asked = args.extras.all().into_iter().zip(said);
        let extras = asked.filter(|((_, field, here), file)| args.unless_given(field, *here, *file));
        let extras = extras.map(|((extra, ..), _)| extra).collect();
        let container = ContainerSettings {
            list_strategies: args.unless_given(
                "device_list_strategy",
                args.device_list_strategy.clone(),
                list_strategies,
            ),
            id_strategy: args.unless_given("device_id_strategy", args.device_id_strategy, id_strategy),
            visible_devices_env: args.visible_devices_env.clone(),
            pass_device_specs: args.unless_given("pass_device_specs", args.pass_device_specs, plugin.pass_device_specs),
            cdi_annotation_prefix: args.unless_given(
                "cdi_annotation_prefix",
                args.cdi_annotation_prefix.clone(),
                plugin.cdi_annotation_prefix.map(|word| word.0.0),
            ),
            extras,
            preferred: args.preferred_allocation,
            shared: args.unless_given(
                "shared_devices_allocation_policy",
                args.shared_devices_allocation_policy,
                // What is no such word was refused when the file was read; an empty one is none.
                plugin.shared_devices_allocation_policy.and_then(|word| word.parse().ok()),
            ),
            files: Files {
                driver_root_here: args.driver_root_here(),
                driver_root: args.nvidia_driver_root.clone(),
                dev_root: args.nvidia_dev_root.clone(),
                dev_root_here: args.container_dev_root.clone(),
                proc_root: args.proc_root.clone(),
                cdi_dir: args.cdi_dir.clone(),
            },
        };
        let said = file.health.as_ref();
        let unwatched = said.and_then(|said| said.advertise_unwatched);
        let unwatched = args.unless_given("advertise_unwatched", args.health.advertise_unwatched, unwatched);
        let health = rules.with(said, unwatched).map_err(|error| format!("health: {error}"))?;
        let terms = Terms { strategy, domain, gpu_names, mig_names, time_slicing };
        Ok(Self { terms, container: Arc::new(container), health })
    }

    /// What a person should know of it, one line each.
    pub(crate) fn advice(&self) -> Vec<&'static str> {
        let container = &self.container;
        let mut lines = Vec::new();
        if container.id_strategy == DeviceIdStrategy::Index {
            lines.push(
                "--device-id-strategy=index: after a change of layout an index is another slice's, and a container that starts \
                 again gets that one; prefer uuid",
            );
        }
        if container.pass_device_specs && container.list_strategies.iter().copied().all(DeviceListStrategy::is_cdi) {
            lines.push("--pass-device-specs has no effect here: the device nodes are in the CDI spec");
        }
        let tells_nobody = container.list_strategies == [DeviceListStrategy::Envvar]
            && !container.visible_devices_env.iter().any(|name| name == "NVIDIA_VISIBLE_DEVICES");
        if tells_nobody {
            lines.push(
                "--visible-devices-env leaves NVIDIA_VISIBLE_DEVICES out: NVIDIA's container runtime is told of no device, and a \
                 container whose image says NVIDIA_VISIBLE_DEVICES=all sees every GPU of the node",
            );
        }
        lines
    }
}
