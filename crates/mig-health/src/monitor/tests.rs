use mig_model::{ComputeInstance, GpuInstance, MigMode, RemappedRows};

use super::*;
use crate::{Settings, Switches, changes, parse};

mod memory;
mod random;
mod rules;

const G: &str = "GPU-0";

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

/// Application 30 s, hardware 60 s, unconfirmed 300 s, state 5 s, longest 1800 s.
fn monitor() -> Monitor {
    with(&Settings::default())
}

fn with(settings: &Settings) -> Monitor {
    Monitor::new(Policy::new(settings, Switches::default(), false).unwrap(), at(30))
}

/// A GPU with slices in the instances 1, 2, ... whose UUIDs these are; none where MIG is off.
fn gpu(name: &str, slices: &[&str]) -> Gpu {
    let instance = |(place, uuid): (usize, &&str)| {
        let profile: mig_model::Profile = "1g.5gb".parse().unwrap();
        let compute = ComputeInstance {
            id: 0,
            profile: profile.clone(),
            uuid: MigUuid::new(format!("MIG-{uuid}")).unwrap(),
            index: None,
            placement: None,
            fault: None,
        };
        let id = u32::try_from(place).unwrap() + 1;
        GpuInstance { id, profile, placement: None, compute_instances: vec![compute] }
    };
    Gpu {
        index: 0,
        uuid: GpuUuid::new(name).unwrap(),
        name: "NVIDIA A100".to_owned(),
        minor: None,
        pci_address: None,
        numa_node: None,
        mig: MigMode::Known { enabled: !slices.is_empty(), pending: !slices.is_empty() },
        instances: slices.iter().enumerate().map(instance).collect(),
        vitals: Vitals {
            recovery: Some(Wanted::None),
            remapped_rows: Some(RemappedRows::default()),
            ..Vitals::default()
        },
        unwatched: None,
        outdated: false,
        processes: None,
        fault: None,
    }
}

fn node(gpus: Vec<Gpu>) -> NodeInventory {
    NodeInventory { gpus, ..NodeInventory::default() }
}

fn seven() -> NodeInventory {
    node(vec![gpu(G, &["a", "b", "c", "d", "e", "f", "g"])])
}

fn event(xid: u64, instance: Option<u32>) -> XidEvent {
    let (gpu, compute_instance) = (GpuUuid::new(G).unwrap(), instance.map(|_| 0));
    XidEvent { gpu, xid, gpu_instance: instance, compute_instance }
}

/// Which slices are unhealthy, each by the last letter of its UUID; `*` for the GPU.
fn bad(monitor: &mut Monitor, inventory: &NodeInventory, now: Moment) -> String {
    let marked = monitor.mark(inventory, now);
    let mut bad = String::new();
    for gpu in &marked.gpus {
        bad.extend(gpu.fault.as_ref().map(|_| '*'));
        let slices = gpu.instances.iter().flat_map(|instance| &instance.compute_instances);
        bad.extend(slices.filter(|s| s.fault.is_some()).filter_map(|s| s.uuid.as_str().chars().last()));
    }
    bad
}

fn lost() -> Option<Fault> {
    Some(Fault { kind: "GpuIsLost", message: "the GPU is lost".to_owned() })
}

// NVIDIA's #1929: of the slices of a GPU, only one is told of an XID.
#[test]
fn an_xid_goes_to_the_slice_that_it_names_whichever_that_is() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    for (instance, expected) in
        [(3, "c"), (1, "ac"), (7, "acg"), (2, "abcg"), (6, "abcfg"), (4, "abcdfg"), (5, "abcdefg")]
    {
        assert_eq!(monitor.xid(&event(94, Some(instance)), at(2)), Told::Counts);
        assert_eq!(bad(&mut monitor, &node, at(2)), expected);
    }
}

#[test]
fn an_xid_that_names_none_or_concerns_the_gpu_goes_to_all() {
    for (xid, instance, expected) in
        [(8, None, "abcdefg"), (94, None, "*"), (79, None, "*"), (79, Some(3), "*"), (13, None, ""), (13, Some(3), "")]
    {
        let (mut monitor, node) = (monitor(), seven());
        monitor.read(&node, at(1), at(1));
        monitor.xid(&event(xid, instance), at(2));
        assert_eq!(bad(&mut monitor, &node, at(2)), expected, "{xid} {instance:?}");
    }
}

#[test]
fn the_message_says_the_number_what_it_is_and_what_to_do() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(79, None), at(2));
    let fault = monitor.mark(&node, at(2)).gpus[0].fault.clone().unwrap();
    assert_eq!(fault.kind, "Xid");
    assert!(fault.message.starts_with("XID 79: the GPU has fallen off the bus (bus); restart the node"), "{fault:?}");
    monitor.xid(&event(8, Some(1)), at(2));
    let marked = monitor.mark(&node, at(2));
    let slice = marked.gpus[0].instances[0].compute_instances[0].fault.clone().unwrap();
    assert!(slice.message.ends_with("well again 30s after the last one"), "{slice:?}");
}

#[test]
fn an_event_of_a_slice_that_is_not_known_yet_waits_for_the_next_reading() {
    let mut monitor = monitor();
    monitor.read(&node(vec![gpu(G, &["a"])]), at(1), at(1));
    assert_eq!(monitor.xid(&event(94, Some(2)), at(2)), Told::Waits);
    let now = node(vec![gpu(G, &["a", "b"])]);
    // Looked at again, but not read since.
    monitor.read(&node(vec![gpu(G, &["a"])]), at(1), at(3));
    assert!(monitor.next(at(3)).is_some_and(|next| next <= at(4)));
    monitor.read(&now, at(4), at(4));
    assert_eq!(bad(&mut monitor, &now, at(4)), "b");
}

#[test]
fn an_event_of_a_slice_that_is_gone_is_nobodys() {
    let mut monitor = monitor();
    let now = node(vec![gpu(G, &["a"])]);
    monitor.read(&now, at(1), at(1));
    monitor.xid(&event(94, Some(2)), at(2));
    monitor.read(&now, at(3), at(3));
    let later = node(vec![gpu(G, &["a", "b"])]);
    monitor.read(&later, at(4), at(4));
    assert_eq!(bad(&mut monitor, &later, at(4)), "");
}

#[test]
fn a_new_slice_with_the_ids_of_an_old_one_does_not_inherit() {
    let mut monitor = monitor();
    let before = node(vec![gpu(G, &["a", "b"])]);
    monitor.read(&before, at(1), at(1));
    monitor.xid(&event(94, Some(2)), at(2));
    assert_eq!(bad(&mut monitor, &before, at(2)), "b");
    let after = node(vec![gpu(G, &["a", "n"])]);
    monitor.read(&after, at(3), at(3));
    assert_eq!(bad(&mut monitor, &after, at(3)), "");
}

#[test]
fn an_event_before_the_first_reading_waits_for_it() {
    let mut monitor = monitor();
    assert_eq!(monitor.xid(&event(94, Some(1)), at(1)), Told::Waits);
    assert_eq!(monitor.xid(&event(79, None), at(1)), Told::Counts);
    let node = seven();
    monitor.read(&node, at(2), at(2));
    assert_eq!(bad(&mut monitor, &node, at(2)), "*a");
}

#[test]
fn a_gpu_that_is_not_cut_takes_what_names_a_slice() {
    let (mut monitor, node) = (monitor(), node(vec![gpu(G, &[])]));
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(94, Some(0)), at(2));
    monitor.read(&node, at(3), at(3));
    assert_eq!(bad(&mut monitor, &node, at(3)), "*");
}

// NVIDIA's #189, #234, #426: what is unhealthy stays so for ever.
#[test]
fn a_programs_error_is_over_after_a_quiet_time_and_each_further_one_starts_it_anew() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(8, Some(1)), at(10));
    monitor.xid(&event(8, Some(1)), at(35));
    assert_eq!(monitor.next(at(35)), Some(at(65)));
    assert_eq!(bad(&mut monitor, &node, at(64)), "a");
    assert_eq!(bad(&mut monitor, &node, at(65)), "");
}

// NVIDIA's #189, #234, #426.
#[test]
fn a_fault_of_hardware_is_over_when_the_driver_wants_nothing_for_a_while() {
    let (mut monitor, mut node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(79, None), at(10));
    // Not read since: nothing is known.
    monitor.read(&node, at(9), at(500));
    assert_eq!(bad(&mut monitor, &node, at(500)), "*");
    node.gpus[0].vitals.recovery = Some(Wanted::GpuReset);
    monitor.read(&node, at(501), at(501));
    monitor.read(&node, at(5000), at(5000));
    assert_eq!(bad(&mut monitor, &node, at(5000)), "*", "it waits for a reset however long that takes");
    node.gpus[0].vitals.recovery = Some(Wanted::None);
    monitor.read(&node, at(5001), at(5001));
    assert_eq!(bad(&mut monitor, &node, at(5005)), "*");
    assert_eq!(bad(&mut monitor, &node, at(5006)), "", "the driver wants nothing any more: it was reset");
}

#[test]
fn without_the_drivers_word_it_takes_longer() {
    for (recovery, end) in [(Some(Wanted::None), 71), (None, 311)] {
        let (mut monitor, mut node) = (monitor(), seven());
        node.gpus[0].vitals.recovery = recovery;
        monitor.read(&node, at(1), at(1));
        monitor.xid(&event(94, Some(2)), at(10));
        monitor.read(&node, at(11), at(11));
        assert_eq!(bad(&mut monitor, &node, at(end - 1)), "b");
        assert_eq!(bad(&mut monitor, &node, at(end)), "");
    }
}

#[test]
fn a_lost_gpu_that_returns_was_reset() {
    let (mut monitor, mut node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(79, None), at(10));
    node.gpus[0].fault = lost();
    monitor.read(&node, at(11), at(11));
    assert_eq!(monitor.mark(&node, at(3000)).gpus[0].fault, lost(), "the driver's own word");
    node.gpus[0].fault = None;
    monitor.read(&node, at(4000), at(4000));
    assert_eq!(bad(&mut monitor, &node, at(4004)), "*");
    assert_eq!(bad(&mut monitor, &node, at(4005)), "");
}

/// Of a GPU that an agent has never read it has the index alone.
#[test]
fn a_gpu_that_a_restarted_agent_cannot_read_at_first_was_not_reset() {
    let (mut first, mut well) = (monitor(), seven());
    well.gpus[0].vitals.uncorrectable_errors = Some(1);
    first.read(&well, at(1), at(1));
    first.xid(&event(79, None), at(10));
    for (fault, is_reset) in [(Fault { kind: "Timeout", message: "late".to_owned() }, false), (lost().unwrap(), true)] {
        let mut next = monitor();
        next.restore(&first.record(), at(20));
        let unreadable = vec![mig_model::UnreadableGpu { index: 0, uuid: None, fault }];
        next.read(&NodeInventory { gpus: vec![], unreadable, ..NodeInventory::default() }, at(20), at(20));
        next.read(&well, at(25), at(25));
        assert_eq!(bad(&mut next, &well, at(35)), if is_reset { "" } else { "*" });
    }
}

#[test]
fn what_is_told_of_a_gpu_counts_for_as_long_as_it_is_so() {
    type Change = fn(&mut Vitals);
    let cases: [(Change, &str); 4] = [
        (|vitals| vitals.recovery = Some(Wanted::NodeReboot), "RecoveryWanted"),
        (|vitals| vitals.recovery = Some(Wanted::Other(9)), "RecoveryWanted"),
        (|vitals| vitals.remapped_rows = Some(RemappedRows { pending: true, ..Default::default() }), "RowRemapPending"),
        (|vitals| vitals.remapped_rows = Some(RemappedRows { failed: true, ..Default::default() }), "RowRemapFailed"),
    ];
    for (change, kind) in cases {
        let (mut monitor, well) = (monitor(), seven());
        let mut ill = seven();
        change(&mut ill.gpus[0].vitals);
        monitor.read(&ill, at(1), at(1));
        let fault = monitor.mark(&ill, at(1000)).gpus[0].fault.clone().unwrap();
        assert_eq!(fault.kind, kind);
        monitor.read(&well, at(1001), at(1001));
        assert_eq!(bad(&mut monitor, &well, at(1005)), "*");
        assert_eq!(bad(&mut monitor, &well, at(1006)), "", "{kind}");
    }
}

/// A call that fails says nothing of the hardware, in whichever pass it does.
#[test]
fn what_the_driver_does_not_tell_any_more_is_neither_over_nor_a_reset() {
    let untold = |node: &NodeInventory| {
        let mut node = node.clone();
        node.gpus[0].vitals = Vitals::default();
        node
    };
    let rows = |pending| Some(RemappedRows { pending, ..RemappedRows::default() });
    for (ill, well) in [
        ((Some(Wanted::GpuReset), rows(false)), (Some(Wanted::None), rows(false))),
        ((Some(Wanted::None), rows(true)), (Some(Wanted::None), rows(false))),
    ] {
        let (mut monitor, mut node) = (monitor(), seven());
        let vitals = |(recovery, remapped_rows)| Vitals { recovery, remapped_rows, uncorrectable_errors: None };
        node.gpus[0].vitals = vitals(ill);
        monitor.read(&node, at(1), at(1));
        monitor.xid(&event(94, Some(2)), at(2));
        for time in [3, 1000, 5000] {
            monitor.read(&untold(&node), at(time), at(time));
            assert_eq!(bad(&mut monitor, &untold(&node), at(time)), "*b", "{ill:?} at {time}");
        }
        node.gpus[0].vitals = vitals(well);
        monitor.read(&node, at(5001), at(5001));
        // Not told for a moment, while it fades: then it fades from the next answer on.
        monitor.read(&untold(&node), at(5003), at(5003));
        monitor.read(&node, at(5004), at(5004));
        assert_eq!(bad(&mut monitor, &node, at(5008)), "*b");
        assert_eq!(bad(&mut monitor, &node, at(5064)), "", "{ill:?}");
    }
}

#[test]
fn a_fault_of_hardware_does_not_fade_while_vitals_that_were_told_are_not() {
    let (mut monitor, mut node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(94, Some(2)), at(10));
    node.gpus[0].vitals = Vitals::default();
    monitor.read(&node, at(11), at(11));
    monitor.read(&node, at(3000), at(3000));
    assert_eq!(bad(&mut monitor, &node, at(3000)), "b");
    node.gpus[0].vitals = seven().gpus[0].vitals.clone();
    monitor.read(&node, at(3001), at(3001));
    assert_eq!(bad(&mut monitor, &node, at(3060)), "b");
    assert_eq!(bad(&mut monitor, &node, at(3061)), "");
}

#[test]
fn a_gpu_that_is_not_watched_is_not_offered_unless_told_to() {
    let mut node = seven();
    node.gpus[0].unwatched = Some(Fault { kind: "Unwatched", message: "no events".to_owned() });
    for (settings, expected) in [("", "*"), ("advertiseUnwatched: true", "")] {
        let mut monitor = with(&parse(settings).unwrap());
        monitor.read(&node, at(1), at(1));
        assert_eq!(bad(&mut monitor, &node, at(1)), expected);
    }
    let policy = Policy::new(&Settings::default(), Switches::read("all", "").0, false).unwrap();
    let mut monitor = Monitor::new(policy, at(30));
    monitor.read(&node, at(1), at(1));
    assert_eq!(bad(&mut monitor, &node, at(1)), "");
}

#[test]
fn a_driver_that_is_late_for_long_hangs() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.late(true, at(10));
    assert_eq!(monitor.next(at(10)), Some(at(40)));
    assert_eq!(bad(&mut monitor, &node, at(39)), "");
    monitor.late(true, at(40));
    let hanging = monitor.mark(&node, at(40)).gpus.remove(0);
    assert_eq!(hanging.fault.unwrap().kind, "DriverHangs");
    assert!(hanging.outdated, "nobody knows what runs on it");
    monitor.late(false, at(50));
    monitor.read(&node, at(50), at(50));
    assert_eq!(bad(&mut monitor, &node, at(54)), "*");
    assert_eq!(bad(&mut monitor, &node, at(55)), "");
    assert!(!monitor.mark(&node, at(55)).gpus[0].outdated);
}

#[test]
fn what_comes_and_goes_is_believed_ever_later() {
    let (mut monitor, well) = (monitor(), seven());
    let mut ill = seven();
    ill.gpus[0].fault = lost();
    let mut marks = Vec::new();
    // Ill for a second in every twenty, for two hours.
    for second in 1..7200 {
        let now = at(second);
        monitor.read(if second % 20 == 0 { &ill } else { &well }, now, now);
        marks.push(bad(&mut monitor, &well, now).is_empty());
    }
    let transitions = marks.windows(2).filter(|pair| pair[0] != pair[1]).count();
    // 5, 10 and 20 s are over before it returns; longer waits are not.
    assert!(transitions <= 6, "{transitions}");
}

#[test]
fn what_stays_away_for_long_is_forgotten() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(8, Some(1)), at(10));
    monitor.xid(&event(8, Some(1)), at(50));
    assert_eq!(bad(&mut monitor, &node, at(109)), "a", "twice as long");
    assert_eq!(bad(&mut monitor, &node, at(110)), "");
    monitor.xid(&event(8, Some(1)), at(110 + 1801));
    assert_eq!(bad(&mut monitor, &node, at(110 + 1801 + 30)), "");
    monitor.mark(&node, at(9000));
    assert!(monitor.causes.is_empty());
}

#[test]
fn a_storm_is_one_change() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    let mut before = monitor.mark(&node, at(1));
    let mut lists = 0;
    for number in 0..10_000_u64 {
        let now = Duration::from_millis(2000 + number);
        monitor.xid(&event(94, Some(1)), now);
        monitor.xid(&event(8, Some(2)), now);
        let after = monitor.mark(&node, now);
        lists += usize::from(!changes(Some(&before), &after).is_empty());
        before = after;
    }
    assert_eq!(lists, 1);
    assert!(monitor.causes.len() == 2 && monitor.waiting.is_empty());
}

#[test]
fn events_that_name_nothing_that_is_known_do_not_pile_up() {
    let mut monitor = monitor();
    for number in 0..5000 {
        monitor.xid(&event(94, Some(number)), at(1));
    }
    assert_eq!(monitor.waiting.len(), MOST_WAITING);
}

#[test]
fn a_restart_knows_what_the_driver_told_once() {
    let (mut first, node) = (monitor(), seven());
    first.read(&node, at(1), at(1));
    first.xid(&event(94, Some(3)), at(10));
    first.xid(&event(8, Some(4)), at(12));
    let text = serde_json::to_string(&first.record()).unwrap();
    let record: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(record.faults.len(), 2);
    let restored = |now: Moment| {
        let mut next = monitor();
        next.restore(&record, now);
        next.read(&node, now, now);
        bad(&mut next, &node, now)
    };
    assert_eq!(restored(at(20)), "cd");
    assert_eq!(restored(at(43)), "c", "the time without an agent is quiet, too");
    // Times that cannot be, as of a clock that went back, are the present.
    assert_eq!(restored(at(5)), "cd");
}
