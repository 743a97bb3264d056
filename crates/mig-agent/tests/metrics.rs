//! /metrics of the agent as a process: the numbers follow what happens to GPUs, pods and the kubelet, and the page that
//! documents them is right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod node;
mod scrape;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kubelet_sim::{Pod, PodResourcesMode};
use node::{DEADLINE, G1, G3, Node, listed};
use rustix::process::Signal;
use scrape::{Labels, Scrape};

const ONE: &str =
    "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb, uuid: MIG-11111111-2222-3333-4444-555555555555}]}]";

/// How many slices of a resource are in a state.
fn slices(scrape: &Scrape, resource: &str, state: &str) -> f64 {
    scrape.sum("mig_agent_slices", &[("resource", resource), ("state", state)]).unwrap_or_default()
}

fn label(labels: &Labels, name: &str) -> String {
    labels.get(name).cloned().unwrap_or_default()
}

/// The UUIDs of the slices in a state.
/// What nobody is said to hold is soon believed to be free.
const SETTLED: &str = "--settle-time=50ms";

fn in_state(scrape: &Scrape, state: &str) -> BTreeSet<String> {
    let all = scrape.with_value("mig_agent_slice_state", 1.0).into_iter();
    all.filter(|labels| labels["state"] == state).map(|labels| label(labels, "mig_uuid")).collect()
}

#[tokio::test]
async fn slices_are_free_or_allocated_as_pods_come_and_go() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;
    let scrape = Scrape::until(&mut agent, "all are free", |scrape| slices(scrape, G1, "free") == 9.0);
    assert_eq!(scrape.sum("mig_agent_slices", &[]), Some(11.0));
    assert_eq!(
        scrape.sum("mig_agent_slices", &[("gpu", "1"), ("GPU_I_PROFILE", "1g.5gb"), ("state", "free")]),
        Some(7.0)
    );
    assert_eq!(scrape.sum("mig_agent_allocations_total", &[("resource", G1)]), Some(0.0), "known before the first");

    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let scrape = Scrape::until(&mut agent, "it is allocated", |scrape| slices(scrape, G3, "allocated") == 1.0);
    assert_eq!(slices(&scrape, G3, "free"), 0.0);
    assert_eq!(in_state(&scrape, "allocated"), node.uuids("3g.20gb").into_iter().collect());
    for (name, resource, count) in [
        ("mig_agent_allocations_total", G3, 1.0),
        ("mig_agent_allocations_total", G1, 0.0),
        ("mig_agent_allocate_duration_seconds_count", G3, 1.0),
    ] {
        assert_eq!(scrape.sum(name, &[("resource", resource)]), Some(count), "{name} of {resource}");
    }
    kubelet.delete("train").await;
    Scrape::until(&mut agent, "it is free again", |scrape| slices(scrape, G3, "free") == 1.0);
}

#[tokio::test]
async fn refusals_count_by_their_code() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let count = |scrape: &Scrape, code: &str| {
        scrape.sum("mig_agent_allocation_errors_total", &[("resource", G1), ("code", code)]).unwrap()
    };
    assert_eq!(count(&Scrape::of(&mut agent), "NotFound"), 0.0);
    kubelet.allocate_raw(G1, vec![vec!["MIG-nobody".to_owned()]]).await.unwrap_err();
    kubelet.allocate_raw(G1, vec![]).await.unwrap_err();
    let scrape = Scrape::of(&mut agent);
    assert_eq!((count(&scrape, "NotFound"), count(&scrape, "InvalidArgument")), (1.0, 1.0));
    assert_eq!(scrape.sum("mig_agent_allocations_total", &[("resource", G1)]), Some(0.0));
    assert_eq!(scrape.sum("mig_agent_allocate_duration_seconds_count", &[("resource", G1)]), Some(2.0));
}

#[tokio::test]
async fn what_is_cut_anew_is_seen_and_what_a_pod_still_holds_has_vanished() {
    let node =
        Node::written("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb, id: 2}, {profile: 1g.5gb}]}]");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 1, 1).await;
    let old = node.uuids("3g.20gb").remove(0);
    let scrape = Scrape::of(&mut agent);
    let info = scrape.with_value("mig_agent_slice_info", 1.0);
    let info = info.iter().find(|labels| label(labels, "mig_uuid") == old).unwrap();
    // What dcgm-exporter says of the same slice: the GPU's UUID, and NVML's id of the GPU instance.
    let shown = ["gpu", "UUID", "GPU_I_ID", "GPU_I_PROFILE", "profile", "resource"].map(|name| label(info, name));
    let gpu = node.world().gpus[0].uuid.clone();
    assert_eq!(shown, ["0", &*gpu, "2", "3g.20gb", "3g.20gb", G3]);

    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    node.recut(ONE);
    let scrape = Scrape::until(&mut agent, "the new one is there", |scrape| slices(scrape, G3, "free") == 1.0);
    assert_eq!(slices(&scrape, G3, "vanished"), 1.0);
    assert!(in_state(&scrape, "vanished").contains(&old));
    Scrape::until(&mut agent, "nobody held the other", |scrape| {
        !scrape.text.contains("resource=\"nvidia.com/mig-1g.5gb\",state")
    });
}

#[tokio::test]
async fn a_lost_gpu_is_told_apart_from_the_others() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G1, 9, 9).await;
    Scrape::until(&mut agent, "all are free", |scrape| slices(scrape, G1, "free") == 9.0);
    node.lose_gpu(0, true);
    let scrape = Scrape::until(&mut agent, "its slices are unhealthy", |scrape| slices(scrape, G1, "unhealthy") == 2.0);
    let healthy = |gpu: &str| scrape.sum("mig_agent_gpu_healthy", &[("gpu", gpu)]);
    assert_eq!((healthy("0"), healthy("1")), (Some(0.0), Some(1.0)));
    assert_eq!((slices(&scrape, G3, "unhealthy"), slices(&scrape, G1, "free")), (1.0, 7.0));
    assert!(scrape.sum("mig_agent_nvml_call_errors_total", &[("error", "GpuIsLost")]).is_some_and(|count| count > 0.0));
    node.lose_gpu(0, false);
    Scrape::until(&mut agent, "it is back", |scrape| slices(scrape, G1, "free") == 9.0);
}

#[tokio::test]
async fn a_gpu_that_never_said_who_it_is_counts_as_unhealthy() {
    let node = Node::new("one-gpu-lost");
    let mut agent = node.agent(&[]);
    let left_out = |scrape: &Scrape| scrape.sum("mig_agent_gpu_left_out", &[]) == Some(1.0);
    let scrape = Scrape::until(&mut agent, "the GPUs are read", left_out);
    let lost = scrape.with_value("mig_agent_gpu_healthy", 0.0);
    assert!(lost.len() == 1 && !lost[0].contains_key("UUID"), "{lost:?}");
    assert_eq!(scrape.with_value("mig_agent_gpu_left_out", 1.0), lost);
}

#[tokio::test]
async fn a_kubelet_that_goes_and_comes_shows_in_registrations_and_streams() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    let of =
        |scrape: &Scrape, name: &str| scrape.sum(&format!("mig_agent_{name}"), &[("resource", G1)]).unwrap_or(-1.0);
    let ready = |scrape: &Scrape| scrape.sum("mig_agent_ready", &[]) == Some(1.0);
    let first = Scrape::until(&mut agent, "it is ready", ready);
    assert_eq!(
        ["registered", "list_streams", "registrations_total", "lists_sent_total"].map(|n| of(&first, n)),
        [1.0; 4]
    );
    assert_eq!(first.sum("mig_agent_podresources_readable", &[]), Some(1.0));

    kubelet.kill().await;
    let gone = Scrape::until(&mut agent, "it is not", |scrape| !ready(scrape) && of(scrape, "registered") == 0.0);
    assert_eq!(of(&gone, "registrations_total"), 1.0);
    Scrape::until(&mut agent, "the stream has ended", |scrape| of(scrape, "list_streams") == 0.0);
    kubelet.start_again().await.unwrap();
    let again = Scrape::until(&mut agent, "it is ready again", ready);
    assert_eq!(["registered", "list_streams", "registrations_total"].map(|n| of(&again, n)), [1.0, 1.0, 2.0]);
    let at = "registration_timestamp_seconds";
    assert!(of(&first, at) > 1_700_000_000.0 && of(&again, at) > of(&first, at));
    assert!(again.sum("mig_agent_registration_obstacles_total", &[("resource", G1)]).is_some_and(|count| count > 0.0));
}

#[tokio::test]
async fn without_podresources_nothing_is_called_free() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    kubelet.set_podresources(PodResourcesMode::Failing);
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G1, 9, 9).await;
    let scrape = Scrape::of(&mut agent);
    assert_eq!((slices(&scrape, G1, "unknown"), slices(&scrape, G1, "free")), (9.0, 0.0));
    assert_eq!(scrape.sum("mig_agent_podresources_readable", &[]), Some(0.0));
    // What the agent gave out itself, it knows.
    kubelet.admit(Pod::new("train").container("main", [(G1, 2)])).await.unwrap();
    assert_eq!(slices(&Scrape::of(&mut agent), G1, "allocated"), 2.0);
    kubelet.set_podresources(PodResourcesMode::Answering);
    Scrape::until(&mut agent, "the others are free", |scrape| slices(scrape, G1, "free") == 7.0);
}

#[tokio::test]
async fn a_hung_driver_does_not_hold_up_a_scrape() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--nvml-deadline", "200ms"]);
    listed(&kubelet, G1, 9, 9).await;
    let state = |scrape: &Scrape, word: &str| scrape.sum("mig_agent_driver_state", &[("state", word)]) == Some(1.0);
    Scrape::until(&mut agent, "the driver answers", |scrape| state(scrape, "ready"));
    node.add_fault("nvmlDeviceGetCount_v2", None, Some("never"));
    let stalled = Scrape::until(&mut agent, "it is stalled", |scrape| state(scrape, "stalled"));
    assert!(!state(&stalled, "ready"));
    assert_eq!(stalled.sum("mig_agent_driver_state", &[]), Some(1.0), "one state at a time");
    kubelet.admit(Pod::new("train").container("main", [(G1, 2)])).await.unwrap();
    let scrape = Scrape::of(&mut agent);
    assert_eq!(slices(&scrape, G1, "allocated"), 2.0, "and serving goes on");
    for name in ["mig_agent_driver_last_reading_timestamp_seconds", "mig_agent_driver_reading_duration_seconds_count"] {
        assert!(scrape.sum(name, &[]) == stalled.sum(name, &[]) && scrape.sum(name, &[]) > Some(0.0), "{name}");
    }
    agent.send(Signal::TERM);
    agent.ended();
}

#[tokio::test]
async fn a_scrape_asks_neither_the_driver_nor_the_kubelet() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--poll-interval", "1h", SETTLED]);
    listed(&kubelet, G1, 56, 56).await;
    Scrape::until(&mut agent, "podresources was read twice", |scrape| slices(scrape, G1, "free") == 56.0);
    let (calls, events) = (node.calls(), kubelet.events().len());
    let readings = Scrape::of(&mut agent).sum("mig_agent_nvml_call_duration_seconds_count", &[]);
    assert!(readings > Some(0.0));
    for _ in 0..20 {
        assert_eq!(Scrape::of(&mut agent).sum("mig_agent_nvml_call_duration_seconds_count", &[]), readings);
    }
    agent.get("/");
    assert_eq!((node.calls(), kubelet.events().len()), (calls, events));
}

#[tokio::test]
async fn a_driver_that_is_missing_is_counted_and_hides_nothing_else() {
    let node = Node::bare();
    let mut agent = node.agent_with(Path::new("/nonexistent/libnvidia-ml.so.1"), &[]);
    let failed = |scrape: &Scrape| scrape.sum("mig_agent_driver_reading_failures_total", &[]) > Some(2.0);
    let scrape = Scrape::until(&mut agent, "it was looked for", failed);
    assert_eq!(scrape.sum("mig_agent_driver_state", &[("state", "failed")]), Some(1.0));
    assert_eq!(scrape.sum("mig_agent_ready", &[]), Some(0.0));
    assert!(!scrape.families.contains_key("mig_agent_gpu_info"));
    assert_eq!(scrape.sum("mig_agent_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
}

#[tokio::test]
async fn the_process_is_described_as_every_prometheus_client_does() {
    let node = Node::new("demo");
    let mut agent = node.agent(&[]);
    let scrape =
        Scrape::until(&mut agent, "the GPUs are read", |scrape| scrape.families.contains_key("mig_agent_gpu_info"));
    let process = |name: &str| scrape.sum(&format!("process_{name}"), &[]).unwrap();
    let ours = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let field = |name: &str| {
        let line = ours.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(process("threads"), field("Threads:"));
    assert!(
        (process("resident_memory_bytes") / 1024.0 - field("VmRSS:")).abs() < 4096.0,
        "of the agent, and not of the test"
    );
    assert!(process("open_fds") > 3.0 && process("open_fds") < process("max_fds"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - process("start_time_seconds")).abs() < DEADLINE.as_secs_f64() * 2.0);
    assert!(
        process("cpu_seconds_total") < DEADLINE.as_secs_f64()
            && process("virtual_memory_bytes") > process("resident_memory_bytes")
    );
}

/// Each metric: its type and labels.
type Shape = BTreeMap<String, (String, BTreeSet<String>)>;

fn documented() -> Shape {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = std::fs::read_to_string(page).unwrap();
    let mut shape = Shape::new();
    for line in text.lines().filter(|line| line.starts_with("| `mig_agent_") || line.starts_with("| `process_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("{line}") };
        assert!(!meaning.is_empty(), "{line}");
        let labels =
            labels.split(", ").filter(|label| !label.is_empty()).map(|label| label.trim_matches('`').to_owned());
        let entry = (kind.to_owned(), labels.collect());
        assert!(shape.insert(name.trim_matches('`').to_owned(), entry).is_none(), "{name} comes twice");
    }
    shape
}

/// A metric that nobody finds in the page, and a metric in the page that nobody finds here, are both wrong.
#[tokio::test]
async fn the_page_lists_exactly_what_there_is() {
    let node = Node::written(
        "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}, {profile: 1g.5gb}]}, {model: T4}]",
    );
    let kubelet = node.kubelet().await;
    let features = node.path("features.d");
    std::fs::create_dir(&features).unwrap();
    let arguments = ["--node-labels", "feature-file", "--features-dir", features.to_str().unwrap()];
    let mut agent = node.agent(&arguments);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.allocate_raw(G3, vec![]).await.unwrap_err();
    kubelet.restart().await.unwrap();
    // One slice, and one GPU that is offered whole.
    node.xid(0, 94, Some(node.place(&node.uuids("1g.5gb").remove(0)).1));
    node.xid(1, 79, None);
    let seen = |scrape: &Scrape| {
        scrape.families.contains_key("mig_agent_registration_obstacles_total")
            && slices(scrape, G3, "free") == 1.0
            && scrape.sum("mig_agent_slice_fault", &[]) == Some(2.0)
    };
    let scrape = Scrape::until(&mut agent, "all has happened", seen);
    let (found, documented) = (scrape.shape(), documented());
    let names = |shape: &Shape| shape.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(&documented));
    for (name, shape) in found {
        assert_eq!(Some(&shape), documented.get(&name), "{name}");
    }
}

/// A word that the agent may say and the page does not explain is a riddle.
#[test]
fn the_page_explains_all_reasons_and_states() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| std::fs::read_to_string(repository.join(file)).unwrap();
    let page = read("docs/metrics.md");
    for (file, function) in [
        ("crates/mig-device-plugin/src/server.rs", "fn reason(&self) -> &'static str {"),
        ("crates/mig-agent/src/slices.rs", "fn word(self) -> &'static str {"),
    ] {
        let source = read(file);
        let body = source.split(function).nth(1).unwrap_or_else(|| panic!("{file} has no {function}"));
        let arms = body.split("\n    }\n").next().unwrap().lines();
        let words: Vec<&str> = arms.filter_map(|arm| arm.split_once("=> \"")?.1.split('"').next()).collect();
        assert!(words.len() > 5, "{words:?}");
        for word in words {
            assert!(page.contains(&format!("\n| `{word}` |")), "{word} of {file} is not in docs/metrics.md");
        }
    }
}
