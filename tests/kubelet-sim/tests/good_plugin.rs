//! A plugin that keeps the rules: what the kubelet does with it.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod plugin;

use std::{collections::BTreeMap, time::Duration};

use kubelet_sim::{AdmissionError, Kubelet, Options, Pod, PodResourcesMode, What};
use plugin::{Plugin, SOON, all, healthy, on_numa, unhealthy};
use tempfile::TempDir;

const SLICE: &str = "nvidia.com/mig-1g.5gb";
const LARGE: &str = "nvidia.com/mig-3g.20gb";

async fn kubelet() -> (TempDir, Kubelet) {
    let root = tempfile::tempdir().unwrap();
    let kubelet = Kubelet::start(root.path()).await.unwrap();
    (root, kubelet)
}

async fn settled(kubelet: &Kubelet, resource: &str, allocatable: usize, capacity: usize) {
    let is_so = |resources: &BTreeMap<_, kubelet_sim::Resource>| {
        resources.get(resource).map(|of| (of.allocatable, of.capacity)) == Some((allocatable, capacity))
    };
    kubelet.wait_for(is_so, SOON).await.unwrap();
}

#[tokio::test]
async fn a_registered_plugin_gives_the_node_its_devices() {
    let (root, kubelet) = kubelet().await;
    let plugin = Plugin::started(root.path(), SLICE, vec![healthy("a"), unhealthy("b"), on_numa("c", 1)]).await;
    settled(&kubelet, SLICE, 2, 3).await;

    let resource = &kubelet.resources()[SLICE];
    assert!(resource.registered);
    assert_eq!((resource.registrations, resource.lists), (1, 1));
    assert_eq!(resource.devices[1].health, "Unhealthy");
    assert_eq!(resource.devices[2].numa, [1]);

    plugin.list(Vec::new());
    settled(&kubelet, SLICE, 0, 0).await;
    assert!(kubelet.resources()[SLICE].registered, "a plugin without devices stays registered");

    let names = kubelet.events().into_iter().map(|event| event.what).collect::<Vec<_>>();
    let at = |is_it: fn(&What) -> bool| names.iter().position(is_it).unwrap();
    assert!(
        at(|what| matches!(what, What::RegisterReceived { .. })) < at(|what| matches!(what, What::Registered { .. }))
    );
    assert!(
        at(|what| matches!(what, What::StreamOpened { .. }))
            < at(|what| matches!(what, What::List { first: true, .. }))
    );
}

#[tokio::test]
async fn a_pod_gets_devices_until_none_are_free() {
    let (root, kubelet) = kubelet().await;
    let _plugin = Plugin::started(root.path(), SLICE, all(&["a", "b", "c"])).await;
    settled(&kubelet, SLICE, 3, 3).await;

    let train = kubelet.admit(Pod::new("train").container("main", [(SLICE, 2)])).await.unwrap();
    let main = &train.containers["main"];
    assert_eq!(main.envs["DEVICES"], "a,b", "the plugin's preference is followed");
    assert_eq!(main.cdi_devices.len(), 2);
    assert_eq!(main.device_ids[SLICE].len(), 2);
    assert_eq!(kubelet.resources()[SLICE].allocated.len(), 2);

    let refused = kubelet.admit(Pod::new("big").container("main", [(SLICE, 2)])).await.unwrap_err();
    assert!(matches!(refused, AdmissionError::TooFew { requested: 2, available: 1, .. }), "{refused}");
    let unknown = kubelet.admit(Pod::new("other").container("main", [(LARGE, 1)])).await.unwrap_err();
    assert!(matches!(unknown, AdmissionError::UnknownResource(_)), "{unknown}");
    assert_eq!(kubelet.pods(), ["train"]);

    assert!(kubelet.delete("train").await);
    assert!(!kubelet.delete("train").await);
    kubelet.admit(Pod::new("big").container("main", [(SLICE, 3)])).await.unwrap();
}

#[tokio::test]
async fn one_variable_of_two_resources_has_one_value_and_a_conflict() {
    let (root, kubelet) = kubelet().await;
    let _small = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    let _large = Plugin::started(root.path(), LARGE, all(&["z"])).await;
    settled(&kubelet, SLICE, 1, 1).await;
    settled(&kubelet, LARGE, 1, 1).await;

    let pod = kubelet.admit(Pod::new("both").container("main", [(SLICE, 1), (LARGE, 1)])).await.unwrap();
    let main = &pod.containers["main"];
    let conflict = &main.conflicts[0];
    assert_eq!((conflict.key.as_str(), &conflict.kept), ("DEVICES", &main.envs["DEVICES"]));
    assert_ne!(conflict.kept, conflict.dropped);
    assert_eq!(main.envs[&format!("OF_{SLICE}")], "a");
    assert_eq!(main.envs[&format!("OF_{LARGE}")], "z");
    assert_eq!(main.cdi_devices.len(), 2, "CDI devices of all answers are there");
}

#[tokio::test]
async fn a_container_reuses_the_devices_of_init_containers() {
    let (root, kubelet) = kubelet().await;
    let _plugin = Plugin::started(root.path(), SLICE, all(&["a", "b"])).await;
    settled(&kubelet, SLICE, 2, 2).await;

    let pod = Pod::new("pod").init_container("init", [(SLICE, 1)]).container("main", [(SLICE, 2)]);
    let given = kubelet.admit(pod).await.unwrap();
    assert!(given.containers["main"].device_ids[SLICE].is_superset(&given.containers["init"].device_ids[SLICE]));
}

#[tokio::test]
async fn a_restart_of_the_kubelet_keeps_pods_and_forgets_plugins() {
    let (root, kubelet) = kubelet().await;
    let mut plugin = Plugin::started(root.path(), SLICE, all(&["a", "b"])).await;
    settled(&kubelet, SLICE, 2, 2).await;
    let before = kubelet.admit(Pod::new("train").container("main", [(SLICE, 1)])).await.unwrap();
    let socket = root.path().join("device-plugins").join(&plugin.endpoint);

    kubelet.kill().await;
    assert!(socket.exists() && root.path().join("device-plugins/kubelet.sock").exists());
    assert!(matches!(kubelet.admit(Pod::new("x")).await, Err(AdmissionError::NotRunning)));
    kubelet.start_again().await.unwrap();
    assert!(!socket.exists(), "the start wipes plugins' sockets");
    assert_eq!(kubelet.resources()[SLICE].capacity, 0);
    let held = kubelet.resources()[SLICE].allocated.clone();
    assert_eq!(held, before.containers["main"].device_ids[SLICE]);

    let again = kubelet.restart_container("train", "main").await.unwrap();
    assert_eq!(again, before.containers["main"], "the answer is in the checkpoint");

    plugin.stop().await;
    plugin.serve();
    plugin.register().await.unwrap();
    settled(&kubelet, SLICE, 2, 2).await;
    let readmitted = kubelet.readmit("train").await.unwrap();
    assert_eq!(readmitted, before);
    let other = kubelet.admit(Pod::new("other").container("main", [(SLICE, 1)])).await.unwrap();
    assert!(other.containers["main"].device_ids[SLICE].is_disjoint(&held));
}

#[tokio::test]
async fn another_process_finds_the_pods_in_the_checkpoint() {
    let (root, first) = kubelet().await;
    let _plugin = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    settled(&first, SLICE, 1, 1).await;
    first.admit(Pod::new("train").container("main", [(SLICE, 1)])).await.unwrap();
    first.stop().await;
    assert!(!root.path().join("device-plugins/kubelet.sock").exists());

    let second = Kubelet::start(root.path()).await.unwrap();
    assert_eq!(second.pods(), ["train"]);
    assert_eq!(second.resources()[SLICE].allocated.len(), 1);
}

#[tokio::test]
async fn a_pod_deleted_while_the_kubelet_is_down_holds_nothing_after_its_start() {
    let (root, kubelet) = kubelet().await;
    let _plugin = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    settled(&kubelet, SLICE, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(SLICE, 1)])).await.unwrap();
    kubelet.kill().await;
    assert!(kubelet.delete("train").await);
    kubelet.start_again().await.unwrap();
    assert!(kubelet.resources()[SLICE].allocated.is_empty());
}

#[tokio::test]
async fn an_unhealthy_device_stays_with_its_container_but_not_over_an_admission() {
    let (root, kubelet) = kubelet().await;
    let plugin = Plugin::started(root.path(), SLICE, all(&["a", "b"])).await;
    settled(&kubelet, SLICE, 2, 2).await;
    kubelet.admit(Pod::new("train").container("main", [(SLICE, 1)])).await.unwrap();
    plugin.list(vec![unhealthy("a"), healthy("b")]);
    settled(&kubelet, SLICE, 1, 2).await;

    kubelet.restart_container("train", "main").await.unwrap();
    let refused = kubelet.readmit("train").await.unwrap_err();
    assert!(matches!(refused, AdmissionError::NoLongerHealthy(_)), "{refused}");
    assert!(kubelet.pods().is_empty(), "the pod has failed");
}

#[tokio::test]
async fn a_plugin_that_goes_leaves_capacity_for_the_grace() {
    let root = tempfile::tempdir().unwrap();
    let options = Options { stop_grace: Duration::from_millis(200), ..Options::default() };
    let kubelet = Kubelet::start_with(root.path(), options).await.unwrap();
    let mut plugin = Plugin::started(root.path(), SLICE, all(&["a", "b"])).await;
    settled(&kubelet, SLICE, 2, 2).await;
    plugin.stop().await;
    settled(&kubelet, SLICE, 0, 2).await;
    kubelet.wait_for(BTreeMap::is_empty, SOON).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_stops_first_may_register_again_at_once() {
    let (root, kubelet) = kubelet().await;
    let mut plugin = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    for count in 2..8 {
        plugin.stop().await;
        plugin.serve();
        plugin.register().await.unwrap();
        let registered =
            |resource: &kubelet_sim::Resource| resource.registrations == count && resource.allocatable == 1;
        kubelet.wait_for(|resources| resources.get(SLICE).is_some_and(registered), SOON).await.unwrap();
    }
    assert_eq!(kubelet.violations(), []);
}

#[tokio::test]
async fn the_directory_may_go_and_come_back() {
    let (root, kubelet) = kubelet().await;
    let mut plugin = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    settled(&kubelet, SLICE, 1, 1).await;
    kubelet.remove_directory().unwrap();
    plugin.stop().await;
    kubelet.recreate_directory().unwrap();
    kubelet.restart().await.unwrap();
    assert!(kubelet.resources().is_empty(), "without a checkpoint nothing is known");
    plugin.serve();
    plugin.register().await.unwrap();
    settled(&kubelet, SLICE, 1, 1).await;
}

#[tokio::test]
async fn raw_calls_reach_the_plugin_as_they_are() {
    let (root, kubelet) = kubelet().await;
    let _plugin = Plugin::started(root.path(), SLICE, all(&["a", "b"])).await;
    settled(&kubelet, SLICE, 2, 2).await;
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();

    let unknown = kubelet.allocate_raw(SLICE, vec![ids(&["nothing"])]).await.unwrap_err();
    assert!(matches!(unknown, AdmissionError::Allocate(_)), "{unknown}");
    let two = kubelet.allocate_raw(SLICE, vec![ids(&["a"]), ids(&["b"])]).await.unwrap();
    assert_eq!(two.containers.len(), 2);
    assert_eq!(kubelet.allocate_raw(SLICE, vec![]).await.unwrap().containers.len(), 0);
    let preferred = kubelet.preferred_raw(SLICE, ids(&["a", "b"]), ids(&["b"]), 1).await.unwrap();
    assert_eq!(preferred.containers[0].ids, ["b"]);
    assert!(kubelet.resources()[SLICE].allocated.is_empty());
}

mod podresources {
    use hyper_util::rt::TokioIo;
    use kubelet::podresources::{ListRequest, ListResponse, pod_resources_lister_client::PodResourcesListerClient};
    use tokio::{net::UnixStream, time::timeout};
    use tonic::Code;

    use super::{Duration, Kubelet, Plugin, Pod, PodResourcesMode, SLICE, SOON, all, kubelet, settled};

    async fn list(kubelet: &Kubelet) -> Result<ListResponse, tonic::Status> {
        let path = kubelet.root().join("pod-resources/kubelet.sock");
        let connect = move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        };
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(connect));
        Ok(PodResourcesListerClient::new(channel).list(ListRequest {}).await?.into_inner())
    }

    #[tokio::test]
    async fn tells_who_holds_what_but_not_of_init_containers() {
        let (root, kubelet) = kubelet().await;
        let _plugin = Plugin::started(root.path(), SLICE, all(&["a", "b"])).await;
        settled(&kubelet, SLICE, 2, 2).await;
        let pod =
            Pod::new("train").namespace("ml").init_container("init", [(SLICE, 1)]).container("main", [(SLICE, 1)]);
        kubelet.admit(pod).await.unwrap();
        kubelet.admit(Pod::new("plain").container::<String>("main", [])).await.unwrap();

        let pods = list(&kubelet).await.unwrap().pods;
        assert_eq!(pods.len(), 2, "pods without devices are listed too");
        let train = &pods[1];
        assert_eq!((train.namespace.as_str(), train.containers.len()), ("ml", 1));
        assert_eq!(train.containers[0].devices[0].resource_name, SLICE);
        assert_eq!(train.containers[0].devices[0].device_ids.len(), 1);
    }

    #[tokio::test]
    async fn can_fail_be_slow_be_silent_and_be_gone() {
        let (_root, kubelet) = kubelet().await;
        kubelet.set_podresources(PodResourcesMode::Failing);
        assert_eq!(list(&kubelet).await.unwrap_err().code(), Code::Internal);
        kubelet.set_podresources(PodResourcesMode::Slow(Duration::from_millis(10)));
        list(&kubelet).await.unwrap();
        kubelet.set_podresources(PodResourcesMode::Silent);
        assert!(timeout(Duration::from_millis(50), list(&kubelet)).await.is_err());
        kubelet.set_podresources(PodResourcesMode::Answering);
        kubelet.remove_podresources().await;
        assert_eq!(list(&kubelet).await.unwrap_err().code(), Code::Unavailable);
        kubelet.restore_podresources().await.unwrap();
        list(&kubelet).await.unwrap();
    }

    #[tokio::test]
    async fn refuses_calls_without_pause() {
        let (_root, kubelet) = kubelet().await;
        let mut refused = false;
        let end = std::time::Instant::now() + SOON;
        while !refused && std::time::Instant::now() < end {
            let calls = (0..40).map(|_| list(&kubelet)).collect::<Vec<_>>();
            for call in calls {
                refused |= call.await.is_err_and(|status| status.code() == Code::ResourceExhausted);
            }
        }
        assert!(refused);
    }
}
