//! Each rule, broken once: the violation that is recorded, and what the kubelet suffers.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod plugin;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kubelet::deviceplugin::RegisterRequest;
use kubelet_sim::{AdmissionError, Kubelet, Options, Pod, ViolationKind, What};
use plugin::{Plugin, Preference, SOON, all, healthy, register};
use tempfile::TempDir;
use tokio::sync::Notify;

const SLICE: &str = "nvidia.com/mig-1g.5gb";

async fn kubelet() -> (TempDir, Kubelet) {
    let root = tempfile::tempdir().unwrap();
    let options = Options { dial_timeout: Duration::from_millis(300), ..Options::default() };
    let kubelet = Kubelet::start_with(root.path(), options).await.unwrap();
    (root, kubelet)
}

async fn with_plugin(ids: &[&str]) -> (TempDir, Kubelet, Plugin) {
    let (root, kubelet) = kubelet().await;
    let plugin = Plugin::started(root.path(), SLICE, all(ids)).await;
    kubelet.wait_for(|resources| resources.contains_key(SLICE), SOON).await.unwrap();
    (root, kubelet, plugin)
}

/// Waits for one, and sees that there is no other.
async fn only(kubelet: &Kubelet, kind: ViolationKind) {
    let is_it = |what: &What| matches!(what, What::Violation { kind: seen, .. } if *seen == kind);
    kubelet.wait_for_event(0, is_it, SOON).await.unwrap();
    let kinds = kubelet.take_violations().into_iter().map(|violation| violation.kind);
    assert_eq!(kinds.collect::<BTreeSet<_>>(), [kind].into());
}

fn pod(count: usize) -> Pod {
    Pod::new("train").container("main", [(SLICE, count)])
}

#[tokio::test]
#[should_panic = "AllocatedDeviceDropped"]
async fn a_violation_that_nobody_takes_fails_the_test() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b"]).await;
    kubelet.admit(pod(2)).await.unwrap();
    plugin.list(all(&["a"]));
    kubelet.wait_for(|resources| resources[SLICE].capacity == 1, SOON).await.unwrap();
}

#[tokio::test]
async fn dropping_a_device_that_a_pod_holds() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b"]).await;
    kubelet.admit(pod(2)).await.unwrap();
    plugin.list(all(&["a"]));
    only(&kubelet, ViolationKind::AllocatedDeviceDropped).await;
    kubelet.delete("train").await;
    plugin.list(Vec::new());
    kubelet.wait_for(|resources| resources[SLICE].capacity == 0, SOON).await.unwrap();
    assert_eq!(kubelet.violations(), [], "once no pod holds it, it may go");
}

#[tokio::test]
async fn dropping_a_device_that_is_being_allocated() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b"]).await;
    let gate = Arc::new(Notify::new());
    plugin.faults.lock().unwrap().gate = Some(Arc::clone(&gate));
    let admission = kubelet.admit(pod(1));
    let shrink = async {
        kubelet.wait_for(|resources| !resources[SLICE].allocated.is_empty(), SOON).await.unwrap();
        // Allocated is marked just before the call goes out; the shrinking list has to come after that.
        kubelet.wait_for_event(0, |what| matches!(what, What::Preferred { .. }), SOON).await.unwrap();
        plugin.list(all(&["b"]));
        kubelet.wait_for(|resources| resources[SLICE].capacity == 1, SOON).await.unwrap();
        plugin.list(all(&["b"]));
        plugin.faults.lock().unwrap().gate = None;
        gate.notify_one();
    };
    let (admission, ()) = tokio::join!(admission, shrink);
    // The plugin here notices; one that answered would have made the real kubelet panic.
    assert!(admission.is_err());
    let kinds = kubelet.take_violations().into_iter().map(|violation| violation.kind).collect::<Vec<_>>();
    assert!(kinds.contains(&ViolationKind::AllocatedDeviceDropped), "{kinds:?}");
}

#[tokio::test]
async fn shrinking_the_list_while_another_device_is_being_allocated() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b"]).await;
    let gate = Arc::new(Notify::new());
    plugin.faults.lock().unwrap().gate = Some(Arc::clone(&gate));
    let call = kubelet.allocate_raw(SLICE, vec![vec!["a".to_owned()]]);
    let shrink = async {
        plugin.list(all(&["a"]));
        kubelet.wait_for(|resources| resources[SLICE].capacity == 1, SOON).await.unwrap();
        gate.notify_one();
    };
    let (call, ()) = tokio::join!(call, shrink);
    call.unwrap();
    only(&kubelet, ViolationKind::ListShrankDuringAllocate).await;
}

#[tokio::test]
async fn lists_with_bad_devices() {
    let (_root, kubelet, plugin) = with_plugin(&["a"]).await;
    plugin.list(all(&["a", "a"]));
    only(&kubelet, ViolationKind::DuplicateDevice).await;
    plugin.list(all(&["a", &"x".repeat(64)]));
    only(&kubelet, ViolationKind::BadDeviceId).await;
    let mut sick = healthy("a");
    sick.health = "healthy".to_owned();
    plugin.list(vec![sick]);
    only(&kubelet, ViolationKind::BadHealth).await;
    assert_eq!(kubelet.resources()[SLICE].allocatable, 0, "any other word is unhealthy");
}

#[tokio::test]
async fn answering_for_more_or_fewer_containers_than_asked() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b"]).await;
    plugin.faults.lock().unwrap().answers_per_request = Some(2);
    kubelet.admit(pod(1)).await.unwrap();
    only(&kubelet, ViolationKind::WrongResponseCount).await;
    plugin.faults.lock().unwrap().answers_per_request = Some(0);
    let refused = kubelet.admit(Pod::new("second").container("main", [(SLICE, 1)])).await.unwrap_err();
    assert!(matches!(refused, AdmissionError::NoAnswer), "{refused}");
    only(&kubelet, ViolationKind::WrongResponseCount).await;
}

#[tokio::test]
async fn failing_to_prefer() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b"]).await;
    plugin.faults.lock().unwrap().preferred = Some(|_| Err(tonic::Status::internal("no idea")));
    let refused = kubelet.admit(pod(1)).await.unwrap_err();
    assert!(matches!(refused, AdmissionError::Preferred(_)), "{refused}");
    only(&kubelet, ViolationKind::PreferredAllocationFailed).await;
}

#[tokio::test]
async fn preferring_what_was_not_asked_for() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b", "c"]).await;
    let bad: [Preference; 4] = [
        |_| Ok(vec!["elsewhere".to_owned()]),
        |ids| Ok(ids.to_vec()),
        |_| Ok(Vec::new()),
        |ids| Ok(vec![ids[0].clone(), ids[0].clone()]),
    ];
    for preferred in bad {
        plugin.faults.lock().unwrap().preferred = Some(preferred);
        let given = kubelet.admit(pod(1)).await.unwrap();
        assert_eq!(given.containers["main"].device_ids[SLICE].len(), 1, "the kubelet helps itself");
        only(&kubelet, ViolationKind::BadPreferredAllocation).await;
        kubelet.delete("train").await;
    }
}

#[tokio::test]
async fn leaving_out_what_has_to_be_included() {
    let (_root, kubelet, plugin) = with_plugin(&["a", "b", "c"]).await;
    // The init container is offered three and gets `a`. The container needs that and one more: it has to be in the
    // answer, which names the other two.
    let calls = |kubelet: &Kubelet| {
        let preferred = |event: &kubelet_sim::Event| matches!(event.what, What::Preferred { .. });
        kubelet.events().iter().filter(|event| preferred(event)).count()
    };
    plugin.faults.lock().unwrap().preferred = Some(|ids| Ok(ids.iter().take(1).cloned().collect()));
    let init = Pod::new("train").init_container("init", [(SLICE, 1)]).container::<String>("main", []);
    kubelet.admit(init).await.unwrap();
    assert_eq!((calls(&kubelet), kubelet.violations()), (1, vec![]));
    plugin.faults.lock().unwrap().preferred = Some(|ids| Ok(ids.iter().rev().take(2).cloned().collect()));
    let pod = Pod::new("train").init_container("init", [(SLICE, 1)]).container("main", [(SLICE, 2)]);
    let given = kubelet.admit(pod).await.unwrap();
    assert!(given.containers["main"].device_ids[SLICE].contains("a"), "the kubelet keeps to it all the same");
    only(&kubelet, ViolationKind::BadPreferredAllocation).await;
}

#[tokio::test]
async fn registering_over_an_open_stream_loses_the_new_registration() {
    let (root, kubelet, old) = with_plugin(&["a"]).await;
    let mut new = Plugin::new(root.path(), SLICE, all(&["a"]));
    new.endpoint = "another.sock".to_owned();
    new.serve();
    new.register().await.unwrap();
    only(&kubelet, ViolationKind::RegisteredOverOpenStream).await;
    kubelet.wait_for(|resources| resources[SLICE].lists == 2, SOON).await.unwrap();
    assert_eq!(kubelet.resources()[SLICE].allocatable, 1);

    old.end_streams();
    kubelet.wait_for(|resources| resources[SLICE].allocatable == 0, SOON).await.unwrap();
    let killed = |what: &What| matches!(what, What::NewRegistrationKilled { .. });
    kubelet.wait_for_event(0, killed, SOON).await.unwrap();
    assert!(!kubelet.resources()[SLICE].registered);
}

#[tokio::test]
async fn registering_a_socket_that_nobody_serves() {
    let (root, kubelet) = kubelet().await;
    let plugin = Plugin::new(root.path(), SLICE, all(&["a"]));
    let refused = plugin.register().await.unwrap_err();
    assert!(refused.message().contains("failed to dial device plugin"), "{refused}");
    only(&kubelet, ViolationKind::SocketDidNotAnswer).await;
    assert!(kubelet.resources().is_empty());

    let socket = root.path().join("device-plugins").join(&plugin.endpoint);
    let _silent = tokio::net::UnixListener::bind(socket).unwrap();
    plugin.register().await.unwrap_err();
    only(&kubelet, ViolationKind::SocketDidNotAnswer).await;
}

#[tokio::test]
async fn a_failed_registration_hides_the_end_of_the_stream_before_it() {
    let (root, kubelet, mut old) = with_plugin(&["a"]).await;
    let mut new = Plugin::new(root.path(), SLICE, all(&["a"]));
    new.endpoint = "nobody.sock".to_owned();
    new.register().await.unwrap_err();
    kubelet.take_violations();

    old.stop().await;
    kubelet.wait_for_event(0, |what| matches!(what, What::StreamEnded { .. }), SOON).await.unwrap();
    assert_eq!(kubelet.resources()[SLICE].allocatable, 1, "the real kubelet does not notice either");
    kubelet.admit(pod(1)).await.unwrap_err();
    // GetPreferredAllocation failed on a broken connection: no fault of the answer.
    assert_eq!(kubelet.violations(), []);
}

#[tokio::test]
async fn registering_nonsense() {
    let (root, kubelet) = kubelet().await;
    let request = |version: &str, endpoint: &str, resource: &str| RegisterRequest {
        version: version.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.to_owned(),
        options: None,
    };
    register(root.path(), request("v1alpha", "a.sock", SLICE)).await.unwrap_err();
    only(&kubelet, ViolationKind::BadVersion).await;
    register(root.path(), request("v1beta1", "a.sock", "nvidia.com/mig-1g.5gb+me")).await.unwrap_err();
    only(&kubelet, ViolationKind::BadResourceName).await;

    let mut plugin = Plugin::new(root.path(), SLICE, all(&["a"]));
    plugin.endpoint = "../elsewhere.sock".to_owned();
    plugin.serve();
    plugin.register().await.unwrap();
    only(&kubelet, ViolationKind::BadEndpoint).await;
    kubelet.wait_for(|resources| resources.contains_key(SLICE), SOON).await.unwrap();
}

#[tokio::test]
async fn listing_and_registering_without_pause() {
    let root = tempfile::tempdir().unwrap();
    let options = Options { lists_per_second: 5, registrations_per_second: 2, ..Options::default() };
    let kubelet = Kubelet::start_with(root.path(), options).await.unwrap();
    let mut plugin = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    let listed = |count| {
        move |resources: &BTreeMap<_, kubelet_sim::Resource>| {
            resources.get(SLICE).is_some_and(|resource| resource.lists == count)
        }
    };
    for count in 1..=6 {
        kubelet.wait_for(listed(count), SOON).await.unwrap();
        plugin.list(all(&["a"]));
    }
    only(&kubelet, ViolationKind::TooManyLists).await;
    for _ in 0..2 {
        plugin.stop().await;
        plugin.serve();
        plugin.register().await.unwrap();
    }
    let is_it = |what: &What| matches!(what, What::Violation { kind: ViolationKind::TooManyRegistrations, .. });
    kubelet.wait_for_event(0, is_it, SOON).await.unwrap();
    kubelet.take_violations();
}
