use std::time::Duration;

use mig_model::{ResourceDomain, ResourceName};
use tonic::Code;

use super::*;
use crate::container::gift::Offered;
use crate::roster::tests::{device, faulty};
use crate::usage::Usage;

fn service(devices: &[Offered]) -> PluginService {
    let settle = Duration::from_secs(5);
    let resource = ResourceName::mig(&ResourceDomain::default(), &"1g.5gb".parse().unwrap());
    let meter = crate::metrics::Metrics::default().of(&resource);
    let usage = Arc::new(Usage::of_test(settle));
    let outlet = Arc::new(Outlet::new(resource, usage, settle, meter));
    outlet.update(&Arc::default(), devices);
    PluginService::new(outlet, Arc::default())
}

async fn allocate(service: &PluginService, containers: &[&[&str]]) -> Result<Vec<String>, Status> {
    let containers = containers
        .iter()
        .map(|ids| wire::ContainerAllocateRequest { ids: ids.iter().map(|id| (*id).to_owned()).collect() })
        .collect();
    let answer = service.allocate(Request::new(wire::AllocateRequest { containers })).await?.into_inner();
    Ok(answer
        .containers
        .into_iter()
        .map(|mut container| container.envs.remove("CUDA_VISIBLE_DEVICES").unwrap())
        .collect())
}

#[tokio::test]
async fn each_container_gets_one_answer_in_the_lists_order() {
    let service = service(&[device("MIG-a", "GPU-0"), device("MIG-b", "GPU-0"), device("MIG-c", "GPU-1")]);
    assert_eq!(allocate(&service, &[&["MIG-b", "MIG-a"], &["MIG-c"]]).await.unwrap(), ["MIG-a,MIG-b", "MIG-c"]);
}

/// Rule 2: the kubelet may be choosing from the list that it has.
#[tokio::test(start_paused = true)]
async fn the_list_does_not_shrink_for_a_settle_time_after_an_allocation() {
    let settle = Duration::from_secs(5);
    let service = service(&[device("MIG-a", "GPU-0"), device("MIG-b", "GPU-0")]);
    let outlet = &service.outlet;
    outlet.usage.certainly_free_now(settle).await;
    let only_b = [device("MIG-b", "GPU-0")];
    outlet.update(&Arc::default(), &only_b);
    allocate(&service, &[&["MIG-b"]]).await.unwrap();
    tokio::time::sleep(settle - Duration::from_millis(1)).await;
    outlet.update(&Arc::default(), &only_b);
    assert_eq!(outlet.roster().entries().len(), 2, "nobody holds the other, and yet it stays");
    tokio::time::sleep(Duration::from_millis(1)).await;
    outlet.update(&Arc::default(), &only_b);
    assert_eq!(outlet.roster().entries().len(), 1);
}

#[tokio::test]
async fn a_bad_request_is_refused_with_its_reason() {
    let bad = faulty("MIG-bad", "GPU-1", "GPU 1 is lost");
    let service = service(&[device("MIG-a", "GPU-0"), bad.clone(), device("MIG-old", "GPU-0")]);
    service.outlet.update(&Arc::default(), &[device("MIG-a", "GPU-0"), bad]);
    let cases: [(&[&[&str]], Code, &str); 7] = [
        (&[], Code::InvalidArgument, "names no container"),
        (&[&[]], Code::InvalidArgument, "asks for no device"),
        (&[&["MIG-x"]], Code::NotFound, "has no device \"MIG-x\""),
        (&[&["MIG-a", "MIG-a"]], Code::InvalidArgument, "twice"),
        (&[&["MIG-a"], &["MIG-a"]], Code::InvalidArgument, "twice"),
        (&[&["MIG-old"]], Code::FailedPrecondition, "offered no more"),
        (&[&["MIG-bad"]], Code::FailedPrecondition, "GPU 1 is lost"),
    ];
    for (containers, code, words) in cases {
        let status = allocate(&service, containers).await.unwrap_err();
        assert_eq!(status.code(), code, "{containers:?}");
        assert!(status.message().contains(words), "{containers:?}: {}", status.message());
    }
    let status = allocate(&service, &[&["x".repeat(1 << 20).as_str()]]).await.unwrap_err();
    assert!(status.message().len() < 200, "a message must fit into a log and into HTTP/2 headers");
    assert_eq!(allocate(&service, &[&["MIG-a"]]).await.unwrap(), ["MIG-a"]);
}

#[tokio::test]
async fn a_stream_counts_until_it_is_told_to_end() {
    let service = service(&[device("MIG-a", "GPU-0")]);
    let mut streams = service.contact.streams.subscribe();
    let mut lists = service.list_and_watch(Request::new(wire::Empty {})).await.unwrap().into_inner();
    assert_eq!(*streams.borrow_and_update(), Streams { kubelet: 1, somebody: 0 });
    let next = async |lists: &mut ReceiverStream<Result<wire::ListAndWatchResponse, Status>>| {
        tokio_stream::StreamExt::next(lists).await.map(|list| list.unwrap().devices.len())
    };
    assert_eq!(next(&mut lists).await, Some(1));
    service.outlet.update(&Arc::default(), &[device("MIG-a", "GPU-0"), device("MIG-b", "GPU-0")]);
    assert_eq!(next(&mut lists).await, Some(2));
    service.contact.stop.cancel();
    assert_eq!(next(&mut lists).await, None);
    streams.wait_for(|open| open.any() == 0).await.unwrap();
}

#[tokio::test]
async fn the_same_list_is_not_sent_twice() {
    let service = service(&[device("MIG-a", "GPU-0")]);
    let mut lists = service.outlet.subscribe();
    lists.mark_unchanged();
    service.outlet.update(&Arc::default(), &[device("MIG-a", "GPU-0")]);
    assert!(!lists.has_changed().unwrap());
}

/// Rule 4: nothing is waited for, not even a lock of the runtime's.
#[tokio::test]
async fn an_allocation_is_answered_at_the_first_poll() {
    let service = service(&[device("MIG-a", "GPU-0")]);
    let containers = vec![wire::ContainerAllocateRequest { ids: vec!["MIG-a".to_owned()] }];
    let mut call = service.allocate(Request::new(wire::AllocateRequest { containers }));
    let first = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
    assert!(first.is_ready());
}

#[tokio::test]
async fn two_shares_are_refused_where_one_is_allowed() {
    let share = |id: &str, alone| {
        let mut offered = device(id, "GPU-0");
        offered.device.replica = Some(mig_model::Replica { number: 0, alone });
        offered
    };
    let service = service(&[
        share("MIG-a::0", true),
        share("MIG-a::1", true),
        share("MIG-b::0", false),
        share("MIG-b::1", false),
    ]);
    let status = allocate(&service, &[&["MIG-a::0", "MIG-a::1"]]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("failRequestsGreaterThanOne"), "{}", status.message());
    assert_eq!(allocate(&service, &[&["MIG-a::0"], &["MIG-a::1"]]).await.unwrap(), ["MIG-a", "MIG-a"]);
    assert_eq!(allocate(&service, &[&["MIG-b::0", "MIG-b::1"]]).await.unwrap(), ["MIG-b"]);
}
