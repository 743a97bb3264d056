//! Random lives of a GPU, and what must be true of all of them.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Happening {
    /// Of a program, in one of three slices.
    Program(usize),
    /// Of hardware, in one of three slices or in all of the GPU.
    Hardware(Option<usize>),
    Lose(bool),
    Want(bool),
    Pend(bool),
    /// Seconds pass.
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..3_usize).prop_map(Happening::Program),
        proptest::option::of(0..3_usize).prop_map(Happening::Hardware),
        any::<bool>().prop_map(Happening::Lose),
        any::<bool>().prop_map(Happening::Want),
        any::<bool>().prop_map(Happening::Pend),
        (1..=100_u64).prop_map(Happening::Wait),
        (1..=100_u64).prop_map(Happening::Wait),
    ]
}

fn in_slice(xid: u64, slice: usize) -> XidEvent {
    event(xid, Some(u32::try_from(slice).unwrap() + 1))
}

fn is_bad(monitor: &mut Monitor, node: &NodeInventory, now: Moment, slice: usize) -> bool {
    let marked = monitor.mark(node, now);
    let gpu = &marked.gpus[0];
    gpu.fault.is_some() || gpu.instances[slice].compute_instances[0].fault.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_well_while_something_is_wrong(life in proptest::collection::vec(happening(), 1..60)) {
        let mut monitor = monitor();
        let mut node = node(vec![gpu(G, &["a", "b", "c"])]);
        let mut now = at(1);
        let mut programs = [None::<Moment>; 3];
        let mut hardware = [None::<Moment>; 3];
        // When the GPU last told something bad of itself.
        let mut last_ill = None::<Moment>;
        monitor.read(&node, now, now);
        let mut before = monitor.mark(&node, now);
        for happening in life {
            let calm = matches!(happening, Happening::Wait(_));
            match happening {
                Happening::Program(slice) => {
                    monitor.xid(&in_slice(8, slice), now);
                    programs[slice] = Some(now);
                }
                Happening::Hardware(Some(slice)) => {
                    monitor.xid(&in_slice(94, slice), now);
                    hardware[slice] = Some(now);
                }
                Happening::Hardware(None) => {
                    monitor.xid(&event(95, None), now);
                    hardware = [Some(now); 3];
                }
                Happening::Lose(lose) => node.gpus[0].fault = lose.then(lost).flatten(),
                Happening::Want(wants) => {
                    node.gpus[0].vitals.recovery = Some(if wants { Wanted::GpuReset } else { Wanted::None });
                }
                Happening::Pend(pending) => {
                    node.gpus[0].vitals.remapped_rows = Some(RemappedRows { pending, ..Default::default() });
                }
                Happening::Wait(seconds) => now += at(seconds),
            }
            monitor.read(&node, now, now);
            let lost = node.gpus[0].fault.is_some();
            let ill = lost || !faults(&node.gpus[0].vitals).is_empty();
            // While it is lost its vitals are not read: they may be the old ones.
            if lost || ill {
                last_ill = Some(now);
            }
            for slice in 0..3 {
                let recent = |at_most: u64, last: Option<Moment>| last.is_some_and(|last| now < last + at(at_most));
                // A reset makes hardware well within five seconds; nothing does sooner.
                let wrong = lost
                    || ill
                    || recent(30, programs[slice])
                    || recent(5, hardware[slice]);
                let marked = is_bad(&mut monitor, &node, now, slice);
                prop_assert!(!wrong || marked, "slice {slice} is well at {now:?}");
                // And nothing is blamed without a cause.
                let ever = programs[slice].or(hardware[slice]).or(last_ill).is_some();
                prop_assert!(ever || !marked, "slice {slice} is blamed for nothing at {now:?}");
            }
            // Bad news has a cause at that moment; only good news comes by time alone.
            let after = monitor.mark(&node, now);
            if calm {
                let worse = changes(Some(&before), &after).into_iter().find(|change| change.was.is_none());
                prop_assert!(worse.is_none(), "{worse:?} at {now:?} for no reason");
            }
            before = after;
        }
        // In the end everything heals.
        node.gpus[0].fault = None;
        let rows = Some(RemappedRows::default());
        node.gpus[0].vitals = Vitals { recovery: Some(Wanted::None), remapped_rows: rows, ..Vitals::default() };
        for later in [0, 1, 1802] {
            monitor.read(&node, now + at(later), now + at(later));
        }
        now += at(1802);
        prop_assert_eq!(bad(&mut monitor, &node, now), "");
        prop_assert_eq!(monitor.next(now), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// However often something comes and goes, and however fast: a handful of changes, and then two in the longest wait.
    #[test]
    fn nothing_flaps(period in 2..4000_u64, ill_for in 1..100_u64, kind in 0..3) {
        const SPAN: u64 = 21_600;
        let mut monitor = monitor();
        let well = node(vec![gpu(G, &["a", "b", "c"])]);
        let mut ill = well.clone();
        ill.gpus[0].fault = lost();
        monitor.read(&well, at(1), at(1));
        let mut transitions = 0_u64;
        let mut before = false;
        for second in 2..SPAN {
            let (now, is_ill) = (at(second), second % period < ill_for.min(period - 1));
            match (kind, is_ill) {
                (1, true) => _ = monitor.xid(&event(8, Some(1)), now),
                (2, true) => _ = monitor.xid(&event(94, Some(1)), now),
                (_, is_ill) => monitor.read(if is_ill { &ill } else { &well }, now, now),
            }
            let marked = is_bad(&mut monitor, &well, now, 0);
            transitions += u64::from(marked != before);
            before = marked;
        }
        // Waits of 5 s double nine times before they are the longest.
        prop_assert!(transitions <= 2 * (10 + SPAN / 1800), "{transitions}");
    }
}
