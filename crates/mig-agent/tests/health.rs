//! Faults of GPUs and slices, from the driver's word to the kubelet's list and back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod node;
mod scrape;

use std::collections::BTreeSet;
use std::fs;

use fake_nvml::{Recovery, Vitals};
use kubelet_sim::{Kubelet, Pod};
use node::{Agent, DEADLINE, G1, Node, fake_library, listed};
use scrape::Scrape;

/// One GPU of seven slices, and one of two.
const TWO: &str = "\
gpus:
- {model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}, {profile: 1g.5gb}, {profile: 1g.5gb}, {profile: 1g.5gb}, {profile: 1g.5gb}, {profile: 1g.5gb}, {profile: 1g.5gb}]}
- {model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}, {profile: 1g.5gb}]}
";
const FAST: &str = "recovery: {application: 400ms, hardware: 300ms, unconfirmed: 600ms, state: 100ms, longest: 5s}\n";
/// What is wrong stays so for the whole test.
const SLOW: &str = "recovery: {application: 20m, hardware: 20m, unconfirmed: 20m, state: 20m, longest: 1h}\n";

fn policy(node: &Node, text: &str) -> String {
    let file = node.path("policy.yaml");
    fs::write(&file, text).unwrap();
    format!("--health-policy={}", file.display())
}

/// Which devices the kubelet has as unhealthy.
fn unhealthy(kubelet: &Kubelet) -> BTreeSet<String> {
    let resources = kubelet.resources();
    let devices = resources[G1].devices.iter().filter(|device| device.health != "Healthy");
    devices.map(|device| device.id.clone()).collect()
}

async fn becomes(kubelet: &Kubelet, expected: &BTreeSet<String>) {
    let is = |resources: &std::collections::BTreeMap<String, kubelet_sim::Resource>| {
        let devices = resources.get(G1).map(|resource| resource.devices.as_slice()).unwrap_or_default();
        let now = devices.iter().filter(|device| device.health != "Healthy").map(|device| device.id.clone());
        now.collect::<BTreeSet<String>>() == *expected
    };
    if kubelet.wait_for(is, DEADLINE).await.is_err() {
        panic!("expected {expected:?}, but unhealthy are {:?}", unhealthy(kubelet));
    }
}

fn of_gpu(node: &Node, gpu: usize) -> BTreeSet<String> {
    node.uuids("1g.5gb").into_iter().filter(|uuid| node.place(uuid).0 == gpu).collect()
}

fn set<const N: usize>(uuids: [&String; N]) -> BTreeSet<String> {
    uuids.into_iter().cloned().collect()
}

async fn started(node: &Node, arguments: &[&str]) -> (Kubelet, Agent) {
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(arguments);
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
    (kubelet, agent)
}

/// Whoever has a whole GPU has the slice that is ill, too.
#[tokio::test]
async fn under_the_strategy_none_an_xid_of_a_slice_is_one_of_the_gpu() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--mig-strategy=none"]);
    listed(&kubelet, "nvidia.com/gpu", 2, 2).await;
    let (gpu, part) = node.place(&node.uuids("2g.10gb")[0]);
    node.xid(gpu, 48, Some(part));
    listed(&kubelet, "nvidia.com/gpu", 2, 1).await;
    agent.line("XID 48");
}

/// NVIDIA's #1929: of the slices of one GPU, one alone is told of XIDs.
#[tokio::test]
async fn each_of_seven_slices_has_its_own_xid() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, SLOW)]).await;
    let mut expected = BTreeSet::new();
    for uuid in of_gpu(&node, 0).into_iter().rev() {
        let (gpu, part) = node.place(&uuid);
        node.xid(gpu, 94, Some(part));
        expected.insert(uuid.clone());
        becomes(&kubelet, &expected).await;
        let line = agent.line(&format!("{uuid} (1g.5gb of GPU 0) is Unhealthy: XID 94: "));
        assert!(line.contains("\"xid\":94") && line.contains("\"reason\":\"Xid\""), "{line}");
    }
    assert_eq!(expected.len(), 7, "and the other GPU has all of its own");
}

#[tokio::test]
async fn an_xid_of_the_gpu_goes_to_all_its_slices_whatever_it_names_and_to_no_other() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, SLOW)]).await;
    let first = of_gpu(&node, 1).into_iter().next().unwrap();
    let (gpu, part) = node.place(&first);
    // It names a slice, and concerns all.
    node.xid(gpu, 79, Some(part));
    becomes(&kubelet, &of_gpu(&node, 1)).await;
    agent.line("is unusable, its devices are Unhealthy: XID 79: the GPU has fallen off the bus");
    // It names none.
    node.xid(0, 48, None);
    becomes(&kubelet, &node.uuids("1g.5gb").into_iter().collect()).await;
    let inventory: serde_json::Value = serde_json::from_str(&agent.get("/api/v1/inventory").1).unwrap();
    assert!(inventory["gpus"][1]["fault"]["message"].as_str().unwrap().starts_with("XID 79: "), "{inventory}");
    assert!(agent.get("/").1.contains("XID 79: the GPU has fallen off the bus"));
    assert!(agent.get("/readyz").0.contains("200"), "the node serves; what it has is bad");
    let scrape = Scrape::of(&mut agent);
    assert_eq!(scrape.sum("mig_agent_gpu_last_xid", &[("gpu", "1")]), Some(79.0));
    assert_eq!(scrape.sum("mig_agent_xids_total", &[("gpu", "0"), ("xid", "48")]), Some(1.0));
    assert_eq!(scrape.sum("mig_agent_slice_fault", &[("reason", "Xid")]), Some(9.0));
    assert_eq!(scrape.sum("mig_agent_gpu_fault", &[("reason", "Xid")]), Some(2.0));
}

#[tokio::test]
async fn what_is_ignored_is_counted_and_nothing_else() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, SLOW)]).await;
    node.xids(0, &[(13, None), (31, None), (43, None), (45, None), (68, None), (109, None), (63, None)]);
    agent.line("XID 63 makes nothing Unhealthy");
    // What comes after them is acted on, so they have been looked at.
    node.xid(1, 79, None);
    becomes(&kubelet, &of_gpu(&node, 1)).await;
    assert_eq!(Scrape::of(&mut agent).sum("mig_agent_xids_total", &[("gpu", "0")]), Some(7.0));
}

#[tokio::test]
async fn a_policy_of_ones_own_wins_over_the_table_and_nvidias_switches_over_both() {
    for (text, variables, counts, ignored) in [
        ("xids: [{numbers: [31], policy: unhealthy}, {numbers: [94], policy: ignore}]\n", vec![], 31, 94),
        ("", vec![("DP_DISABLE_HEALTHCHECKS", " 94 ,nonsense")], 95, 94),
        ("", vec![("DP_ENABLE_HEALTHCHECKS", "31")], 31, 13),
        ("", vec![("DP_DISABLE_HEALTHCHECKS", "ALL"), ("DP_ENABLE_HEALTHCHECKS", "31")], 31, 79),
        ("xids: [{numbers: [94], policy: unhealthy}]\n", vec![("DP_DISABLE_HEALTHCHECKS", "xids,1")], 0, 94),
    ] {
        let node = Node::written(TWO);
        let kubelet = node.kubelet().await;
        let mut command = node.agent_command(&fake_library(), &[&policy(&node, &format!("{text}{SLOW}"))]);
        command.envs(variables.clone());
        let mut agent = Agent::start(command, node.path("agent.log"));
        listed(&kubelet, G1, 9, 9).await;
        agent.ready(|status, _| status.contains("200"));
        node.xid(0, ignored, None);
        agent.line(&format!("XID {ignored} makes nothing Unhealthy"));
        if counts > 0 {
            node.xid(1, counts, None);
            becomes(&kubelet, &of_gpu(&node, 1)).await;
        }
        assert!(of_gpu(&node, 0).is_disjoint(&unhealthy(&kubelet)), "{variables:?}");
    }
}

#[tokio::test]
async fn a_policy_that_is_wrong_is_said_at_once_with_its_line() {
    let node = Node::written(TWO);
    let mut agent = node.agent(&[&policy(&node, "xids:\n- numbers: [94]\n  policy: sometimes\n")]);
    assert_eq!(agent.ended().code(), Some(1));
    let line = agent.line("the health policy");
    assert!(line.contains("policy.yaml") && line.contains("line 3") && line.contains("sometimes"), "{line}");
    let mut agent = node.agent(&["--health-policy=/nowhere/policy.yaml"]);
    assert_eq!(agent.ended().code(), Some(1));
    agent.line("the health policy /nowhere/policy.yaml: unable to read it");
}

/// NVIDIA's #189, #234, #426: what is unhealthy stays so until the plugin is restarted.
#[tokio::test]
async fn a_programs_error_is_over_after_a_quiet_time() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, FAST)]).await;
    let slice = of_gpu(&node, 0).into_iter().next().unwrap();
    let (gpu, part) = node.place(&slice);
    node.xid(gpu, 8, Some(part));
    becomes(&kubelet, &set([&slice])).await;
    becomes(&kubelet, &BTreeSet::new()).await;
    agent.line(&format!("{slice} (1g.5gb of GPU 0) is well again"));
    let scrape = Scrape::of(&mut agent);
    let transitions = |to: &str| scrape.sum("mig_agent_health_transitions_total", &[("to", to)]);
    assert_eq!((transitions("unhealthy"), transitions("healthy")), (Some(1.0), Some(1.0)));
}

/// NVIDIA's #189, #234, #426.
#[tokio::test]
async fn a_fault_of_hardware_is_over_when_the_gpu_has_answered_well_for_a_while() {
    let node = Node::written(TWO);
    let (kubelet, _agent) = started(&node, &[&policy(&node, FAST)]).await;
    node.xid(1, 95, None);
    becomes(&kubelet, &of_gpu(&node, 1)).await;
    becomes(&kubelet, &BTreeSet::new()).await;
}

/// NVIDIA's #189, #234, #426.
#[tokio::test]
async fn a_fault_of_hardware_stays_until_the_gpu_is_reset() {
    let node = Node::written(TWO);
    let slow = "recovery: {hardware: 20m, unconfirmed: 20m, state: 100ms, longest: 1h}\n";
    let (kubelet, mut agent) = started(&node, &[&policy(&node, slow)]).await;
    node.xid(1, 79, None);
    becomes(&kubelet, &of_gpu(&node, 1)).await;
    node.lose_gpu(1, true);
    agent.inventory(|inventory| inventory["gpus"][1]["fault"]["kind"] == "GpuIsLost");
    assert_eq!(unhealthy(&kubelet), of_gpu(&node, 1));
    // It comes back from nothing but a reset.
    node.lose_gpu(1, false);
    becomes(&kubelet, &BTreeSet::new()).await;
}

#[tokio::test]
async fn a_slice_that_a_pod_holds_stays_listed_and_its_pod_unharmed() {
    let node = Node::written(TWO);
    let (kubelet, _agent) = started(&node, &[&policy(&node, FAST)]).await;
    let pod = kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    let held = node::variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    let (gpu, part) = node.place(&held);
    node.xid(gpu, 94, Some(part));
    becomes(&kubelet, &set([&held])).await;
    listed(&kubelet, G1, 9, 8).await;
    becomes(&kubelet, &BTreeSet::new()).await;
    assert!(kubelet.violations().is_empty(), "{:?}", kubelet.violations());
}

#[tokio::test]
async fn a_gpu_that_is_lost_and_returns_takes_its_own_slices_along() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, FAST)]).await;
    node.lose_gpu(1, true);
    becomes(&kubelet, &of_gpu(&node, 1)).await;
    agent.line("is unusable, its devices are Unhealthy: ");
    // The others are watched all the same.
    let slice = of_gpu(&node, 0).into_iter().next().unwrap();
    let (gpu, part) = node.place(&slice);
    node.xid(gpu, 8, Some(part));
    agent.line(&format!("{slice} (1g.5gb of GPU 0) is Unhealthy: XID 8: "));
    node.lose_gpu(1, false);
    becomes(&kubelet, &BTreeSet::new()).await;
    agent.line("NVIDIA A100-SXM4-40GB is well again");
}

#[tokio::test]
async fn what_the_driver_tells_of_the_hardware_counts_for_as_long_as_it_is_so() {
    type Change = fn(&mut Vitals);
    let cases: [(Change, &str, &str); 4] = [
        (|vitals| vitals.remap_pending = true, "RowRemapPending", "memory rows wait to be replaced by spare ones"),
        (|vitals| vitals.remap_failed = true, "RowRemapFailed", "a memory row could not be replaced"),
        (|vitals| vitals.recovery = Recovery::GpuReset, "RecoveryWanted", "the driver wants the GPU to be reset"),
        (|vitals| vitals.uncorrectable_errors = 1, "UncorrectableErrors", "memory errors that could not be corrected"),
    ];
    for (change, kind, words) in cases {
        let node = Node::written(TWO);
        let (kubelet, mut agent) = started(&node, &[&policy(&node, FAST)]).await;
        node.vitals(1, change);
        becomes(&kubelet, &of_gpu(&node, 1)).await;
        let line = agent.line("is unusable, its devices are Unhealthy: ");
        assert!(line.contains(words) && line.contains(kind), "{line}");
        assert_eq!(Scrape::of(&mut agent).sum("mig_agent_slice_fault", &[("reason", kind)]), Some(2.0), "{kind}");
        node.vitals(1, |vitals| *vitals = Vitals::default());
        becomes(&kubelet, &BTreeSet::new()).await;
    }
}

#[tokio::test]
async fn a_fault_of_hardware_stays_for_as_long_as_the_driver_wants_a_reset() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, FAST)]).await;
    node.vitals(1, |vitals| vitals.recovery = Recovery::GpuReset);
    node.xid(1, 119, None);
    becomes(&kubelet, &of_gpu(&node, 1)).await;
    // What is read in a second read anew is far more than the times of this policy.
    let readings = || node.calls_of("nvmlDeviceGetCount_v2");
    let enough = readings() + 40;
    while readings() < enough {
        assert_eq!(unhealthy(&kubelet), of_gpu(&node, 1));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    agent.inventory(|inventory| inventory["gpus"][1]["fault"]["kind"] == "RecoveryWanted");
    node.vitals(1, |vitals| vitals.recovery = Recovery::None);
    becomes(&kubelet, &BTreeSet::new()).await;
}

/// A memory error in one slice is counted for the whole GPU: the XID says whose it was.
#[tokio::test]
async fn an_error_of_memory_in_one_slice_leaves_the_others_alone() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, SLOW)]).await;
    let slice = of_gpu(&node, 0).into_iter().next().unwrap();
    let (gpu, part) = node.place(&slice);
    node.xid(gpu, 94, Some(part));
    node.vitals(gpu, |vitals| vitals.uncorrectable_errors = 1);
    becomes(&kubelet, &set([&slice])).await;
    agent.inventory(|inventory| inventory["gpus"][0]["vitals"]["uncorrectable_errors"] == 1);
    let readings = || node.calls_of("nvmlDeviceGetCount_v2");
    let enough = readings() + 40;
    while readings() < enough {
        assert_eq!(unhealthy(&kubelet), set([&slice]));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[tokio::test]
async fn what_cannot_be_watched_is_not_offered_unless_told_to() {
    let node = Node::written(TWO);
    node.add_fault("nvmlEventSetCreate", Some("NOT_SUPPORTED"), None);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 0).await;
    let body = agent.ready(|status, body| status.contains("503") && body.contains("health: "));
    assert!(body.contains("--advertise-unwatched"), "{body}");
    agent.line("the driver does not tell of errors (XIDs) of this GPU");
    agent.kill();
    for variable in ["ADVERTISE_UNWATCHED=true", "DP_DISABLE_HEALTHCHECKS=all", "DP_DISABLE_HEALTHCHECKS=xids"] {
        let mut command = node.agent_command(&fake_library(), &[]);
        command.envs(variable.split_once('='));
        let mut agent = Agent::start(command, node.path("agent.log"));
        listed(&kubelet, G1, 9, 9).await;
        agent.ready(|status, _| status.contains("200"));
    }
}

#[tokio::test]
async fn one_gpu_that_cannot_be_watched_degrades_itself_only() {
    let node = Node::written(TWO);
    node.add_gpu_fault("nvmlDeviceRegisterEvents", 1, "NOT_SUPPORTED");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 7).await;
    assert!(agent.get("/readyz").0.contains("200"));
    node.clear_faults();
    listed(&kubelet, G1, 9, 9).await;
}

/// `nvml.h` on `nvmlEventSetWait_v2`: only errors that are in all instances are told to those who may not look at them.
#[tokio::test]
async fn without_the_monitor_capability_errors_of_the_whole_gpu_are_seen_and_the_node_says_so() {
    let node = Node::written(&format!("permission: none\n{TWO}"));
    let (kubelet, mut agent) = started(&node, &[&policy(&node, SLOW)]).await;
    agent.line("the driver may not tell of errors (XIDs) in single slices");
    let scrape = Scrape::of(&mut agent);
    for gpu in ["0", "1"] {
        for (errors, value) in [("all", 0.0), ("whole_gpu", 1.0), ("nothing", 0.0)] {
            assert_eq!(
                scrape.sum("mig_agent_gpu_watched", &[("gpu", gpu), ("errors", errors)]),
                Some(value),
                "{errors}"
            );
        }
    }
    let slice = of_gpu(&node, 0).into_iter().next().unwrap();
    let (gpu, part) = node.place(&slice);
    node.xids(gpu, &[(94, Some(part))]);
    node.xid(1, 94, None);
    // The second came after the first, which nobody told.
    becomes(&kubelet, &of_gpu(&node, 1)).await;
}

#[tokio::test]
async fn a_restart_of_the_agent_makes_nothing_well() {
    let node = Node::written(TWO);
    let (kubelet, agent) = started(&node, &[&policy(&node, SLOW)]).await;
    let slice = of_gpu(&node, 0).into_iter().next().unwrap();
    let (gpu, part) = node.place(&slice);
    node.xid(gpu, 94, Some(part));
    becomes(&kubelet, &set([&slice])).await;
    let file = node.path("run/health.json");
    let text = || fs::read_to_string(&file).unwrap_or_default();
    while !text().contains(&slice) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    agent.kill();
    let mut agent = node.agent(&[&policy(&node, SLOW)]);
    agent.line("faults that an earlier agent saw");
    agent.ready(|status, _| status.contains("200"));
    listed(&kubelet, G1, 9, 8).await;
    becomes(&kubelet, &set([&slice])).await;
    agent.kill();
    // Of another start of the machine; no JSON; and nowhere to write.
    let other = text().replace("\"boot_id\": \"", "\"boot_id\": \"0");
    for content in [other.as_str(), "{", ""] {
        fs::write(&file, content).unwrap();
        let agent = node.agent(&[&policy(&node, SLOW)]);
        listed(&kubelet, G1, 9, 9).await;
        agent.kill();
        kubelet.wait_for(|now| now.get(G1).is_none_or(|resource| resource.allocatable == 0), DEADLINE).await.unwrap();
    }
}

/// The driver tells an XID once, and an upgrade ends the agent at any moment.
#[tokio::test]
async fn a_fault_of_the_last_moment_is_written_down() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, SLOW)]).await;
    let mut slices = of_gpu(&node, 0);
    let (one, two) = (slices.pop_first().unwrap(), slices.pop_first().unwrap());
    let lost = of_gpu(&node, 1);
    node.lose_gpu(1, true);
    becomes(&kubelet, &lost).await;
    let strike = async |slice: &String, bad: BTreeSet<String>| {
        let (gpu, part) = node.place(slice);
        node.xid(gpu, 94, Some(part));
        becomes(&kubelet, &bad.union(&lost).cloned().collect()).await;
    };
    strike(&one, set([&one])).await;
    // For migctl, and whatever the reason.
    let told = || fs::read_to_string(node.path("run/unhealthy.json")).unwrap_or_default();
    let deadline = std::time::Instant::now() + DEADLINE;
    while !(told().contains(&one) && told().contains("\"Xid\"") && told().contains("\"GpuIsLost\"")) {
        assert!(std::time::Instant::now() < deadline, "{}", told());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    strike(&two, set([&one, &two])).await;
    agent.send(rustix::process::Signal::TERM);
    assert_eq!(agent.ended().code(), Some(0));
    let text = fs::read_to_string(node.path("run/health.json")).unwrap();
    assert!(text.contains(&one) && text.contains(&two), "{text}");
    let _agent = node.agent(&[&policy(&node, SLOW)]);
    becomes(&kubelet, &set([&one, &two]).union(&lost).cloned().collect()).await;
}

#[tokio::test]
async fn without_a_place_for_its_state_the_agent_says_so_once_and_goes_on() {
    let node = Node::written(TWO);
    fs::write(node.path("taken"), "").unwrap();
    let below = node.path("taken/run");
    let (kubelet, mut agent) =
        started(&node, &[&policy(&node, SLOW), &format!("--state-dir={}", below.display())]).await;
    for gpu in [0, 1] {
        node.xid(gpu, 79, None);
        becomes(&kubelet, &(0..=gpu).flat_map(|gpu| of_gpu(&node, gpu)).collect()).await;
    }
    agent.line("a restart of the agent forgets faults (see --state-dir)");
    assert_eq!(agent.log().matches("forgets faults").count(), 1);
    // As soon as there is room for it, and though nothing happens.
    fs::remove_file(node.path("taken")).unwrap();
    agent.line("faults are kept in");
    assert!(fs::read_to_string(below.join("health.json")).unwrap().contains("XID 79"));
}

#[tokio::test]
async fn a_storm_of_errors_is_a_handful_of_lists() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &[&policy(&node, SLOW)]).await;
    let lists = |agent: &mut Agent| Scrape::of(agent).sum("mig_agent_lists_sent_total", &[("resource", G1)]).unwrap();
    let before = lists(&mut agent);
    let slices: Vec<(usize, (u32, u32))> = of_gpu(&node, 0).iter().map(|uuid| node.place(uuid)).collect();
    let (slow, fast) = (slices[0].1, slices[1].1);
    // As fast as they are taken: the fake driver keeps the last thousand.
    for round in 1..=20 {
        node.xids(0, &[(94, Some(slow)), (8, Some(fast)), (31, Some(fast))].repeat(100));
        let counted = |scrape: &Scrape| scrape.sum("mig_agent_xids_total", &[]) == Some(f64::from(round * 300));
        Scrape::until(&mut agent, "all are counted", counted);
    }
    listed(&kubelet, G1, 9, 7).await;
    let sent = lists(&mut agent) - before;
    assert!(sent <= 4.0, "{sent} lists for 6000 errors");
    assert!(agent.log().matches("XID 31 makes nothing").count() == 1, "{}", agent.log());
}

#[tokio::test]
async fn a_driver_that_hangs_for_long_makes_everything_unhealthy_until_it_answers() {
    let node = Node::written(TWO);
    let (kubelet, mut agent) = started(&node, &["--nvml-deadline=200ms", &policy(&node, FAST)]).await;
    node.add_fault("nvmlDeviceGetCount_v2", None, Some("3s"));
    agent.ready(|status, body| status.contains("503") && body.contains("it does not answer"));
    listed(&kubelet, G1, 9, 0).await;
    agent.line("the driver does not answer at all");
    node.clear_faults();
    listed(&kubelet, G1, 9, 9).await;
    agent.line("is well again");
}
