//! Who uses what: processes, as the driver tells, and pods, as the kubelet does.

use std::fmt;

use kubelet::{Holding, KubeletPaths, causes, list_holdings};
use mig_model::{ComputeInstance, GIVEN_OUT, GivenOut, GpuInstance, GpuSurvey, InUse, Process, uuid_of};
use serde::Serialize;

use crate::agent;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Somebody who would notice if an instance went away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum User {
    /// A container to which the kubelet gave it.
    Pod { namespace: String, pod: String, container: String },
    /// A container to which the agent gave it, and which the kubelet does not list: one that starts, or an init container.
    GivenOut { resource: String },
    /// A process that the driver sees on it.
    Process { pid: u32, name: Option<String>, memory_bytes: Option<u64> },
}

/// What is known of users on this node.
#[derive(Debug)]
pub(crate) struct Users {
    holdings: Vec<Holding>,
    /// What the node's agent gave out and has never seen listed.
    given_out: Vec<GivenOut>,
    /// Why the kubelet, which is there, did not say which pods hold what.
    unknown: Option<String>,
}

impl Users {
    /// Asks the kubelet, if there is one.
    pub(crate) fn read(context: &Context) -> Self {
        let socket = KubeletPaths::new(&context.options.kubelet_root).pod_resources_socket();
        if context.options.ignore_kubelet {
            return Self::none();
        }
        if socket.try_exists().is_ok_and(|exists| !exists) {
            // Pods outlive a kubelet that has stopped; what it gave them is in its checkpoint.
            let checkpoint = context.options.kubelet_root.join("device-plugins/kubelet_internal_checkpoint");
            if !checkpoint.exists() {
                return Self::none();
            }
            let why = format!("a kubelet has given devices to pods ({}) and is not running", checkpoint.display());
            return Self { holdings: Vec::new(), given_out: Vec::new(), unknown: Some(why) };
        }
        // First: what is listed with a pod meanwhile is in one of the two.
        let mut given_out: Vec<GivenOut> = agent::note(&context.options, GIVEN_OUT);
        given_out.retain(|given| !given.seen);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let answer = match runtime {
            Ok(runtime) => runtime.block_on(list_holdings(&socket)).map_err(|error| causes(&error)),
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(holdings) => Self { holdings, given_out, unknown: None },
            Err(why) => Self { holdings: Vec::new(), given_out, unknown: Some(why) },
        }
    }

    /// Of a machine that nobody uses.
    pub(crate) fn none() -> Self {
        Self { holdings: Vec::new(), given_out: Vec::new(), unknown: None }
    }

    /// For verbs that only look: they go on without pods.
    pub(crate) fn warn_if_unknown(&self, context: &Context) {
        if let Some(why) = &self.unknown {
            context.output.warn(&format!("pods are not shown: {why}"));
        }
    }

    /// Whether everybody is known: nobody listed is nobody there.
    pub(crate) fn are_known(&self) -> bool {
        self.unknown.is_none()
    }

    /// For verbs that destroy: what is not known to be free is not.
    pub(crate) fn refuse_if_unknown(&self) -> Result<(), Failure> {
        let Some(why) = &self.unknown else { return Ok(()) };
        let message = format!("unable to tell whether pods hold these instances: {why}");
        Err(Failure::new(Exit::InUse, "UsersUnknown", message)
            .hint("if you know that none does, go on with --ignore-kubelet"))
    }

    /// Who uses a compute instance. A process that the driver places on the GPU, but on no instance, may be on any.
    pub(crate) fn of_compute(&self, gpu: &GpuSurvey, instance: &GpuInstance, compute: &ComputeInstance) -> Vec<User> {
        let on_it = |process: &&Process| {
            process.gpu_instance.is_none_or(|id| id == instance.id)
                && process.compute_instance.is_none_or(|id| id == compute.id)
        };
        let mut users = self.holders(&[gpu.gpu.uuid.as_str(), compute.uuid.as_str()]);
        users.extend(gpu.processes.iter().filter(on_it).map(User::from));
        in_order(users)
    }

    /// Who uses anything of a GPU instance.
    pub(crate) fn of_instance(&self, gpu: &GpuSurvey, instance: &GpuInstance) -> Vec<User> {
        let uuids = instance.compute_instances.iter().map(|compute| compute.uuid.as_str());
        let mut users = self.holders(&uuids.chain([gpu.gpu.uuid.as_str()]).collect::<Vec<_>>());
        let on_it = |process: &&Process| process.gpu_instance.is_none_or(|id| id == instance.id);
        users.extend(gpu.processes.iter().filter(on_it).map(User::from));
        in_order(users)
    }

    /// Who uses anything of a GPU.
    pub(crate) fn of_gpu(&self, gpu: &GpuSurvey) -> Vec<User> {
        let instances = gpu.gpu.instances.iter().flat_map(|instance| &instance.compute_instances);
        let uuids = instances.map(|compute| compute.uuid.as_str()).chain([gpu.gpu.uuid.as_str()]);
        let mut users = self.holders(&uuids.collect::<Vec<_>>());
        users.extend(gpu.processes.iter().map(User::from));
        in_order(users)
    }

    /// The same for the planner.
    pub(crate) fn in_use(&self, gpu: &GpuSurvey) -> InUse {
        let mut in_use = InUse::default();
        for instance in &gpu.gpu.instances {
            for compute in &instance.compute_instances {
                if !self.of_compute(gpu, instance, compute).is_empty() {
                    in_use.insert(instance.id, Some(compute.id));
                }
            }
            // A process on a GPU instance of whose compute instances the driver says nothing.
            if instance.compute_instances.is_empty() && !self.of_instance(gpu, instance).is_empty() {
                in_use.insert(instance.id, None);
            }
        }
        in_use
    }

    /// Device ids are UUIDs; replicas of a shared one are `<uuid>::<n>`.
    fn holders(&self, uuids: &[&str]) -> Vec<User> {
        let is_one = |id: &String| uuids.contains(&uuid_of(id));
        let holds = |holding: &&Holding| holding.ids.iter().any(is_one);
        let pod = |holding: &Holding| User::Pod {
            namespace: holding.namespace.clone(),
            pod: holding.pod.clone(),
            container: holding.container.clone(),
        };
        let mut holders: Vec<User> = self.holdings.iter().filter(holds).map(pod).collect();
        if holders.is_empty() {
            let given_out = self.given_out.iter().filter(|given| is_one(&given.id));
            holders.extend(given_out.map(|given| User::GivenOut { resource: given.resource.clone() }));
        }
        holders
    }
}

fn in_order(mut users: Vec<User>) -> Vec<User> {
    users.sort();
    users.dedup();
    users
}

/// `pod default/training, python3 (4711)`.
pub(crate) fn names(users: &[User]) -> String {
    let names: Vec<String> = users.iter().map(User::to_string).collect();
    names.join(", ")
}

impl From<&Process> for User {
    fn from(process: &Process) -> Self {
        Self::Process { pid: process.pid, name: process.name.clone(), memory_bytes: process.memory_bytes }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, pod, .. } => write!(f, "pod {namespace}/{pod}"),
            Self::GivenOut { resource } => {
                let resource = resource.replace(char::is_control, "\u{fffd}");
                write!(f, "a container that was given {resource} and is not listed yet")
            }
            Self::Process { pid, name: Some(name), .. } => write!(f, "{name} ({pid})"),
            Self::Process { pid, name: None, .. } => write!(f, "process {pid}"),
        }
    }
}
