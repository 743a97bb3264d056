use super::*;

const SETTLE: Duration = Duration::from_secs(5);

fn holding(id: &str) -> Vec<Holding> {
    let text = |text: &str| text.to_owned();
    vec![Holding {
        namespace: text("default"),
        pod: text("train"),
        container: text("main"),
        resource: text("nvidia.com/mig-1g.5gb"),
        ids: vec![text(id)],
    }]
}

fn device(id: &str) -> Device {
    Device { id: id.to_owned(), uuid: uuid_of(id).to_owned(), gpu: "GPU-0".to_owned(), ..Device::default() }
}

impl Usage {
    /// On a node where nothing runs, and where no agent was before.
    pub(crate) fn of_test(settle: Duration) -> Self {
        Self::reading(settle, nothing_runs(), vec![])
    }

    fn reading(
        settle: Duration,
        inventory: watch::Receiver<Option<Arc<NodeInventory>>>,
        before: Vec<GivenOut>,
    ) -> Self {
        let earlier = Earlier::new(move || before.clone());
        Self::new(ResourceDomain::default(), settle, inventory, earlier, watch::channel(vec![]).0)
    }

    /// Lets the settle time pass and reads twice that nobody holds anything.
    pub(crate) async fn certainly_free_now(&self, settle: Duration) {
        sleep(settle * UNSEEN).await;
        learn(self, vec![]);
        learn(self, vec![]);
    }
}

/// A node of which the driver has told everything, and on which nothing runs.
pub(crate) fn nothing_runs() -> watch::Receiver<Option<Arc<NodeInventory>>> {
    watch::channel(Some(Arc::default())).1
}

fn learn(usage: &Usage, holdings: Vec<Holding>) {
    usage.learn(Instant::now(), holdings);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_free_before_two_readings_and_the_settle_time() {
    let usage = Usage::of_test(SETTLE);
    learn(&usage, vec![]);
    learn(&usage, vec![]);
    assert!(!usage.is_free("MIG-a"), "both readings began too soon after the start");
    sleep(SETTLE * UNSEEN).await;
    learn(&usage, vec![]);
    assert!(!usage.is_free("MIG-a"), "one good reading is not enough");
    learn(&usage, vec![]);
    assert!(usage.is_free("MIG-a"));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_out_is_free_when_it_was_seen_and_is_no_more() {
    let usage = Usage::of_test(SETTLE);
    sleep(SETTLE * UNSEEN).await;
    usage.record(&ResourceName::gpu(&ResourceDomain::default()), [&device("MIG-a")].into_iter());
    sleep(SETTLE).await;
    learn(&usage, holding("MIG-a"));
    learn(&usage, vec![]);
    assert!(!usage.is_free("MIG-a"));
    learn(&usage, vec![]);
    assert!(usage.is_free("MIG-a"));
    assert!(usage.state().records.is_empty(), "what is free needs no record");
    usage.record(&ResourceName::gpu(&ResourceDomain::default()), [&device("MIG-a")].into_iter());
    assert!(!usage.is_free("MIG-a"), "given out again");
}

#[tokio::test(start_paused = true)]
async fn when_a_pod_is_gone_it_is_looked_until_that_is_certain() {
    let usage = Usage::of_test(SETTLE);
    sleep(SETTLE * UNSEEN).await;
    usage.record(&ResourceName::gpu(&ResourceDomain::default()), [&device("MIG-a")].into_iter());
    sleep(SETTLE).await;
    learn(&usage, holding("MIG-a"));
    learn(&usage, vec![]);
    assert!(usage.next_look(SOON).is_some(), "one reading that lacks it is not enough");
    learn(&usage, vec![]);
    assert_eq!(usage.next_look(SOON), None);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_out_and_never_seen_counts_as_held_for_long() {
    let usage = Usage::of_test(SETTLE);
    usage.record(&ResourceName::gpu(&ResourceDomain::default()), [&device("MIG-a")].into_iter());
    sleep(SETTLE * (UNSEEN - 1)).await;
    learn(&usage, vec![]);
    learn(&usage, vec![]);
    assert!(!usage.is_free("MIG-a"), "an init container may hold it");
    sleep(SETTLE).await;
    learn(&usage, vec![]);
    learn(&usage, vec![]);
    assert!(usage.is_free("MIG-a"));
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_as_held_is_what_was_given_out_or_was_last_seen() {
    let usage = Usage::of_test(SETTLE);
    assert_eq!(usage.pods_with("MIG-a"), Pods::Unknown, "podresources was not read yet");
    usage.record(&ResourceName::gpu(&ResourceDomain::default()), [&device("MIG-a")].into_iter());
    assert_eq!(usage.pods_with("MIG-a"), Pods::Hold(vec![]));
    learn(&usage, vec![]);
    learn(&usage, vec![]);
    assert_eq!(usage.pods_with("MIG-b"), Pods::Unknown, "the settle time has not passed");
    assert_eq!(usage.next_look(SELDOM), Some(SELDOM), "and it is to be looked at again");
    sleep(SETTLE).await;
    learn(&usage, vec![]);
    assert_eq!((usage.pods_with("MIG-a"), usage.pods_with("MIG-b")), (Pods::Hold(vec![]), Pods::None), "not seen yet");
    learn(&usage, holding("MIG-a"));
    let Pods::Hold(holders) = usage.pods_with("MIG-a") else { panic!("it is held") };
    assert_eq!(holders[0].pod, "train");
    assert_eq!(usage.next_look(SELDOM), Some(SETTLE * HELD), "nothing tells when a pod lets go");
    learn(&usage, vec![]);
    assert_eq!(usage.pods_with("MIG-a"), Pods::None);
    usage.state().failing = true;
    assert_eq!(usage.pods_with("MIG-a"), Pods::Unknown, "whoever can't be asked has not said no");
    usage.state().failing = false;
    sleep(SETTLE * UNSEEN).await;
    learn(&usage, vec![]);
    learn(&usage, vec![]);
    assert_eq!(usage.next_look(SELDOM), None, "nothing is held, and nothing is to be learnt");
}

#[tokio::test(start_paused = true)]
async fn the_shares_of_a_slice_have_their_pods_and_the_slice_has_all_of_them() {
    let usage = Usage::of_test(SETTLE);
    usage.certainly_free_now(SETTLE).await;
    let second = Holding { pod: "infer".to_owned(), ..holding("MIG-a::1").remove(0) };
    learn(&usage, [holding("MIG-a::0"), vec![second]].concat());
    let names = |pods: Pods| match pods {
        Pods::Hold(holders) => holders.into_iter().map(|holder| holder.pod).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names(usage.pods_with("MIG-a::0")), ["train"]);
    assert_eq!(names(usage.pods_on("MIG-a")), ["infer", "train"]);
    assert_eq!(usage.pods_with("MIG-a::2"), Pods::None);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_abandoned_when_neither_pods_nor_programs_are_left() {
    let device = Device { id: "MIG-a::0".to_owned(), uuid: "MIG-a".to_owned(), ..Device::default() };
    let unread = Usage::reading(SETTLE, watch::channel(None).1, vec![]);
    unread.certainly_free_now(SETTLE).await;
    assert!(!unread.is_abandoned(&device), "the driver has not said what runs");
    // A share of it may have a pod and programs; this one has neither.
    learn(&unread, holding("MIG-a::1"));
    assert!(unread.is_abandoned(&device));
    let usage = Usage::of_test(SETTLE);
    assert!(!usage.is_abandoned(&device));
    usage.certainly_free_now(SETTLE).await;
    assert!(usage.is_abandoned(&device));
    learn(&usage, holding("MIG-a::0"));
    assert!(!usage.is_abandoned(&device));
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_has_just_started_may_not_know_its_pods_yet() {
    let usage = Usage::of_test(SETTLE);
    usage.certainly_free_now(SETTLE).await;
    assert!(usage.is_free("MIG-a"));
    let folder = std::env::temp_dir().join(format!("usage-{}", std::process::id()));
    let _listener = std::os::unix::net::UnixListener::bind(&folder).unwrap();
    usage.meet(SocketIdentity::of(&folder).unwrap());
    std::fs::remove_file(&folder).unwrap();
    learn(&usage, vec![]);
    learn(&usage, vec![]);
    assert!(!usage.is_free("MIG-a"));
}

/// A configuration may call a resource what it likes, and be another one after a restart.
#[tokio::test(start_paused = true)]
async fn what_is_held_under_a_name_of_the_configuration_is_looked_after_too() {
    let named = |id: &str| vec![Holding { resource: "nvidia.com/large".to_owned(), ..holding(id).remove(0) }];
    let usage = Usage::of_test(SETTLE);
    usage.certainly_free_now(SETTLE).await;
    learn(&usage, named("MIG-a"));
    assert_eq!(usage.next_look(SELDOM), Some(SETTLE * HELD), "nothing tells when a pod lets go");
    assert_eq!(usage.held_resources(), [], "another plugin's, as far as is known");
    let after = |usage: &Usage| {
        let usage = Usage::reading(SETTLE, nothing_runs(), usage.state().given_out(&usage.domain));
        let before = usage.held_resources();
        learn(&usage, named("MIG-a"));
        assert_eq!(usage.held_resources(), before);
        (usage, before)
    };
    let (usage, names) = after(&usage);
    assert_eq!(names, [], "nor for the agent that comes next");
    // Given out by this one, it is known to all that follow.
    let name = ResourceName::parse("large", &ResourceDomain::default()).unwrap();
    usage.record(&name, [&device("MIG-a")].into_iter());
    let (usage, names) = after(&usage);
    assert_eq!(names, std::slice::from_ref(&name));
    let (_, names) = after(&usage);
    assert_eq!(names, [name]);
}

/// Rules 1 and 3: the kubelet is the same, and yet somebody else may have given out what podresources does not list.
#[tokio::test(start_paused = true)]
async fn what_is_taken_over_from_another_agent_is_not_free_at_once() {
    let noted = vec![GivenOut {
        id: "MIG-b".to_owned(),
        resource: "nvidia.com/mig-1g.5gb".to_owned(),
        gpu: Some("GPU-0".to_owned()),
        seen: false,
        given: true,
    }];
    let (given_out, notes) = watch::channel(vec![]);
    let is_written = Arc::new(AtomicBool::new(false));
    let before = {
        let is_written = Arc::clone(&is_written);
        Earlier::new(move || if is_written.load(Ordering::Relaxed) { noted.clone() } else { vec![] })
    };
    let usage = Usage::new(ResourceDomain::default(), SETTLE, nothing_runs(), before, given_out);
    usage.certainly_free_now(SETTLE).await;
    learn(&usage, holding("MIG-c"));
    usage.note();
    assert!(notes.borrow().is_empty(), "the other agent has the file until this one serves");
    assert!(usage.is_free("MIG-a") && usage.is_unused("MIG-b"));

    is_written.store(true, Ordering::Relaxed);
    usage.take_over().await;
    usage.serves();
    usage.note();
    let ids: Vec<String> = notes.borrow().iter().map(|given| given.id.clone()).collect();
    assert_eq!(ids, ["MIG-b", "MIG-c"]);
    assert_eq!(usage.pods_with("MIG-b"), Pods::Hold(vec![]), "by the other's word");
    assert_eq!(usage.gpu_of("MIG-b"), "GPU-0");
    learn(&usage, vec![]);
    learn(&usage, vec![]);
    assert!(!usage.is_free("MIG-a") && !usage.is_unused("MIG-b"));
    usage.certainly_free_now(SETTLE).await;
    assert!(usage.is_free("MIG-a") && usage.is_unused("MIG-b"));
}

#[tokio::test(start_paused = true)]
async fn other_peoples_resources_are_not_ours_to_list() {
    let usage = Usage::of_test(SETTLE);
    let foreign = Holding { resource: "example.com/mig-1g.5gb".to_owned(), ..holding("MIG-x").remove(0) };
    learn(&usage, [holding("MIG-a"), vec![foreign]].concat());
    let resource = ResourceName::mig(&ResourceDomain::default(), &"1g.5gb".parse().unwrap());
    assert_eq!(usage.held(&resource), ["MIG-a"]);
    let own = HashSet::from(["MIG-a".to_owned()]);
    let elsewhere = usage.held_otherwise(&resource, &own);
    assert_eq!((elsewhere.has(&device("MIG-x")), elsewhere.has(&device("MIG-a"))), (true, false));
    let shares = usage.held_otherwise(&resource, &HashSet::from(["MIG-a::0".to_owned()]));
    assert!(shares.has(&device("MIG-a::0")), "as another share");
    assert_eq!(usage.held_resources(), [resource]);
}
