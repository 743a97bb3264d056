//! What containers are given, by each of the ways: the agent as a process, on the fake driver's files.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only test functions for tests; what is skipped says so"
)]

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_nvml::{Layout, copy_library, lay_out};
use kubelet_sim::{ContainerAllocation, Pod};
use node::{Agent, DEADLINE, G1, G3, Node, fake_library, listed};
use serde_json::Value;

const TWO: &str = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}, {profile: 1g.5gb}]}]";

/// A node, and the driver's files on it.
struct Host {
    node: Node,
    root: PathBuf,
}

impl Host {
    fn new(node: Node) -> Self {
        let root = node.path("root");
        let host = Self { node, root };
        host.lay_out(true);
        copy_library(&host.root, &fake_library()).unwrap();
        host
    }

    fn lay_out(&self, instance_nodes: bool) {
        let layout = Layout { root: self.root.clone(), plain_files: false, instance_nodes };
        lay_out(&self.node.world(), &layout).unwrap();
    }

    /// The agent sees the driver's root at a path that the node knows under another name, as in a container.
    fn agent(&self, strategies: &str, more: &[&str]) -> Agent {
        let (root, proc, cdi) = (self.root.to_str().unwrap(), self.root.join("proc"), self.cdi());
        let strategies = format!("--device-list-strategy={strategies}");
        let arguments = [
            strategies.as_str(),
            "--nvidia-driver-root=/run/nvidia/driver",
            "--container-driver-root",
            root,
            "--proc-root",
            proc.to_str().unwrap(),
            "--cdi-dir",
            cdi.to_str().unwrap(),
        ];
        self.node.agent(&[&arguments, more].concat())
    }

    fn cdi(&self) -> PathBuf {
        self.node.path("var/run/cdi")
    }

    fn spec(&self) -> Value {
        serde_json::from_slice(&fs::read(self.cdi().join("mig-agent-gpu.json")).unwrap()).unwrap()
    }

    /// By name, the paths and numbers of each device's own nodes.
    fn devices(&self) -> BTreeMap<String, Vec<String>> {
        let spec = self.spec();
        let node = |node: &Value| format!("{} {}:{}", node["path"].as_str().unwrap(), node["major"], node["minor"]);
        let nodes =
            |device: &Value| device["containerEdits"]["deviceNodes"].as_array().unwrap().iter().map(node).collect();
        let devices = spec["devices"].as_array().unwrap().iter();
        devices.map(|device| (device["name"].as_str().unwrap().to_owned(), nodes(device))).collect()
    }

    /// The minors that the driver's own tree has for each slice, by UUID.
    fn minors(&self) -> BTreeMap<String, [String; 2]> {
        let tree = self.root.join("proc/driver/nvidia/capabilities");
        let minor = |file: PathBuf| {
            let text = fs::read_to_string(file).unwrap();
            text.lines().next().unwrap().trim_start_matches("DeviceFileMinor: ").to_owned()
        };
        let mut minors = BTreeMap::new();
        for gpu in &self.node.world().gpus {
            for instance in &gpu.instances {
                let folder = tree.join(format!("gpu{}/mig/gi{}", gpu.minor, instance.id));
                for compute in &instance.compute {
                    let own = folder.join(format!("ci{}/access", compute.id));
                    minors.insert(compute.uuid.clone(), [minor(folder.join("access")), minor(own)]);
                }
            }
        }
        minors
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    items.into_iter().collect::<BTreeSet<T>>().into_iter().collect()
}

fn paths(container: &ContainerAllocation) -> Vec<&str> {
    sorted(container.devices.iter().map(|device| device.container_path.as_str()))
}

/// Somebody who is not root cannot make device nodes, and what needs them is not tried.
fn makes_nodes(host: &Host) -> bool {
    let made = fs::metadata(host.root.join("dev/nvidiactl")).unwrap().file_type().is_char_device();
    if !made {
        println!("skipped: device nodes cannot be made here");
    }
    made
}

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

/// NVIDIA/k8s-device-plugin#728, by each way that can: one container, two profiles, both within reach.
#[tokio::test]
async fn a_container_with_two_profiles_reaches_both() {
    let host = Host::new(Node::written(TWO));
    let kubelet = host.node.kubelet().await;
    let uuids = sorted([host.node.uuids("3g.20gb"), host.node.uuids("1g.5gb")].concat());
    for strategies in ["volume-mounts", "cdi-annotations", "cdi-cri", "envvar,volume-mounts,cdi-annotations,cdi-cri"] {
        let mut agent = host.agent(strategies, &[]);
        listed(&kubelet, G3, 1, 1).await;
        listed(&kubelet, G1, 1, 1).await;
        let pod = kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
        let main = &pod.containers["main"];
        let collisions: Vec<&str> = main.conflicts.iter().map(|conflict| conflict.key.as_str()).collect();
        assert!(collisions.iter().all(|key| key.ends_with("VISIBLE_DEVICES")), "{strategies}: {collisions:?}");
        let names = uuids.iter().map(|uuid| format!("mig-agent/gpu={uuid}")).collect::<Vec<_>>();
        if strategies.contains("volume-mounts") {
            let mounted = main.mounts.iter().map(|mount| mount.container_path.rsplit_once('/').unwrap().1.to_owned());
            assert_eq!(sorted(mounted), uuids);
            assert_eq!(main.envs["NVIDIA_VISIBLE_DEVICES"], "/var/run/nvidia-container-devices");
        }
        if strategies.contains("cdi-annotations") {
            let annotated = main.annotations.values().flat_map(|value| value.split(',')).map(str::to_owned);
            assert_eq!(sorted(annotated), names);
        }
        if strategies.contains("cdi-cri") {
            assert_eq!(sorted(main.cdi_devices.clone()), names);
        }
        let line = agent.line("k8s-device-plugin#728");
        assert!(line.contains("default/both/main") && line.contains("it reaches all of them"), "{line}");
        kubelet.delete("both").await;
        agent.kill();
        kubelet.wait_for(|resources| resources.values().all(|r| !r.registered), DEADLINE).await.unwrap();
    }
    // By variables alone NVIDIA's runtime is told of one, and that is said.
    let mut agent = host.agent("envvar", &[]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 1, 1).await;
    kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
    let line = agent.line("k8s-device-plugin#728");
    assert!(line.contains("--device-list-strategy=volume-mounts or cdi-cri"), "{line}");
}

#[tokio::test]
async fn device_nodes_are_those_of_the_slice_and_missing_ones_are_made() {
    let host = Host::new(Node::written(TWO));
    if !makes_nodes(&host) {
        return;
    }
    host.lay_out(false);
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("envvar", &["--pass-device-specs"]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 1, 1).await;
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let caps = host.minors()[&uuid].clone().map(|minor| format!("/dev/nvidia-caps/nvidia-cap{minor}"));
    for node in &caps {
        let made = fs::metadata(host.root.join(node.trim_start_matches('/'))).unwrap();
        assert!(made.file_type().is_char_device(), "{node}");
        assert_eq!(made.mode() & 0o777, 0o444, "whatever the agent's umask, containers of ordinary users open it");
    }
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let main = &pod.containers["main"];
    let common = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia0"];
    assert_eq!(paths(main), sorted(common.into_iter().chain(caps.iter().map(String::as_str))));
    for device in &main.devices {
        assert_eq!(device.host_path, format!("/run/nvidia/driver{}", device.container_path));
        assert_eq!(device.permissions, "rw");
    }
    // Two profiles: the nodes of both, and those that they share once.
    kubelet.delete("train").await;
    let both = kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
    assert_eq!(paths(&both.containers["main"]).len(), common.len() + 4);
}

/// NVIDIA's plugin fails as a whole where a node is missing; here it is that slice, and it comes back.
#[tokio::test]
async fn a_slice_without_its_nodes_is_not_offered_as_healthy() {
    let host = Host::new(Node::new("demo"));
    if !makes_nodes(&host) {
        return;
    }
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let node = host.root.join(format!("dev/nvidia-caps/nvidia-cap{}", host.minors()[&uuid][0]));
    fs::remove_file(&node).unwrap();
    fs::create_dir(&node).unwrap();
    let kubelet = host.node.kubelet().await;
    let mut agent = host.agent("envvar", &["--pass-device-specs"]);
    listed(&kubelet, G3, 1, 0).await;
    listed(&kubelet, G1, 9, 9).await;
    let line = agent.line("is not device 241:");
    assert!(line.contains(&uuid) && line.contains("/run/nvidia/driver/dev/nvidia-caps/nvidia-cap"), "{line}");
    agent.ready(|status, _| status.contains("200"));
    fs::remove_dir(&node).unwrap();
    listed(&kubelet, G3, 1, 1).await;
}

#[tokio::test]
async fn a_node_that_can_give_nothing_is_not_ready_and_says_why() {
    let host = Host::new(Node::written(TWO));
    fs::create_dir_all(host.cdi().parent().unwrap()).unwrap();
    fs::write(host.cdi(), "a file in the directory's place").unwrap();
    let kubelet = host.node.kubelet().await;
    let mut agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 0).await;
    let reason = agent.ready(|status, body| status.contains("503") && body.contains("containers: "));
    assert!(reason.contains("unable to write the CDI spec") && reason.contains("--cdi-dir"), "{reason}");
    fs::remove_file(host.cdi()).unwrap();
    listed(&kubelet, G3, 1, 1).await;
    agent.ready(|status, _| status.contains("200"));

    // A driver that goes away, as when it is installed anew, and comes back.
    let library = host.root.join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
    let aside = host.root.join("aside");
    fs::rename(&library, &aside).unwrap();
    agent.ready(|status, body| status.contains("503") && body.contains("neither libcuda.so.1 nor libnvidia-ml.so.1"));
    listed(&kubelet, G3, 1, 0).await;
    fs::rename(&aside, &library).unwrap();
    listed(&kubelet, G3, 1, 1).await;
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

/// Rule 4: with the disk gone, an Allocate is as it was.
#[tokio::test]
async fn an_allocation_needs_no_file() {
    let host = Host::new(Node::written(TWO));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("envvar,cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let calls = host.node.calls_of("nvmlDeviceGetUUID");
    // Before the next look at the files, the answer is the one that was made ready; after it, the slice is Unhealthy.
    fs::rename(&host.root, host.node.path("elsewhere")).unwrap();
    fs::remove_dir_all(host.cdi()).unwrap();
    match kubelet.allocate_raw(G3, vec![vec![uuid.clone()]]).await {
        Ok(answer) => assert_eq!(answer.containers[0].cdi_devices[0].name, format!("mig-agent/gpu={uuid}")),
        Err(refusal) => assert!(refusal.to_string().contains("is unhealthy"), "{refusal}"),
    }
    listed(&kubelet, G3, 1, 0).await;
    assert!(host.node.calls_of("nvmlDeviceGetUUID") >= calls);
    fs::rename(host.node.path("elsewhere"), &host.root).unwrap();
    listed(&kubelet, G3, 1, 1).await;
    assert!(host.devices().contains_key(&uuid), "the spec is there again");
}

#[tokio::test]
async fn a_hostile_driver_root_neither_hangs_the_agent_nor_leads_out_of_itself() {
    let host = Host::new(Node::written(TWO));
    let folder = host.root.join("usr/lib/x86_64-linux-gnu");
    let secret = host.node.path("libcuda.so.1");
    fs::write(&secret, "\u{7f}ELF of the host").unwrap();
    symlink(&secret, folder.join("libcuda.so.1")).unwrap();
    symlink("../../../../libcuda.so.1", folder.join("libcuda.so")).unwrap();
    symlink("libnvidia-nvvm.so.4", folder.join("libnvidia-nvvm.so.4")).unwrap();
    symlink("/dev/zero", folder.join("libnvidia-cfg.so.1")).unwrap();
    symlink(".", host.root.join("usr/lib64")).unwrap();
    fs::create_dir_all(host.root.join("usr/bin")).unwrap();
    symlink("/proc/self/exe", host.root.join("usr/bin/nvidia-smi")).unwrap();
    for n in 0..30_000 {
        fs::File::create(folder.join(format!("libx{n}.so"))).unwrap();
    }
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    let spec = host.spec();
    let mounts = spec["containerEdits"]["mounts"].as_array().unwrap();
    let files = sorted(mounts.iter().map(|mount| mount["hostPath"].as_str().unwrap()));
    assert_eq!(files, ["/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"]);
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

#[tokio::test]
async fn indices_are_nvidias() {
    let host = Host::new(Node::new("demo"));
    let kubelet = host.node.kubelet().await;
    let mut agent = host.agent("envvar", &["--device-id-strategy=index"]);
    agent.line("--device-id-strategy=index");
    listed(&kubelet, G3, 1, 1).await;
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let envs = &pod.containers["main"].envs;
    assert_eq!(envs["CUDA_VISIBLE_DEVICES"], uuid);
    let world = host.node.world();
    let gpu = world.gpus.iter().position(|gpu| gpu.instances.iter().flat_map(|i| &i.compute).any(|c| c.uuid == uuid));
    let (seen, index) = envs["NVIDIA_VISIBLE_DEVICES"].split_once(':').unwrap();
    assert_eq!(seen, gpu.unwrap().to_string());
    assert!(index.parse::<u32>().unwrap() < 7);
}

#[tokio::test]
async fn slices_are_spread_over_gpus_if_asked_for() {
    let host = Host::new(Node::new("eight-by-seven"));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("envvar", &["--preferred-allocation=spread"]);
    listed(&kubelet, G1, 56, 56).await;
    let pod = kubelet.admit(Pod::new("train").container("main", [(G1, 8)])).await.unwrap();
    let given: BTreeSet<&str> = pod.containers["main"].envs["CUDA_VISIBLE_DEVICES"].split(',').collect();
    let world = host.node.world();
    for gpu in &world.gpus {
        let of_gpu = gpu.instances.iter().flat_map(|i| &i.compute).filter(|c| given.contains(c.uuid.as_str()));
        assert_eq!(of_gpu.count(), 1, "{given:?}");
    }
}

#[tokio::test]
async fn whole_gpus_have_no_capabilities() {
    let host = Host::new(Node::written("gpus: [{model: T4}]"));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, "nvidia.com/gpu", 1, 1).await;
    let uuid = host.node.world().gpus[0].uuid.clone();
    assert_eq!(host.devices(), BTreeMap::from([(uuid, vec!["/dev/nvidia0 195:0".to_owned()])]));
    assert!(Path::new(&host.cdi()).is_dir());
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
            println!("skipped: CDI's Go modules are not to be had: {}", String::from_utf8_lossy(&done.stderr));
            return None;
        }
        Err(error) => {
            println!("skipped: Go is missing: {error}");
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

async fn wait_for(is: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while !is() {
        assert!(std::time::Instant::now() < deadline, "it did not come to be");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
