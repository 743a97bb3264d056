//! The rules of section 3 of the design, on the agent as a process, against a kubelet that counts what would harm a real
//! one: a violation that a test does not ask for fails it.

mod node;

use std::collections::BTreeSet;
use std::time::Duration;

use kubelet_sim::{Pod, PodResourcesMode, What};
use node::{DEADLINE, G1, G3, Node, listed, variable};
use rustix::process::Signal;

const ANOTHER_THREE_SEVENTHS: &str =
    "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb, uuid: MIG-11111111-2222-3333-4444-555555555555}]}]";
const THREE_SEVENTHS: &str = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}]";

#[tokio::test]
async fn pods_get_the_slices_that_they_ask_for() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, "nvidia.com/mig-2g.10gb", 1, 1).await;
    listed(&kubelet, G1, 9, 9).await;
    assert_eq!(kubelet.resources().len(), 3, "nothing else is offered");

    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let uuid = node.uuids("3g.20gb").remove(0);
    for name in ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "MIG_DEVICES_3G_20GB"] {
        assert_eq!(variable(&pod, "main", name), uuid);
    }

    // Two containers of one pod, then all that is left: nobody gets what another has.
    let pair = kubelet.admit(Pod::new("pair").container("one", [(G1, 1)]).container("two", [(G1, 1)])).await.unwrap();
    let rest = kubelet.admit(Pod::new("rest").container("main", [(G1, 7)])).await.unwrap();
    let mut given: BTreeSet<String> =
        variable(&rest, "main", "CUDA_VISIBLE_DEVICES").split(',').map(str::to_owned).collect();
    given.extend(["one", "two"].map(|name| variable(&pair, name, "CUDA_VISIBLE_DEVICES")));
    assert_eq!(given, node.uuids("1g.5gb").into_iter().collect());
    kubelet.admit(Pod::new("late").container("main", [(G1, 1)])).await.unwrap_err();
    kubelet.delete("pair").await;
    kubelet.admit(Pod::new("next").container("main", [(G1, 2)])).await.unwrap();
}

#[tokio::test]
async fn a_container_with_two_profiles_finds_both() {
    // NVIDIA/k8s-device-plugin#728: one variable for both keeps only one of them.
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 9, 9).await;
    let pod = kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
    assert_eq!(variable(&pod, "main", "MIG_DEVICES_3G_20GB"), node.uuids("3g.20gb")[0]);
    assert!(node.uuids("1g.5gb").contains(&variable(&pod, "main", "MIG_DEVICES_1G_5GB")));
}

#[tokio::test]
async fn several_slices_of_one_request_come_from_one_gpu() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 56, 56).await;
    let world = node.world();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let pod = kubelet.admit(Pod::new(name).container("main", [(G1, 7)])).await.unwrap();
        let given: BTreeSet<String> =
            variable(&pod, "main", "CUDA_VISIBLE_DEVICES").split(',').map(str::to_owned).collect();
        let of_one =
            |gpu: &fake_nvml::Gpu| gpu.instances.iter().flat_map(|i| &i.compute).map(|c| c.uuid.clone()).collect();
        assert!(world.gpus.iter().any(|gpu| given == of_one(gpu)), "{given:?}");
    }
}

/// Rule 1.
#[tokio::test]
async fn a_slice_that_a_pod_holds_stays_listed_when_it_vanishes() {
    let node = Node::written(THREE_SEVENTHS);
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let held = node.uuids("3g.20gb").remove(0);

    node.recut(ANOTHER_THREE_SEVENTHS);
    let resource = listed(&kubelet, G3, 2, 1).await;
    assert!(resource.devices.iter().any(|device| device.id == held && device.health == "Unhealthy"));

    // Its pod goes, and so does the id; dropped too early, the kubelet would have counted a violation.
    kubelet.delete("train").await;
    let resource = listed(&kubelet, G3, 1, 1).await;
    assert_eq!(resource.devices[0].id, "MIG-11111111-2222-3333-4444-555555555555");
}

/// Rules 1 and 3.
#[tokio::test]
async fn nothing_is_dropped_while_podresources_cannot_be_read() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    kubelet.set_podresources(PodResourcesMode::Failing);
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    agent.line("unable to read podresources");
    node.recut(THREE_SEVENTHS);
    listed(&kubelet, G1, 9, 0).await;
    // Many looks later they are still there.
    let calls = node.calls();
    while node.calls() < calls + 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(kubelet.resources()[G1].capacity, 9);
    kubelet.set_podresources(PodResourcesMode::Answering);
    listed(&kubelet, G1, 0, 0).await;
}

/// Rules 1 and 3.
#[tokio::test]
async fn what_vanished_while_the_agent_was_away_is_listed_for_as_long_as_a_pod_holds_it() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let held = node.uuids("3g.20gb").remove(0);
    agent.kill();
    node.recut("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}]");
    let _agent = node.agent(&[]);
    let resource = listed(&kubelet, G3, 1, 0).await;
    assert_eq!(resource.devices[0].id, held);
    kubelet.delete("train").await;
    listed(&kubelet, G3, 0, 0).await;
}

/// Rules 1 and 3.
#[tokio::test]
async fn the_first_list_has_what_pods_hold_though_the_kubelet_comes_after_the_agent() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    agent.kill();
    kubelet.kill().await;
    node.recut(ANOTHER_THREE_SEVENTHS);
    let mut agent = node.agent(&[]);
    agent.line("unable to read podresources");
    kubelet.start_again().await.unwrap();
    listed(&kubelet, G3, 2, 1).await;
}

/// Rules 1 and 3.
#[tokio::test]
async fn a_podresources_that_is_late_is_waited_for() {
    for late in [PodResourcesMode::Slow(Duration::from_millis(300)), PodResourcesMode::Failing] {
        let node = Node::new("demo");
        let kubelet = node.kubelet().await;
        let agent = node.agent(&[]);
        listed(&kubelet, G3, 1, 1).await;
        kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
        agent.kill();
        node.recut(ANOTHER_THREE_SEVENTHS);
        kubelet.set_podresources(late);
        let mut agent = node.agent(&[]);
        if late == PodResourcesMode::Failing {
            agent.line("unable to read podresources");
            kubelet.set_podresources(PodResourcesMode::Answering);
        }
        listed(&kubelet, G3, 2, 1).await;
    }
}

/// Rules 1 and 3: a kubelet that has just started may not have heard of its pods yet.
#[tokio::test]
async fn a_kubelet_that_does_not_know_its_pods_yet_frees_nothing() {
    let node = Node::written(THREE_SEVENTHS);
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    node.recut(ANOTHER_THREE_SEVENTHS);
    listed(&kubelet, G3, 2, 1).await;
    kubelet.set_podresources(PodResourcesMode::Empty);
    let seen = kubelet.events().len();
    kubelet.restart().await.unwrap();
    listed(&kubelet, G3, 2, 1).await;
    let asked = |what: &What| matches!(what, What::PodResourcesListed { .. });
    kubelet.wait_for_event(seen, asked, DEADLINE).await.unwrap();
    kubelet.set_podresources(PodResourcesMode::Answering);
    listed(&kubelet, G3, 2, 1).await;
}

#[tokio::test]
async fn a_slice_that_is_held_is_not_offered_under_another_name() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let agent = node.agent(&[]);
    listed(&kubelet, G1, 56, 56).await;
    kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    agent.kill();
    let _agent = node.agent(&["--mig-strategy", "single"]);
    listed(&kubelet, "nvidia.com/gpu", 56, 55).await;
    kubelet.delete("train").await;
    listed(&kubelet, "nvidia.com/gpu", 56, 56).await;
}

#[tokio::test]
async fn ready_means_registered() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    // Which holds up the first list.
    kubelet.set_podresources(PodResourcesMode::Silent);
    let mut agent = node.agent(&[]);
    let body = agent.ready(|status, _| status.contains("200"));
    assert_eq!(body, "ready: 3 resources registered\n");
}

/// Rules 4 and 10.
#[tokio::test]
async fn allocations_go_on_while_the_driver_hangs_and_the_agent_says_so() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--nvml-deadline", "200ms"]);
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
    node.add_fault("nvmlDeviceGetCount_v2", None, Some("never"));
    agent.ready(|status, body| status.contains("503") && body.contains("driver: it does not answer"));
    assert!(agent.get("/healthz").0.contains("200"), "a restart would not help the driver");
    let calls = node.calls();
    kubelet.admit(Pod::new("train").container("main", [(G1, 2)])).await.unwrap();
    assert_eq!(node.calls(), calls, "Allocate asked the driver");
    agent.send(Signal::TERM);
    assert_eq!(agent.ended().code(), Some(0), "a hung driver does not keep the agent from stopping");
}

/// Rule 4.
#[tokio::test]
async fn an_allocation_asks_the_driver_nothing() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--poll-interval", "1h"]);
    listed(&kubelet, G1, 56, 56).await;
    agent.line("registered");
    let calls = node.calls();
    for n in 0..20 {
        kubelet.admit(Pod::new(format!("pod-{n}")).container("main", [(G1, 2)])).await.unwrap();
    }
    assert_eq!(node.calls(), calls);
}

/// Rule 5.
#[tokio::test]
async fn bad_requests_get_clear_errors_and_harm_nobody() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let one = node.uuids("1g.5gb").remove(0);
    for (requests, words) in [
        (vec![], "names no container"),
        (vec![vec![]], "asks for no device"),
        (vec![vec!["MIG-nobody".to_owned()]], "has no device \\\"MIG-nobody\\\""),
        (vec![vec![one.clone(), one.clone()]], "twice"),
    ] {
        let error = kubelet.allocate_raw(G1, requests).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let answer = kubelet.allocate_raw(G1, vec![vec![one.clone()], vec![node.uuids("1g.5gb").remove(1)]]).await.unwrap();
    assert_eq!(answer.containers.len(), 2, "one answer per container");
    for (available, must, size) in
        [(vec![], vec![], 3), (vec!["x".to_owned()], vec!["y".to_owned()], 2), (vec![one], vec![], 0)]
    {
        kubelet.preferred_raw(G1, available, must, size).await.unwrap();
    }
}

/// Rules 6 and 7.
#[tokio::test]
async fn a_kubelet_that_starts_anew_finds_everything_again() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let before = kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    for round in 0..10 {
        match round % 2 {
            0 => kubelet.restart().await.unwrap(),
            _ => {
                kubelet.stop().await;
                kubelet.start_again().await.unwrap();
            }
        }
        listed(&kubelet, G1, 9, 9).await;
        listed(&kubelet, G3, 1, 1).await;
    }
    let given: BTreeSet<String> = [variable(&before, "main", "CUDA_VISIBLE_DEVICES")].into();
    let rest = kubelet.admit(Pod::new("rest").container("main", [(G1, 8)])).await.unwrap();
    let rest: BTreeSet<String> =
        variable(&rest, "main", "CUDA_VISIBLE_DEVICES").split(',').map(str::to_owned).collect();
    assert!(rest.len() == 8 && rest.is_disjoint(&given));
}

/// Rule 7.
#[tokio::test]
async fn a_socket_or_a_directory_that_vanishes_is_made_again() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    let registrations = kubelet.resources()[G3].registrations;
    std::fs::remove_file(node.path("kubelet/device-plugins/mig-agent-mig-3g.20gb.sock")).unwrap();
    let again = |resources: &std::collections::BTreeMap<String, kubelet_sim::Resource>| {
        resources[G3].registrations > registrations && resources[G3].registered
    };
    kubelet.wait_for(again, DEADLINE).await.unwrap();
    assert_eq!(kubelet.resources()[G1].registrations, 1, "the others are left alone");

    kubelet.kill().await;
    kubelet.remove_directory().unwrap();
    agent.line("no kubelet at");
    kubelet.recreate_directory().unwrap();
    kubelet.start_again().await.unwrap();
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 9, 9).await;
}

/// Rule 7.
#[tokio::test]
async fn a_kubelet_that_comes_late_is_waited_for() {
    let node = Node::new("demo");
    let mut agent = node.agent(&[]);
    agent.line("no kubelet at");
    agent.ready(|status, body| status.contains("503") && body.contains("no kubelet at"));
    let kubelet = node.kubelet().await;
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, body| status.contains("200") && body == "ready: 3 resources registered\n");
}

/// Rule 8.
#[tokio::test]
async fn what_a_container_has_outlives_agent_and_kubelet() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let first = kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    agent.kill();
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    kubelet.restart().await.unwrap();
    listed(&kubelet, G1, 9, 9).await;
    let again = kubelet.restart_container("train", "main").await.unwrap();
    assert_eq!(again.envs, first.containers["main"].envs);
    // A node that starts anew admits its pods anew, with the ids that they had.
    let readmitted = kubelet.readmit("train").await.unwrap();
    assert_eq!(readmitted.containers["main"].envs, first.containers["main"].envs);
}

/// Rule 8.
#[tokio::test]
async fn the_same_devices_get_the_same_answer_from_another_agent() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let ids = vec![node.uuids("1g.5gb")];
    let before = kubelet.allocate_raw(G1, ids.clone()).await.unwrap();
    agent.kill();
    kubelet.wait_for(|resources| !resources[G1].registered, DEADLINE).await.unwrap();
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    assert_eq!(kubelet.allocate_raw(G1, ids).await.unwrap(), before);
}

/// Rule 9.
#[tokio::test]
async fn a_lost_gpu_takes_only_its_own_slices_and_they_come_back() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    node.lose_gpu(1, true);
    listed(&kubelet, G1, 9, 2).await;
    listed(&kubelet, G3, 1, 1).await;
    agent.line("its devices are Unhealthy");
    kubelet.admit(Pod::new("train").container("main", [(G1, 2)])).await.unwrap();
    node.lose_gpu(1, false);
    listed(&kubelet, G1, 9, 9).await;
}

#[tokio::test]
async fn a_stop_is_in_order_and_leaves_no_socket() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let sockets = || {
        let files = std::fs::read_dir(node.path("kubelet/device-plugins")).unwrap().flatten();
        files.filter(|file| file.file_name().to_string_lossy().starts_with("mig-agent-")).count()
    };
    kubelet.wait_for(|resources| resources.len() == 3, DEADLINE).await.unwrap();
    assert_eq!(sockets(), 3);
    agent.send(Signal::TERM);
    assert_eq!(agent.ended().code(), Some(0));
    assert_eq!(sockets(), 0);
    let ended = |what: &What| matches!(what, What::StreamEnded { resource, .. } if resource == G1);
    kubelet.wait_for_event(0, ended, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn the_sockets_are_roots_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    let socket = node.path("kubelet/device-plugins/mig-agent-mig-3g.20gb.sock");
    assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o077, 0);
}
