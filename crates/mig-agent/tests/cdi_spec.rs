//! The CDI specification as runtimes and other agents find it: the agent as a process, on the fake driver's files.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only test functions for tests; what is skipped says so"
)]

mod host;
mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use host::{Host, TWO, makes_nodes, sorted, wait_for};
use kubelet_sim::Pod;
use node::{DEADLINE, G1, G3, Node, listed, skip};
use serde_json::Value;

#[tokio::test]
async fn the_spec_has_every_slice_before_the_kubelet_has_it() {
    let host = Host::new(Node::new("demo"));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    // Written before the first list.
    let devices = host.devices();
    listed(&kubelet, G1, 9, 9).await;
    assert_eq!(host.devices(), devices, "it was not written piece by piece");
    let minors = host.minors();
    assert_eq!(devices.keys().collect::<Vec<_>>(), minors.keys().collect::<Vec<_>>());
    for (uuid, [instance, compute]) in minors {
        let world = host.node.world();
        let holds = |gpu: &&fake_nvml::Gpu| gpu.instances.iter().flat_map(|i| &i.compute).any(|c| c.uuid == uuid);
        let gpu = world.gpus.iter().find(holds).unwrap().minor;
        let expected = [
            format!("/dev/nvidia{gpu} 195:{gpu}"),
            format!("/dev/nvidia-caps/nvidia-cap{instance} 241:{instance}"),
            format!("/dev/nvidia-caps/nvidia-cap{compute} 241:{compute}"),
        ];
        assert_eq!(devices[&uuid], expected);
    }

    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let main = &pod.containers["main"];
    let uuid = host.node.uuids("3g.20gb").remove(0);
    assert_eq!(main.cdi_devices, [format!("mig-agent/gpu={uuid}")]);
    assert_eq!(main.envs.get("CUDA_VISIBLE_DEVICES"), Some(&uuid));
    // Told so, NVIDIA's runtime would bring the devices a second time.
    assert_eq!(main.envs.get("NVIDIA_VISIBLE_DEVICES"), None);
}

#[tokio::test]
async fn the_spec_names_the_drivers_files_as_the_node_has_them() {
    let host = Host::new(Node::written(TWO));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("cdi-annotations", &[]);
    listed(&kubelet, G3, 1, 1).await;
    let edits = &host.spec()["containerEdits"];
    let mount =
        |mount: &Value| format!("{} {}", mount["hostPath"].as_str().unwrap(), mount["containerPath"].as_str().unwrap());
    let mounts: Vec<String> = edits["mounts"].as_array().unwrap().iter().map(mount).collect();
    let library = "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1";
    let multiarch = if cfg!(target_arch = "aarch64") { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" };
    let expected = [format!("/usr/lib/{multiarch}"), "/usr/lib64".to_owned()];
    assert_eq!(mounts, expected.map(|folder| format!("{library} {folder}/libnvidia-ml.so.1")));
    assert_eq!(edits["env"], serde_json::json!(["NVIDIA_VISIBLE_DEVICES=void"]));
    let common: Vec<&str> =
        edits["deviceNodes"].as_array().unwrap().iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert_eq!(common, ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]);
    assert!(edits.get("hooks").is_none());
}

#[tokio::test]
async fn what_pods_hold_stays_in_the_spec_though_cdi_is_chosen_no_more() {
    let host = Host::new(Node::written(TWO));
    let kubelet = host.node.kubelet().await;
    let agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let uuid = host.node.uuids("3g.20gb").remove(0);
    agent.kill();
    let _agent = host.agent("envvar", &["--settle-time=50ms"]);
    listed(&kubelet, G3, 1, 1).await;
    wait_for(|| host.devices().keys().eq([&uuid])).await;
    kubelet.delete("train").await;
    wait_for(|| !host.cdi().join("mig-agent-gpu.json").exists()).await;
}

/// Rule 8: a container that starts again is given the name that it had.
#[tokio::test]
async fn a_slice_that_vanished_stays_in_the_spec_while_a_pod_holds_it() {
    let host = Host::new(Node::written(TWO));
    let kubelet = host.node.kubelet().await;
    let agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let (held, other) = (host.node.uuids("3g.20gb").remove(0), host.node.uuids("1g.5gb").remove(0));
    let before = host.devices();
    host.node.recut("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 2g.10gb}]}]");
    let now = host.node.uuids("2g.10gb").remove(0);
    listed(&kubelet, "nvidia.com/mig-2g.10gb", 1, 1).await;
    wait_for(|| host.devices().keys().cloned().collect::<Vec<_>>() == sorted([held.clone(), now.clone()])).await;
    assert!(!host.devices().contains_key(&other), "nobody holds it");
    assert_eq!(host.devices()[&held], before[&held]);

    agent.kill();
    let _agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, "nvidia.com/mig-2g.10gb", 1, 1).await;
    assert_eq!(host.devices()[&held], before[&held], "another agent keeps it too");
    kubelet.restart_container("train", "main").await.unwrap();
    kubelet.delete("train").await;
    wait_for(|| host.devices().keys().cloned().collect::<Vec<_>>() == [now.clone()]).await;
}

#[tokio::test]
async fn another_agent_gives_the_same_answer_and_leaves_the_spec_as_it_is() {
    let host = Host::new(Node::new("demo"));
    let kubelet = host.node.kubelet().await;
    let more = if makes_nodes(&host) { &["--pass-device-specs"][..] } else { &[] };
    let agent = host.agent("envvar,volume-mounts,cdi-annotations,cdi-cri", more);
    listed(&kubelet, G1, 9, 9).await;
    let ids = vec![host.node.uuids("1g.5gb")];
    let before = kubelet.allocate_raw(G1, ids.clone()).await.unwrap();
    let written = |host: &Host| fs::metadata(host.cdi().join("mig-agent-gpu.json")).unwrap().modified().unwrap();
    let first = written(&host);
    agent.kill();
    kubelet.wait_for(|resources| !resources[G1].registered, DEADLINE).await.unwrap();
    assert!(host.cdi().join("mig-agent-gpu.json").is_file(), "pods need it while no agent runs");
    let _agent = host.agent("envvar,volume-mounts,cdi-annotations,cdi-cri", more);
    listed(&kubelet, G1, 9, 9).await;
    assert_eq!(kubelet.allocate_raw(G1, ids).await.unwrap(), before);
    assert_eq!(written(&host), first);
}

/// Builds the program in `tests/clients/cdi`, which is the library that container runtimes use.
fn reference() -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/cdi");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cdi");
    let go = |arguments: &[&str]| {
        let environment = [("GOFLAGS", "-mod=readonly -buildvcs=false"), ("CGO_ENABLED", "0")];
        Command::new("go").args(arguments).current_dir(&sources).envs(environment).output()
    };
    match go(&["mod", "download"]) {
        Ok(done) if done.status.success() => {}
        Ok(done) => {
            skip(&format!("CDI's Go modules are not to be had: {}", String::from_utf8_lossy(&done.stderr)));
            return None;
        }
        Err(error) => {
            skip(&format!("Go is missing: {error}"));
            return None;
        }
    }
    let built = go(&["build", "-o", program.to_str().unwrap(), "."]).unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

#[tokio::test]
async fn the_reference_implementation_gives_a_container_its_slices_and_no_others() {
    let Some(program) = reference() else { return };
    let host = Host::new(Node::new("demo"));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 9, 9).await;
    let pod = kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
    let names = &pod.containers["main"].cdi_devices;
    let done = Command::new(&program).arg(host.cdi()).args(names).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    let needs: Vec<&str> = said.split_whitespace().skip_while(|word| *word != "needs").collect();
    assert!(needs[1] <= needs[4], "{said}");

    let container: Value = serde_json::from_slice(&done.stdout).unwrap();
    let devices = container["linux"]["devices"].as_array().unwrap().iter();
    let given = sorted(devices.map(|device| device["path"].as_str().unwrap().to_owned()));
    let own = names.iter().flat_map(|name| host.devices().remove(name.trim_start_matches("mig-agent/gpu=")).unwrap());
    let own = own.map(|node| node.split(' ').next().unwrap().to_owned());
    let common = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"].map(|node| format!("/dev/{node}"));
    assert_eq!(given, sorted(own.chain(common)));
    // The rules by which the kernel lets it use them: nothing else is allowed.
    let allowed = container["linux"]["resources"]["devices"].as_array().unwrap();
    assert!(allowed.iter().all(|rule| rule["allow"] == true && rule["access"] == "rw"), "{allowed:?}");
    let rules = allowed.iter().map(|rule| format!("{}:{}", rule["major"], rule["minor"]));
    let devices = container["linux"]["devices"].as_array().unwrap().iter();
    let numbers = devices.map(|device| format!("{}:{}", device["major"], device["minor"]));
    assert_eq!(sorted(rules), sorted(numbers));
    assert_eq!(container["process"]["env"], serde_json::json!(["NVIDIA_VISIBLE_DEVICES=void"]));
    assert_eq!(container["hooks"], Value::Null);
    assert_eq!(container["mounts"].as_array().unwrap().len(), 2);
    // Every name in the spec is one that a runtime takes.
    let all: Vec<String> = host.devices().into_keys().map(|name| format!("mig-agent/gpu={name}")).collect();
    assert!(Command::new(&program).arg(host.cdi()).args(&all).output().unwrap().status.success());
    let unknown = Command::new(&program).arg(host.cdi()).arg("mig-agent/gpu=MIG-nobody").output().unwrap();
    assert!(!unknown.status.success());
}
