//! The pods of the tests: containers that ask for slices, print their environment and stay.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::scene::resource;

/// The last line that a container prints: its environment is complete.
pub(crate) const PRINTED: &str = "e2e: that is all";

/// The slices that one container asks for: profiles and how many of each.
pub type Slices<'a> = &'a [(&'a str, u64)];

/// A pod with one container, `c0`, `c1`, ..., for each entry.
///
/// # Errors
/// Never, but for a mistake in here.
pub fn pod(name: &str, containers: &[Slices<'_>]) -> Result<Pod> {
    pod_doing(name, "", containers)
}

/// The same, each running a script first.
///
/// # Errors
/// Never, but for a mistake in here.
pub fn pod_doing(name: &str, script: &str, containers: &[Slices<'_>]) -> Result<Pod> {
    let image = std::env::var("E2E_IMAGE").unwrap_or_else(|_| "localhost/mig-agent-e2e/busybox:1".to_owned());
    let containers: Vec<_> = containers
        .iter()
        .enumerate()
        .map(|(index, slices)| {
            let limits: BTreeMap<_, _> =
                slices.iter().map(|(profile, count)| (resource(profile), count.to_string())).collect();
            json!({
                "name": format!("c{index}"),
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", format!("env; {script} echo '{PRINTED}'; exec sleep 3600")],
                "resources": { "limits": limits },
            })
        })
        .collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "automountServiceAccountToken": false,
            // There is no cluster DNS, and nothing here asks one.
            "dnsPolicy": "Default",
            "enableServiceLinks": false,
            "restartPolicy": "Always",
            // `sleep` as a container's first process does not hear SIGTERM.
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{ "operator": "Exists" }],
            "containers": containers,
        },
    });
    serde_json::from_value(pod).context("failed to write a pod")
}

/// A pod that was seen running.
#[derive(Debug)]
pub struct Running {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// By name, in order.
    pub(crate) containers: BTreeMap<String, Container>,
}

/// One of its containers.
#[derive(Debug)]
pub struct Container {
    /// The runtime's id: another one after each start.
    pub(crate) id: String,
    pub(crate) restarts: i32,
    pub(crate) environment: BTreeMap<String, String>,
    /// All that it has printed.
    pub(crate) log: String,
}

impl Running {
    /// The value of a variable in a container.
    ///
    /// # Errors
    /// When the container or the variable is not there.
    pub fn variable(&self, container: &str, variable: &str) -> Result<&str> {
        let pod = &self.name;
        let container =
            self.containers.get(container).with_context(|| format!("pod {pod} has no container {container}"))?;
        container
            .environment
            .get(variable)
            .map(String::as_str)
            .with_context(|| format!("pod {pod} has no variable {variable}, but {:?}", container.environment))
    }

    /// All that a container has printed.
    ///
    /// # Errors
    /// When the container is not there.
    pub fn log(&self, container: &str) -> Result<&str> {
        let container = self.containers.get(container).with_context(|| format!("there is no container {container}"))?;
        Ok(&container.log)
    }

    /// `CUDA_VISIBLE_DEVICES` of the only container.
    ///
    /// # Errors
    /// When it is not there.
    pub fn slice(&self) -> Result<&str> {
        self.variable("c0", "CUDA_VISIBLE_DEVICES")
    }
}
