//! The images, run: by nobody, or by root without any of its capabilities, on a root that cannot be written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests"
)]

use std::{fs, path::Path, time::Duration};

use image::{Archive, Container, Ended, Running, User};
use kubelet_sim::{Kubelet, Pod};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SLICE: &str = "nvidia.com/mig-3g.20gb";
/// Long, for a busy machine; nothing is measured by it.
const SOON: Duration = Duration::from_secs(60);

fn run(name: &str, program: &str, arguments: &[&str]) -> Ended {
    let image = Archive::open(name).unwrap();
    let command: Vec<&str> = [program].into_iter().chain(arguments.iter().copied()).collect();
    Container::with_program(&image, User::Image, &command).unwrap().run().unwrap()
}

#[test]
fn the_programs_start_and_say_their_version() {
    for (image, program) in [("mig-agent", "mig-agent"), ("mig-agent", "migctl"), ("fake-nvml", "fake-nvml")] {
        let ended = run(image, program, &["--version"]);
        assert_eq!(
            (ended.code, ended.said.trim()),
            (Some(0), format!("{program} {VERSION}").as_str()),
            "{}",
            ended.complained
        );
    }
}

#[test]
fn who_runs_the_agents_image_by_hand_is_nobody_and_gets_the_agent() {
    let image = Archive::open("mig-agent").unwrap();
    assert_eq!(image.config.config.user, "65532:65532");
    let ended = Container::new(&image, User::Image, &["--no-such-flag"]).unwrap().run().unwrap();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.complained.contains("Usage: mig-agent"), "{}", ended.complained);
}

#[test]
fn migctl_plans_without_a_gpu() {
    let ended = run("mig-agent", "migctl", &["plan", "--model", "A100-SXM4-40GB", "3g.20gb", "4g.20gb"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.said.contains("4g.20gb"), "{}", ended.said);
    let too_much = run("mig-agent", "migctl", &["plan", "--model", "A100-SXM4-40GB", "3g.20gb", "3g.20gb", "3g.20gb"]);
    assert_ne!(too_much.code, Some(0), "{too_much:?}");
}

#[test]
fn there_is_no_shell() {
    let ended = run("mig-agent", "/bin/sh", &["-c", "true"]);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.complained.contains("no such file or directory"), "{}", ended.complained);
}

/// A node's folders, the fake driver's container in one of them and a kubelet in the other.
struct Node {
    folder: tempfile::TempDir,
    fake: Running,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["driver", "kubelet", "scene"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let image = Archive::open("fake-nvml").unwrap();
        let scene = "/usr/share/fake-nvml/scenes/demo.yaml";
        let arguments = [
            "node",
            "--library",
            "/usr/lib/fake-nvml/libnvidia-ml.so.1",
            "--root",
            "/driver",
            "--plain-files",
            "--scene",
            scene,
        ];
        let fake = Container::new(&image, User::Root, &arguments).unwrap();
        let fake = fake.volume(&folder.path().join("driver"), "/driver", "rw").start().unwrap();
        let node = Self { folder, fake };
        let found = || {
            let folders = ["usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib64", "usr/lib"];
            folders.iter().any(|folder| node.driver().join(folder).join("libnvidia-ml.so.1").exists())
        };
        let begun = std::time::Instant::now();
        while !found() {
            assert!(begun.elapsed() < SOON, "there is no driver: {}", node.fake.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }

    fn driver(&self) -> std::path::PathBuf {
        self.folder.path().join("driver")
    }

    fn kubelet(&self) -> std::path::PathBuf {
        self.folder.path().join("kubelet")
    }

    fn agent(&self, user: User) -> Running {
        let image = Archive::open("mig-agent").unwrap();
        let arguments = ["--container-driver-root", "/driver-root", "--poll-interval", "1s"];
        let agent = Container::new(&image, user, &arguments).unwrap();
        let agent =
            agent.volume(&self.driver(), "/driver-root", "ro").volume(&self.kubelet(), "/var/lib/kubelet", "rw");
        agent.start().unwrap()
    }
}

#[tokio::test]
async fn the_agent_gives_a_pod_its_slice() {
    let node = Node::new();
    let kubelet = Kubelet::start(node.kubelet()).await.unwrap();
    let agent = node.agent(User::Root);
    let waited = kubelet.wait_for(|resources| resources.get(SLICE).is_some_and(|of| of.allocatable == 1), SOON).await;
    waited.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let pod = kubelet.admit(Pod::new("train").container("main", [(SLICE, 1)])).await.unwrap();
    let slice = pod.containers["main"].envs.get("CUDA_VISIBLE_DEVICES").expect("a slice");
    assert!(slice.starts_with("MIG-"), "{slice}");
    assert_eq!(agent.stop().unwrap(), Some(0));
}

#[tokio::test]
async fn nobody_may_run_the_agent_where_the_kubelets_folders_are_nobodys() {
    let node = Node::new();
    let kubelet = Kubelet::start(node.kubelet()).await.unwrap();
    give_away(&node.kubelet());
    let agent = node.agent(User::Image);
    let waited = kubelet.wait_for(|resources| resources.get(SLICE).is_some_and(|of| of.allocatable == 1), SOON).await;
    waited.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
}

fn give_away(path: &Path) {
    std::os::unix::fs::chown(path, Some(65532), Some(65532)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
}
