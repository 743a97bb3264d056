//! What SECURITY.md promises, looked up on the node.

use anyhow::{Context, Result, ensure};
use e2e::command::{on_node, on_the_node};
use e2e::namespace::Namespace;
use e2e::pod::pod_doing;
use libtest_mimic::Trial;

use crate::{trial, trial_where};

pub(crate) fn trials() -> Vec<Trial> {
    let blind =
        || on_node().is_none().then_some("this cluster's node can't be looked at from here: E2E_ON_NODE is not set");
    vec![
        trial_where("the_agent_has_no_more_rights_than_promised", blind, the_agent_has_no_more_rights_than_promised),
        trial("a_pod_that_asks_for_no_slice_gets_none", a_pod_that_asks_for_no_slice_gets_none),
    ]
}

/// The default installation's container, as the kernel has it.
async fn the_agent_has_no_more_rights_than_promised(_: &Namespace<'_>) -> Result<()> {
    let script = r#"for it in /proc/[0-9]*; do [ "$(cat $it/comm 2>/dev/null)" = mig-agent ] || continue
        cat $it/status; echo; sed 's/^/mount: /' $it/mountinfo; for kind in mnt net pid ipc; do
        [ "$(readlink $it/ns/$kind)" = "$(readlink /proc/self/ns/$kind)" ] && echo "shared: $kind"; done; echo "agents: $it"; done; true"#;
    let seen = on_the_node(script)?;
    ensure!(seen.matches("agents: ").count() == 1, "the node runs not one agent: {seen}");
    let field = |name: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
            .with_context(|| format!("no {name} in {seen}"))
    };
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let value = field(capabilities)?;
        ensure!(value == "0000000000000000", "{capabilities} is {value}");
    }
    ensure!(field("Uid")? == "0 0 0 0", "it runs as {}", field("Uid")?);
    ensure!(field("NoNewPrivs")? == "1", "it may gain privileges");
    ensure!(field("Seccomp")? == "2", "system calls are not filtered: {}", field("Seccomp")?);
    ensure!(!seen.contains("shared: "), "it shares namespaces with the node: {seen}");

    let mounts: Vec<Vec<&str>> =
        seen.lines().filter_map(|line| line.strip_prefix("mount: ")).map(|line| line.split(' ').collect()).collect();
    let mut writable = Vec::new();
    for mount in &mounts {
        let (Some(place), Some(options)) = (mount.get(4), mount.get(5)) else { continue };
        ensure!(!place.contains("secrets/kubernetes.io"), "it has a token at {place}");
        let system = ["/dev", "/proc", "/sys"].iter().any(|top| place.starts_with(top));
        if !options.split(',').any(|option| option == "ro") && !system {
            writable.push(*place);
        }
    }
    // What the kubelet makes for every container can be written to as well.
    writable.retain(|place| !["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(place));
    // The node's /dev/null, by which NVIDIA's runtime is asked for the GPUs.
    writable.retain(|place| *place != "/var/run/nvidia-container-devices/all");
    writable.sort_unstable();
    let expected =
        ["/etc/kubernetes/node-feature-discovery/features.d", "/run/mig-agent", "/var/lib/kubelet/device-plugins"];
    ensure!(writable.iter().all(|place| expected.contains(place)), "it may write to {writable:?}");
    ensure!(writable.contains(&"/var/lib/kubelet/device-plugins"), "it has no folder for its sockets: {writable:?}");
    Ok(())
}

/// An image's or a pod's `NVIDIA_VISIBLE_DEVICES=all` is the same to a runtime, and without NVIDIA's it is a variable like others. Nor
/// can a pod without the node's folders reach a socket of the kubelet's or the agent's.
async fn a_pod_that_asks_for_no_slice_gets_none(test: &Namespace<'_>) -> Result<()> {
    let script = "ls -a /dev /dev/nvidia-caps /var/lib/kubelet/device-plugins /var/lib/kubelet/pod-resources 2>&1;";
    let mut greedy = pod_doing("greedy", script, &[&[]])?;
    for container in greedy.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        let all = serde_json::json!([{ "name": "NVIDIA_VISIBLE_DEVICES", "value": "all" }]);
        container.env = Some(serde_json::from_value(all)?);
    }
    let running = test.run(greedy).await?;
    let log = running.log("c0")?;
    ensure!(running.variable("c0", "NVIDIA_VISIBLE_DEVICES")? == "all", "{log}");
    for absent in
        ["CUDA_VISIBLE_DEVICES", "MIG-", "MIG_DEVICES", "nvidiactl", "nvidia0", "nvidia-cap1", "kubelet.sock", ".sock"]
    {
        ensure!(!log.contains(absent), "it has {absent}: {log}");
    }
    ensure!(log.contains("No such file or directory"), "it sees folders of the node: {log}");
    Ok(())
}
