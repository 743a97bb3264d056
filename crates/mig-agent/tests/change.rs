//! The driver and its GPUs change under a running agent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod node;
mod scrape;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kubelet_sim::{Kubelet, Pod, What};
use node::{DEADLINE, G1, G3, Node, fake_library, listed};
use scrape::Scrape;

const G2: &str = "nvidia.com/mig-2g.10gb";
/// Nothing is seen by looking again.
const NEVER: &str = "--poll-interval=24h";

fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How often a stream was opened for a resource.
fn streams(kubelet: &Kubelet, name: &str) -> usize {
    let opened = |what: &What| matches!(what, What::StreamOpened { resource } if resource == name);
    kubelet.events().iter().filter(|event| opened(&event.what)).count()
}

/// NVIDIA's #992, and #240: after a change of the cut their plugin has to be started anew, and what is gone stays.
#[tokio::test]
async fn a_change_of_the_cut_is_told_by_the_driver_and_reaches_the_kubelet() {
    let slices = |text: &str| format!("gpus:\n- {{model: A100-SXM4-40GB, instances: [{text}]}}\n");
    let node = Node::written(&slices("{profile: 3g.20gb, placement: 4}, {profile: 1g.5gb, placement: 0}"));
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[NEVER]);
    listed(&kubelet, G1, 1, 1).await;
    listed(&kubelet, G3, 1, 1).await;

    node.recut_told(&slices("{profile: 3g.20gb, placement: 4}, {profile: 2g.10gb, placement: 0}"));
    listed(&kubelet, G2, 1, 1).await;
    listed(&kubelet, G1, 0, 0).await;
    node.recut_told(&slices(
        "{profile: 3g.20gb, placement: 4}, {profile: 1g.5gb, placement: 0}, {profile: 1g.5gb, placement: 1}",
    ));
    listed(&kubelet, G1, 2, 2).await;
    listed(&kubelet, G2, 0, 0).await;
    node.recut_told("gpus:\n- {model: A100-SXM4-40GB, mig: false}\n");
    listed(&kubelet, "nvidia.com/gpu", 1, 1).await;
    listed(&kubelet, G3, 0, 0).await;
    // Then quiet: whatever else changes, nothing more is said of what is gone.
    let since = kubelet.events().len();
    for _ in 0..3 {
        node.recut_told(&slices("{profile: 1g.5gb, placement: 0}"));
        listed(&kubelet, G1, 1, 1).await;
        node.recut_told("gpus:\n- {model: A100-SXM4-40GB, mig: false}\n");
        listed(&kubelet, "nvidia.com/gpu", 1, 1).await;
        listed(&kubelet, G1, 0, 0).await;
    }
    let said = |what: &What| match what {
        What::List { resource, .. } | What::RegisterReceived { resource, .. } => [G2, G3].contains(&resource.as_str()),
        _ => false,
    };
    let said: Vec<_> = kubelet.events_since(since).into_iter().filter(|event| said(&event.what)).collect();
    assert!(said.is_empty(), "{said:#?}");
    for resource in [G1, G2, G3] {
        assert_eq!(streams(&kubelet, resource), 1, "{resource} keeps the stream that it had");
    }
    agent.ready(|status, _| status.contains("200"));
}

#[tokio::test]
async fn a_burst_of_changes_is_read_in_few_passes() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[NEVER]);
    agent.ready(|status, _| status.contains("200"));
    let before = node.calls_of("nvmlDeviceGetCount_v2");
    let scene = "gpus:\n- {model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}\n";
    for _ in 0..200 {
        node.tell_of_a_change();
    }
    node.recut_told(scene);
    listed(&kubelet, G1, 1, 1).await;
    let passes = node.calls_of("nvmlDeviceGetCount_v2") - before;
    assert!((1..100).contains(&passes), "{passes}");
}

/// A wait is in whole milliseconds, and what is left until the next look seldom is.
#[tokio::test]
async fn until_the_next_look_the_driver_is_asked_seldom() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&["--poll-interval=50ms"]);
    listed(&kubelet, G1, 9, 9).await;
    let counts = || (node.calls_of("nvmlEventSetWait_v2"), node.calls_of("nvmlDeviceGetCount_v2"));
    let before = counts();
    until("looks", || counts().1 >= before.1 + 40);
    let after = counts();
    let (waits, looks) = (after.0 - before.0, after.1 - before.1);
    assert!(waits < looks * 5, "{waits} waits in {looks} looks");
}

#[tokio::test]
async fn another_library_in_the_old_ones_place_is_loaded() {
    let node = Node::new("demo");
    let folder = node.path("driver");
    fs::create_dir(&folder).unwrap();
    let put = |name: &str| -> PathBuf {
        let path = folder.join(name);
        fs::copy(fake_library(), &path).unwrap();
        path
    };
    let library = put("libnvidia-ml.so.1");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent_with(&library, &[]);
    agent.ready(|status, _| status.contains("200"));
    // The kubelet may note a list a moment after the agent has sent it.
    for (resource, devices) in [(G1, 9), ("nvidia.com/mig-2g.10gb", 1), (G3, 1)] {
        listed(&kubelet, resource, devices, devices).await;
    }
    let (lists, begun) = (kubelet.events().len(), node.calls_of("nvmlInit_v2"));
    fs::rename(put("libnvidia-ml.so.1.new"), &library).unwrap();
    agent.line("the driver's library was replaced");
    until("NVML is started anew", || node.calls_of("nvmlInit_v2") > begun);
    let maps = || fs::read_to_string(agent.in_proc("maps")).unwrap();
    until("the old one is let go", || !maps().lines().any(|line| line.ends_with("libnvidia-ml.so.1 (deleted)")));
    until("the new one is loaded", || maps().contains("/driver/libnvidia-ml.so.1"));
    agent.ready(|status, _| status.contains("200"));
    let unchanged = |what: &What| !matches!(what, What::List { .. } | What::StreamOpened { .. });
    assert!(
        kubelet.events()[lists..].iter().all(|event| unchanged(&event.what)),
        "nobody else takes notice: {:?}",
        &kubelet.events()[lists..]
    );
}

/// NVIDIA's #2038: one lost GPU, and no pod of the node starts.
#[tokio::test]
async fn nvml_is_started_anew_for_a_lost_gpu_and_the_others_go_on() {
    let scene = "gpus:\n- {model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}\n- {model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}\n";
    let node = Node::written(scene);
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&["--poll-interval=10ms"]);
    listed(&kubelet, G1, 1, 1).await;
    listed(&kubelet, G3, 1, 1).await;
    let begun = node.calls_of("nvmlInit_v2");
    node.lose_gpu(0, true);
    listed(&kubelet, G1, 1, 0).await;
    until("NVML is started anew, and again", || node.calls_of("nvmlInit_v2") >= begun + 2);
    node.lose_gpu(0, false);
    listed(&kubelet, G1, 1, 1).await;
    let faulty = |what: &What| matches!(what, What::List { resource, devices, healthy, .. } if resource == G3 && healthy < devices);
    assert!(!kubelet.events().iter().any(|event| faulty(&event.what)), "the other GPU was well all the time");
}

#[tokio::test]
async fn a_gpu_that_the_driver_counts_no_more_is_not_forgotten() {
    // The first, so that the other one has its index by then.
    let (gone, stays) = ("GPU-aaaaaaaa-0000-4000-8000-000000000000", "GPU-aaaaaaaa-0000-4000-8000-000000000001");
    let gpu = |uuid: &str, profile: &str| {
        format!("- {{model: A100-SXM4-40GB, uuid: {uuid}, instances: [{{profile: {profile}}}]}}\n")
    };
    let one = format!("gpus:\n{}", gpu(stays, "1g.5gb"));
    let two = format!("gpus:\n{}{}", gpu(gone, "3g.20gb"), gpu(stays, "1g.5gb"));
    let node = Node::written(&two);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--poll-interval=50ms"]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    node.recut(&one);
    let line = agent.line("is not among the driver's GPUs any more");
    assert!(line.contains(gone), "{line}");
    listed(&kubelet, G3, 1, 0).await;
    let of = |scrape: &Scrape, name: &str, uuid: &str| scrape.sum(name, &[("UUID", uuid)]);
    let healthy = |scrape: &Scrape| of(scrape, "mig_agent_gpu_healthy", gone);
    let scrape = Scrape::until(&mut agent, "it is missed", |scrape| healthy(scrape) == Some(0.0));
    assert_eq!(of(&scrape, "mig_agent_gpu_left_out", gone), Some(1.0));
    let is_gone = &[("UUID", gone), ("reason", "GpuIsGone")];
    assert_eq!(scrape.sum("mig_agent_gpu_fault", is_gone), Some(1.0));
    assert_eq!(of(&scrape, "mig_agent_gpu_left_out", stays), Some(0.0), "it is not to blame");
    listed(&kubelet, G1, 1, 1).await;
    agent.ready(|status, _| status.contains("200"));
    node.recut(&two);
    listed(&kubelet, G3, 1, 1).await;
    Scrape::until(&mut agent, "it is back", |scrape| healthy(scrape) == Some(1.0));
}

/// The wait for events fails before a reading shows of which GPU, and the others are not to blame.
#[tokio::test]
async fn a_gpu_whose_loss_is_seen_late_takes_no_other_along() {
    let scene = "gpus:\n- {model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}\n- {model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}\n";
    let node = Node::written(scene);
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&["--poll-interval=6s"]);
    listed(&kubelet, G1, 1, 1).await;
    listed(&kubelet, G3, 1, 1).await;
    node.add_fault("nvmlEventSetWait_v2", Some("GPU_IS_LOST"), None);
    // Two waits have failed by then, and the next reading is due much later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.lose_gpu(0, true);
    node.clear_faults();
    listed(&kubelet, G1, 1, 0).await;
    node.lose_gpu(0, false);
    listed(&kubelet, G1, 1, 1).await;
    let faulty = |what: &What| matches!(what, What::List { resource, devices, healthy, .. } if resource == G3 && healthy < devices);
    assert!(!kubelet.events().iter().any(|event| faulty(&event.what)), "the other GPU was well all the time");
}

#[tokio::test]
async fn a_driver_that_is_taken_away_and_comes_back_newer_is_read_anew() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    agent.ready(|status, _| status.contains("200"));
    let count = node.uuids("1g.5gb").len();
    listed(&kubelet, G1, count, count).await;
    node.add_fault("nvmlDeviceGetCount_v2", Some("DRIVER_NOT_LOADED"), None);
    node.add_fault("nvmlInit_v2", Some("DRIVER_NOT_LOADED"), None);
    listed(&kubelet, G1, count, 0).await;
    let body = agent.ready(|status, _| status.contains("503"));
    assert!(body.contains("kernel module"), "{body}");
    // In one step: the faults are gone with the old machine.
    node.recut("driver: \"595.10\"\ngpus:\n- {model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}\n");
    listed(&kubelet, G3, 1, 1).await;
    agent.inventory(|inventory| inventory.to_string().contains("595.10"));
    agent.ready(|status, _| status.contains("200"));
}

/// The thread waits in the driver, which may hang there too.
#[tokio::test]
async fn a_wait_without_end_is_told() {
    let node = Node::new("demo");
    let _kubelet = node.kubelet().await;
    node.add_fault("nvmlEventSetWait_v2", None, Some("never"));
    let mut agent = node.agent(&["--nvml-deadline=200ms"]);
    agent.line("the driver has not answered");
    let body = agent.ready(|status, _| status.contains("503"));
    assert!(body.contains("driver"), "{body}");
}

/// What happens while the GPUs are read for the first time is in no reading, unless it is told.
#[tokio::test]
async fn a_change_during_the_first_reading_is_not_missed() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    node.add_fault("nvmlDeviceGetTotalEccErrors", None, Some("300ms"));
    let _agent = node.agent(&[NEVER]);
    until("the last GPU is read", || node.calls_of("nvmlDeviceGetTotalEccErrors") == 2);
    node.recut_told("gpus:\n- {model: A100-SXM4-40GB, instances: [{profile: 4g.20gb}]}\n");
    listed(&kubelet, "nvidia.com/mig-4g.20gb", 1, 1).await;
}

#[tokio::test]
async fn an_xid_that_comes_while_another_gpu_is_found_to_be_lost_is_not_missed() {
    let scene = "gpus:\n- {model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}\n- {model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}\n";
    let node = Node::written(scene);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    agent.ready(|status, _| status.contains("200"));
    let (gpu, part) = node.place(&node.uuids("3g.20gb").remove(0));
    node.add_fault("nvmlDeviceGetMigMode", None, Some("300ms"));
    // From a reading that began after this, and finds the first GPU lost.
    node.lose_gpu(0, true);
    let read = node.calls_of("nvmlDeviceGetCount_v2");
    until("another reading has begun", || node.calls_of("nvmlDeviceGetCount_v2") > read);
    let read = node.calls_of("nvmlDeviceGetMigMode");
    until("the second GPU is read", || node.calls_of("nvmlDeviceGetMigMode") > read);
    node.xid(gpu, 94, Some(part));
    listed(&kubelet, G3, 1, 0).await;
    agent.line("is Unhealthy: XID 94");
}

/// NVIDIA's plugin sent 34,000 lists a second then (`peers.md`).
#[tokio::test]
async fn waits_that_all_fail_are_told_once_and_tried_with_another_set() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    agent.ready(|status, _| status.contains("200"));
    let count = node.uuids("1g.5gb").len();
    listed(&kubelet, G1, count, count).await;
    let (before, sets) = (kubelet.events().len(), node.calls_of("nvmlEventSetCreate"));
    node.add_fault("nvmlEventSetWait_v2", Some("UNKNOWN"), None);
    listed(&kubelet, G1, count, 0).await;
    until("other sets are tried", || node.calls_of("nvmlEventSetCreate") > sets + 5);
    let lists = |what: &What| matches!(what, What::List { resource, .. } if resource == G1);
    let sent = kubelet.events()[before..].iter().filter(|event| lists(&event.what)).count();
    assert_eq!(sent, 1, "however often it fails");
    let refused =
        Scrape::of(&mut agent).sum("mig_agent_nvml_call_errors_total", &[("function", "nvmlEventSetWait_v2")]);
    assert!(refused.is_some_and(|refused| refused > 5.0), "{refused:?}");
    node.clear_faults();
    listed(&kubelet, G1, count, count).await;
    agent.ready(|status, _| status.contains("200"));
    // With the default pause a set a reading, and no reading without a pause.
    let (readings, sets) = (node.calls_of("nvmlDeviceGetCount_v2"), node.calls_of("nvmlEventSetCreate"));
    assert!(sets <= readings, "{sets} sets in {readings} readings");
}
