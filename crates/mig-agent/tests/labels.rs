//! The labels of a node, as node-feature-discovery finds them in its folder.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use node::{Agent, DEADLINE, G1, Node, fake_library, listed};
use rustix::process::Signal;
use snapbox::Data;

const FILE: &[&str] = &["--node-labels", "feature-file"];

/// Each scene shows something of its own: sizes, whole GPUs beside cut ones, parts of instances, suffixes, other products.
const SCENES: [&str; 10] = [
    "a100-mixed",
    "a30",
    "compute-instances",
    "demo",
    "eight-by-seven",
    "empty",
    "h100",
    "h200",
    "h200-idle",
    "not-mig-capable",
];

fn folder(node: &Node) -> PathBuf {
    let folder = node.path("features.d");
    fs::create_dir(&folder).unwrap();
    folder
}

/// What NFD would make of the folder: it passes over names that begin with a dot.
fn features(folder: &Path) -> Option<String> {
    let files = folder.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let others: Vec<String> = files.filter(|name| !name.starts_with('.') && name != "mig-agent").collect();
    assert!(others.iter().all(|name| name == "gfd"), "{others:?}");
    fs::read_to_string(folder.join("mig-agent")).ok()
}

fn until<T>(what: &str, agent: &Agent, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn written(folder: &Path, agent: &Agent) -> String {
    until("labels", agent, || features(folder))
}

fn withdrawn(folder: &Path, agent: &Agent) {
    until("no labels", agent, || features(folder).is_none().then_some(()));
}

/// So long that everything has been looked at again several times.
fn several_looks(node: &Node) {
    let before = node.calls_of("nvmlDeviceGetCount_v2");
    let deadline = Instant::now() + DEADLINE;
    while node.calls_of("nvmlDeviceGetCount_v2") < before + 5 {
        assert!(Instant::now() < deadline, "the GPUs are looked at no more");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lay_out_sys(node: &Node) -> String {
    for gpu in &node.world().gpus {
        let folder = node.path("sys/bus/pci/devices").join(gpu.pci.short());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("class"), "0x030200\n").unwrap();
    }
    node.path("sys").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_strategy_has_its_labels_on_every_kind_of_node() {
    for scene in SCENES.into_iter().chain(["rtx-pro-6000"]) {
        let mut all = String::new();
        for strategy in ["none", "single", "mixed"] {
            let node = Node::new(scene);
            let (folder, sys) = (folder(&node), lay_out_sys(&node));
            let kubelet = node.kubelet().await;
            let agent = node.agent(&[FILE, &["--mig-strategy", strategy, "--sys-root", &sys]].concat());
            all.push_str(&format!("# {scene}, {strategy}\n{}\n", written(&folder, &agent)));
            drop(kubelet);
        }
        for line in all.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=').unwrap();
            let name = name.strip_prefix("nvidia.com/").unwrap();
            assert!(name.len() <= 63 && value.len() <= 63, "{line}");
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/labels").join(format!("{scene}.txt"));
        snapbox::Assert::new().action_env("SNAPSHOTS").eq(all, Data::read_from(&file, None).raw());
    }
}

#[tokio::test]
async fn the_file_follows_the_layout_and_goes_with_the_agent() {
    let node = Node::new("demo");
    let folder = folder(&node);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(FILE);
    let text = written(&folder, &agent);
    assert!(text.contains("nvidia.com/mig-3g.20gb.count=1\n") && text.contains("nvidia.com/mig-1g.5gb.count=9\n"));
    let file = folder.join("mig-agent");
    let before = fs::metadata(&file).unwrap();
    // NFD's worker need not be root.
    assert_eq!(before.permissions().mode() & 0o777, 0o644);
    several_looks(&node);
    let after = fs::metadata(&file).unwrap();
    assert_eq!((after.ino(), after.mtime_nsec()), (before.ino(), before.mtime_nsec()), "written without need");

    node.recut("gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 7g.40gb }] }]");
    let text =
        until("the new layout", &agent, || features(&folder).filter(|text| text.contains("mig-7g.40gb.count=1")));
    assert!(!text.contains("mig-3g.20gb") && text.contains("nvidia.com/gpu.count=1\n"), "{text}");
    assert_ne!(fs::metadata(&file).unwrap().ino(), before.ino(), "a reader could meet a half-written file");

    // Whoever removes or changes it, it comes back.
    fs::remove_file(&file).unwrap();
    assert_eq!(written(&folder, &agent), text);
    fs::write(&file, "nvidia.com/gpu.count=99\n").unwrap();
    until("our own words", &agent, || features(&folder).filter(|now| *now == text));

    agent.send(Signal::TERM);
    assert!(agent.ended().success());
    assert_eq!(folder.read_dir().unwrap().count(), 0, "something stayed behind");
    drop(kubelet);
}

#[tokio::test]
async fn what_a_killed_agent_left_is_taken_over() {
    let node = Node::new("demo");
    let folder = folder(&node);
    let _kubelet = node.kubelet().await;
    let agent = node.agent(FILE);
    written(&folder, &agent);
    agent.kill();
    let file = folder.join("mig-agent");
    let before = fs::metadata(&file).unwrap().ino();
    fs::write(folder.join(".mig-agent.tmp"), "half").unwrap();
    let mut agent = node.agent(FILE);
    agent.line("labels are in");
    assert_eq!(fs::metadata(&file).unwrap().ino(), before);
    agent.send(Signal::TERM);
    assert!(agent.ended().success());
    assert_eq!(folder.read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn where_gfd_runs_there_are_no_labels_of_ours() {
    let node = Node::new("demo");
    let folder = folder(&node);
    let _kubelet = node.kubelet().await;
    let gfds = folder.join("gfd");
    fs::write(&gfds, "nvidia.com/gfd.timestamp=1\n").unwrap();
    let mut agent = node.agent(FILE);
    agent.line("no labels: NVIDIA's gpu-feature-discovery writes them");
    several_looks(&node);
    assert_eq!(features(&folder), None);
    // The driver was asked for nothing that only labels need.
    assert_eq!(node.calls_of("nvmlDeviceGetCudaComputeCapability"), 0);

    fs::remove_file(&gfds).unwrap();
    written(&folder, &agent);
    fs::write(&gfds, "nvidia.com/gfd.timestamp=2\n").unwrap();
    withdrawn(&folder, &agent);
    // One that was killed leaves its file, and writes it no more.
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&gfds).unwrap().set_modified(long_ago).unwrap();
    written(&folder, &agent);
    assert_eq!(agent.log().matches("NVIDIA's gpu-feature-discovery writes them").count(), 2, "{}", agent.log());
    assert!(gfds.exists());
}

#[tokio::test]
async fn labels_begin_when_nfds_folder_appears() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(FILE);
    let line = agent.line("no labels: ");
    assert!(line.contains(r#""level":"INFO""#) && line.contains("node-feature-discovery does not run"), "{line}");
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
    several_looks(&node);
    assert_eq!(agent.log().matches("no labels").count(), 1, "{}", agent.log());
    let folder = folder(&node);
    written(&folder, &agent);
    fs::remove_dir_all(&folder).unwrap();
    until("the folder's loss", &agent, || (agent.log().matches("no labels").count() == 2).then_some(()));
    fs::create_dir(&folder).unwrap();
    written(&folder, &agent);
}

/// Each thing that only labels say costs one call, made after everything that serving needs, and never again.
#[tokio::test]
async fn the_driver_is_asked_only_for_labels_that_somebody_wants() {
    let asked = |node: &Node| {
        let functions = [
            "nvmlSystemGetCudaDriverVersion_v2",
            "nvmlDeviceGetCudaComputeCapability",
            "nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetAttributes_v2",
        ];
        functions.map(|function| node.calls_of(function))
    };
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let agent = node.agent(FILE);
    listed(&kubelet, G1, 56, 56).await;
    several_looks(&node);
    assert_eq!(asked(&node), [0, 0, 0, 0]);
    let folder = folder(&node);
    written(&folder, &agent);
    assert_eq!(asked(&node), [1, 8, 8, 1]);
    several_looks(&node);
    assert_eq!(asked(&node), [1, 8, 8, 1]);
}

#[tokio::test]
async fn the_kubelet_goes_first() {
    let node = Node::new("demo");
    let folder = folder(&node);
    let agent = node.agent(FILE);
    several_looks(&node);
    assert_eq!(node.calls_of("nvmlDeviceGetCudaComputeCapability"), 0);
    let _kubelet = node.kubelet().await;
    written(&folder, &agent);
}

#[tokio::test]
async fn what_the_driver_does_not_tell_is_left_out() {
    let node = Node::new("demo");
    node.add_fault("nvmlDeviceGetMemoryInfo", Some("NO_PERMISSION"), None);
    node.add_fault("nvmlSystemGetCudaDriverVersion_v2", Some("FUNCTION_NOT_FOUND"), None);
    let folder = folder(&node);
    let _kubelet = node.kubelet().await;
    let agent = node.agent(FILE);
    let text = written(&folder, &agent);
    assert!(!text.contains("nvidia.com/gpu.memory") && !text.contains("cuda.runtime"), "{text}");
    assert!(text.contains("nvidia.com/gpu.family=ampere") && text.contains("mig-1g.5gb.memory=4864"), "{text}");
}

#[tokio::test]
async fn what_failed_once_is_asked_again() {
    let node = Node::new("demo");
    node.add_fault("nvmlDeviceGetMemoryInfo", Some("UNKNOWN"), None);
    let folder = folder(&node);
    let _kubelet = node.kubelet().await;
    let agent = node.agent(FILE);
    let text = written(&folder, &agent);
    assert!(!text.contains("nvidia.com/gpu.memory"), "{text}");
    node.clear_faults();
    let text = until("the memory", &agent, || features(&folder).filter(|text| text.contains("nvidia.com/gpu.memory")));
    assert!(text.contains("nvidia.com/gpu.family=ampere"), "{text}");
}

/// A label that flaps would move pods about; that the devices are bad the kubelet hears otherwise.
#[tokio::test]
async fn a_lost_gpu_keeps_its_labels() {
    let node = Node::new("demo");
    let folder = folder(&node);
    let kubelet = node.kubelet().await;
    let agent = node.agent(FILE);
    let before = written(&folder, &agent);
    node.lose_gpu(0, true);
    listed(&kubelet, G1, 9, 7).await;
    several_looks(&node);
    assert_eq!(features(&folder), Some(before));
}

#[tokio::test]
async fn a_node_without_gpus_has_no_file() {
    let node = Node::written("gpus: []");
    let folder = folder(&node);
    fs::write(folder.join("mig-agent"), "nvidia.com/gpu.count=1\n").unwrap();
    let _kubelet = node.kubelet().await;
    let agent = node.agent(FILE);
    withdrawn(&folder, &agent);
}

#[tokio::test]
async fn a_folder_that_takes_no_file_is_named_once_and_serving_goes_on() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    // Nobody may make files here, root neither: as in a folder that is mounted read-only.
    let mut agent = node.agent(&[FILE, &["--features-dir", "/sys/kernel"]].concat());
    let line = agent.line("labels are not written: /sys/kernel: ");
    assert!(line.contains(r#""level":"WARN""#), "{line}");
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
    several_looks(&node);
    assert_eq!(agent.log().matches("labels are not written").count(), 1, "{}", agent.log());
    agent.send(Signal::TERM);
    assert!(agent.ended().success());
}

/// A file system of the agent's own, of one page, taken by another's file.
#[tokio::test]
async fn labels_wait_for_room_on_a_full_disk() {
    let node = Node::new("demo");
    let folder = folder(&node);
    let inside = ["unshare", "--mount", "--map-root-user", "sh", "-c"];
    let fill = r#"mount -t tmpfs -o size=4096 full "$0" && head -c 4096 /dev/zero >"$0/filler" && exec "$@""#;
    let as_the_agent = node.agent_command(&fake_library(), FILE);
    let mut command = Command::new(inside[0]);
    command.args(&inside[1..]).arg(fill).arg(&folder).arg(as_the_agent.get_program()).args(as_the_agent.get_args());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for (name, value) in as_the_agent.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let mut probe = Command::new(inside[0]);
    if !probe.args(&inside[1..]).arg("mount -t tmpfs probe /tmp").output().is_ok_and(|done| done.status.success()) {
        #[allow(clippy::print_stderr, reason = "for those who read the test's output")]
        {
            eprintln!("skipped: no mount namespace can be had here");
        }
        return;
    }
    let kubelet = node.kubelet().await;
    let mut agent = Agent::start(command, node.path("agent.log"));
    agent.line("labels are not written: ");
    assert!(agent.log().contains("No space left on device"), "{}", agent.log());
    listed(&kubelet, G1, 9, 9).await;
    several_looks(&node);
    assert_eq!(agent.log().matches("labels are not written").count(), 1, "{}", agent.log());
    // Through the agent's own view of the file system.
    let seen = PathBuf::from(format!("/proc/{}/root{}", agent.id(), folder.display()));
    fs::remove_file(seen.join("filler")).unwrap();
    written(&seen, &agent);
}

#[tokio::test]
async fn off_means_off() {
    let node = Node::new("demo");
    let folder = folder(&node);
    let kubelet = node.kubelet().await;
    let agent = node.agent(&["--node-labels", "off"]);
    listed(&kubelet, G1, 9, 9).await;
    several_looks(&node);
    assert_eq!(features(&folder), None);
    assert!(!agent.log().contains("labels"), "{}", agent.log());
}

/// The page lists every label there can be, and no other.
#[test]
fn every_label_is_documented() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut written = BTreeSet::new();
    for file in own.join("tests/labels").read_dir().unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned());
        written.extend(names.map(|name| match name.strip_prefix("nvidia.com/mig-") {
            // What describes a device is never without one of these.
            Some(rest) => {
                let attributes = [
                    "product",
                    "count",
                    "replicas",
                    "sharing-strategy",
                    "memory",
                    "multiprocessors",
                    "slices",
                    "engines",
                ];
                let at = attributes.iter().find_map(|word| rest.find(&format!(".{word}"))).unwrap();
                format!("nvidia.com/mig-PROFILE{}", &rest[at..])
            }
            None => name,
        }));
    }
    // Under single, what is said of a profile is said as of GPUs.
    let of_gpus = |name: &String| {
        name.contains("/gpu.multiprocessors") || name.contains("/gpu.slices") || name.contains("/gpu.engines")
    };
    written.retain(|name| !of_gpus(name));
    let page = fs::read_to_string(own.join("../../docs/labels.md")).unwrap();
    let tables = page.split("### Where GFD").next().unwrap();
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `nvidia.com/")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(|name| format!("nvidia.com/{name}")).collect();
    assert_eq!(documented, written);
}
