//! What can be wrong with a node: each gives one clear line that says what to do, the rest goes on, nothing loops hot, and
//! what is mended is noticed without a restart.

mod node;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use kubelet_sim::Kubelet;
use node::{Agent, DEADLINE, G1, G3, Node, fake_library, listed};

const GPU: &str = "nvidia.com/gpu";

/// A log that grows with each attempt would fill the node's disk. What is due from before may still come.
fn stays_silent(node: &Node, agent: &mut Agent, function: &str) {
    agent.line("serving HTTP");
    let started = Instant::now();
    loop {
        let lines = agent.log().lines().count();
        let calls = node.calls_of(function);
        while node.calls_of(function) < calls + 10 {
            std::thread::sleep(Duration::from_millis(5));
        }
        if agent.log().lines().count() == lines {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{}", agent.log());
    }
}

#[tokio::test]
async fn a_driver_that_comes_late_is_waited_for() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let library = node.path("libnvidia-ml.so.1");
    let mut agent = node.agent_with(&library, &[]);
    agent.line("there is no NVML library at");
    let body =
        agent.ready(|status, body| status.contains("503") && body.starts_with("driver: there is no NVML library"));
    assert!(body.contains("check --nvml-library"), "{body}");
    std::fs::copy(fake_library(), &library).unwrap();
    listed(&kubelet, G1, 9, 9).await;
    assert_eq!(agent.log().matches("there is no NVML library").count(), 1, "one line, however often it was tried");
}

#[tokio::test]
async fn no_driver_anywhere_is_said_with_where_it_was_looked_for() {
    let node = Node::bare();
    let root = node.path("driver");
    // An empty variable is none.
    let mut agent = node.agent_with(&PathBuf::new(), &["--nvidia-driver-root", root.to_str().unwrap()]);
    agent.line("unable to load NVML");
    drop(agent);

    let mut command = Command::new(env!("CARGO_BIN_EXE_mig-agent"));
    command
        .env_clear()
        .args(["--listen", "127.0.0.1:0", "--nvidia-driver-root"])
        .arg(&root)
        .arg("--kubelet-root")
        .arg(node.kubelet_root());
    let mut agent = Agent::start(command, node.path("agent.log"));
    let line = agent.line("unable to load NVML");
    assert!(line.contains("--nvidia-driver-root") && line.contains(root.to_str().unwrap()), "{line}");
}

#[tokio::test]
async fn a_driver_below_its_root_is_found() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    // As the GPU operator's driver container leaves it.
    let folder = node.path("host/run/nvidia/driver/usr/lib/x86_64-linux-gnu");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(fake_library(), folder.join("libnvidia-ml.so.1")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mig-agent"));
    command.env_clear().env("FAKE_NVML_STATE", node.path("state")).args(["--listen", "127.0.0.1:0"]);
    command.arg("--nvidia-driver-root").arg(node.path("host")).arg("--kubelet-root").arg(node.kubelet_root());
    let _agent = Agent::start(command, node.path("agent.log"));
    listed(&kubelet, G1, 9, 9).await;
}

#[tokio::test]
async fn a_library_without_mig_functions_offers_whole_gpus() {
    let node = Node::bare();
    let kubelet = node.kubelet().await;
    let library = node.path("old.so");
    let source = node.path("old.c");
    std::fs::write(&source, include_str!("node/old_driver.c")).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    // Nor does it tell of errors.
    let mut agent = node.agent_with(&library, &["--advertise-unwatched"]);
    let resource = listed(&kubelet, GPU, 1, 1).await;
    assert_eq!(resource.devices[0].id, "GPU-0a0a0a0a-0000-1111-2222-333333333333");
    agent.line("MIG needs R450 or later");
    assert_eq!(agent.log().matches("R450").count(), 1);
}

#[tokio::test]
async fn an_nvml_that_does_not_start_is_not_ready_and_tried_again() {
    let node = Node::new("demo");
    node.add_fault("nvmlInit_v2", Some("DRIVER_NOT_LOADED"), None);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    let line = agent.line("NVML does not start");
    assert!(line.contains("is the nvidia kernel module loaded"), "{line}");
    stays_silent(&node, &mut agent, "nvmlInit_v2");
    agent.ready(|status, body| status.contains("503") && body.contains("NVML does not start"));
    assert!(agent.get("/healthz").0.contains("200"));
    node.clear_faults();
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
}

#[tokio::test]
async fn a_driver_that_fails_as_a_whole_makes_everything_unhealthy_until_it_is_back() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    node.add_fault("nvmlDeviceGetCount_v2", Some("LIB_RM_VERSION_MISMATCH"), None);
    listed(&kubelet, G1, 9, 0).await;
    agent.line("the driver was upgraded without a reboot");
    stays_silent(&node, &mut agent, "nvmlDeviceGetCount_v2");
    node.clear_faults();
    listed(&kubelet, G1, 9, 9).await;
}

#[tokio::test]
async fn gpus_that_cannot_be_cut_are_offered_whole() {
    let node = Node::new("not-mig-capable");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, GPU, 1, 1).await;
    listed(&kubelet, G3, 1, 1).await;
    agent.line("cannot be cut (no MIG): offered whole");
}

#[tokio::test]
async fn a_gpu_on_which_nothing_is_cut_is_named_and_what_to_do() {
    let node = Node::new("empty");
    let _kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    let line = agent.line("MIG is on and nothing is cut");
    assert!(line.contains("create instances"), "{line}");
    stays_silent(&node, &mut agent, "nvmlDeviceGetCount_v2");
    assert!(agent.get("/readyz").0.contains("200"), "nothing to offer is no fault");
}

#[tokio::test]
async fn a_gpu_that_is_lost_from_the_start_leaves_the_others() {
    let node = Node::new("one-gpu-lost");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, "nvidia.com/mig-7g.40gb", 1, 1).await;
    listed(&kubelet, G3, 2, 2).await;
    let line = agent.line("not offered: ");
    assert!(line.contains("on GPU 1") && line.contains("needs a reset or a reboot"), "{line}");
    stays_silent(&node, &mut agent, "nvmlDeviceGetCount_v2");
}

/// The default installation has no capability at all, and the driver lets only holders of MIG's monitor capability ask for
/// GPU instances.
#[tokio::test]
async fn a_missing_permission_is_named_and_done_without() {
    let node = Node::new("a100-mixed");
    node.add_fault("nvmlDeviceGetGpuInstanceById", Some("NO_PERMISSION"), None);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    let line = agent.line("nvmlDeviceGetGpuInstanceById failed on GPU 0");
    assert!(line.contains("/dev/nvidia-caps/nvidia-cap2") && line.contains("NVIDIA_MIG_MONITOR_DEVICES=all"), "{line}");
    for (name, count) in [("4g.20gb", 1), ("2g.10gb", 1), ("1g.5gb.me", 1), ("1g.20gb", 2), ("3g.40gb", 1)] {
        listed(&kubelet, &format!("nvidia.com/mig-{name}"), count, count).await;
    }
    listed(&kubelet, GPU, 2, 2).await;
    stays_silent(&node, &mut agent, "nvmlDeviceGetCount_v2");
}

/// Other people's pretended drivers have the functions that NVIDIA's plugin calls, and few besides.
#[tokio::test]
async fn a_library_that_lacks_what_is_not_needed_will_do() {
    let node = Node::new("demo");
    for function in [
        "nvmlSystemGetNVMLVersion",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetGpuInstanceById",
        "nvmlDeviceGetGpuInstanceProfileInfoByIdV",
        "nvmlDeviceGetGpuInstanceProfileInfoV",
    ] {
        node.add_fault(function, Some("NOT_SUPPORTED"), None);
    }
    node.add_fault("nvmlSystemGetDriverVersion", Some("FUNCTION_NOT_FOUND"), None);
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;
}

/// Profiles that differ in nothing but graphics cannot be told apart without it.
#[tokio::test]
async fn a_gpu_whose_profiles_look_alike_needs_the_permission() {
    let node = Node::new("rtx-pro-6000");
    node.add_fault("nvmlDeviceGetGpuInstanceById", Some("NO_PERMISSION"), None);
    let _kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    let line = agent.line("not offered: nvmlDeviceGetGpuInstanceById failed");
    assert!(line.contains("nvidia-cap2"), "{line}");
}

#[tokio::test]
async fn older_drivers_that_give_no_names_get_them_computed() {
    for absent in [
        &["nvmlDeviceGetGpuInstanceProfileInfoByIdV"][..],
        &["nvmlDeviceGetGpuInstanceProfileInfoByIdV", "nvmlDeviceGetGpuInstanceProfileInfoV"],
    ] {
        let node = Node::new("demo");
        for function in absent {
            node.add_fault(function, Some("FUNCTION_NOT_FOUND"), None);
        }
        let kubelet = node.kubelet().await;
        let _agent = node.agent(&[]);
        listed(&kubelet, G1, 9, 9).await;
        listed(&kubelet, G3, 1, 1).await;
    }
}

#[tokio::test]
async fn a_node_without_gpus_says_so() {
    let node = Node::written("gpus: []");
    let _kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    agent.line("the driver shows no GPU");
    stays_silent(&node, &mut agent, "nvmlDeviceGetCount_v2");
}

#[tokio::test]
async fn a_kubelet_directory_in_which_no_socket_can_be_made_is_named_once() {
    let node = Node::new("demo");
    // Long enough for kubelet.sock, too long for ours: the same error path as a directory mounted read-only.
    let length = 107 - "/device-plugins/kubelet.sock".len();
    let parent = node.path("");
    let root = parent.join("k".repeat(length - parent.as_os_str().len()));
    let _kubelet = Kubelet::start(&root).await.unwrap();
    let mut agent = node.agent(&["--log-level", "info"]);
    agent.line("no kubelet at");
    drop(agent);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mig-agent"));
    command.env_clear().env("FAKE_NVML_STATE", node.path("state")).env("NVML_LIBRARY", fake_library());
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--kubelet-root"]).arg(&root);
    let mut agent = Agent::start(command, node.path("agent.log"));
    agent.line("unable to make sockets in");
    agent.ready(|status, body| status.contains("503") && body.matches("unable to make sockets").count() == 3);
    assert_eq!(agent.log().matches("unable to make sockets").count(), 1, "{}", agent.log());
}

#[tokio::test]
async fn a_kubelet_that_refuses_is_asked_ever_more_seldom() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    kubelet.kill().await;
    // The socket file is there and nobody answers.
    let mut agent = node.agent(&[]);
    agent.line("not registered: unable to reach the kubelet");
    assert_eq!(agent.log().matches("not registered: unable to reach the kubelet").count(), 1, "{}", agent.log());
    kubelet.start_again().await.unwrap();
    listed(&kubelet, G1, 9, 9).await;
}

/// HTTP is open to the cluster: what anybody does there must not reach the kubelet's way in.
#[tokio::test]
async fn idle_http_connections_take_nothing_from_the_kubelet() {
    use std::io::{Read as _, Write as _};
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let address = agent.http_address();
    let mut idle: Vec<std::net::TcpStream> =
        (0..200).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    for stream in &mut idle {
        stream.write_all(b"GET /healthz HT").unwrap();
    }
    kubelet.admit(kubelet_sim::Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    // Those that say nothing are hung up on, and the probe gets its answer.
    assert!(agent.get("/healthz").0.contains("200"));
    let mut rest = String::new();
    idle[0].read_to_string(&mut rest).unwrap();
}

#[test]
fn wrong_arguments_end_with_two_and_a_used_port_with_one() {
    let node = Node::bare();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mig-agent")).env_clear().args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["--mig-strategy", "both"]);
    assert!(code == Some(2) && text.contains("expected none, single or mixed"), "{text}");
    let (code, text) = run(&["--resource-domain", "UPPER"]);
    assert!(code == Some(2) && text.contains("expected a DNS name"), "{text}");
    let full = std::fs::File::create("/dev/full").unwrap();
    let version = Command::new(env!("CARGO_BIN_EXE_mig-agent")).arg("--version").stdout(full).output().unwrap();
    let text = String::from_utf8(version.stderr).unwrap();
    assert!(version.status.code() == Some(1) && text.contains("unable to write the answer: No space left"), "{text}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let root = node.kubelet_root();
    let (code, text) = run(&["--listen", &address, "--kubelet-root", root.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("choose another address with --listen"), "{text}");
}

#[tokio::test]
async fn strategies_are_nvidias_with_gpus_that_do_not_fit_left_out() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--mig-strategy", "single"]);
    // GPU 1 is cut into one kind; GPU 0 is not, and is named.
    listed(&kubelet, GPU, 7, 7).await;
    agent.line("the strategy single offers the node's 1g.5gb devices");
    drop(agent);
    kubelet.wait_for(|resources| resources.values().all(|resource| !resource.registered), DEADLINE).await.unwrap();
    let _agent = node.agent(&["--mig-strategy", "none", "--resource-domain", "example.org"]);
    listed(&kubelet, "example.org/gpu", 2, 2).await;
}
