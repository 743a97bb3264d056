//! Errors of memory that could not be corrected: by an XID that says whose they are, or by a counter alone.

use super::*;

#[test]
fn errors_of_memory_count_when_they_are_new_and_no_xid_says_whose_they_are() {
    let (mut monitor, mut node) = (monitor(), seven());
    node.gpus[0].vitals.uncorrectable_errors = Some(3);
    monitor.read(&node, at(1), at(1));
    assert_eq!(bad(&mut monitor, &node, at(1)), "", "those of the time before");
    node.gpus[0].vitals.uncorrectable_errors = Some(4);
    monitor.read(&node, at(10), at(10));
    assert_eq!(monitor.next(at(10)), Some(at(11)));
    monitor.read(&node, at(10), at(11));
    let fault = monitor.mark(&node, at(11)).gpus[0].fault.clone().unwrap();
    assert_eq!(fault.kind, "UncorrectableErrors");
    // A reset sets the counter back.
    node.gpus[0].vitals.uncorrectable_errors = Some(0);
    monitor.read(&node, at(12), at(12));
    assert_eq!(bad(&mut monitor, &node, at(17)), "");
}

#[test]
fn errors_of_memory_on_a_gpu_that_cannot_be_read_any_more_wait_for_it() {
    for unreadable in ["fault", "gone", "counter", "late"] {
        let (mut monitor, mut node) = (monitor(), seven());
        node.gpus[0].vitals.uncorrectable_errors = Some(3);
        monitor.read(&node, at(1), at(1));
        node.gpus[0].vitals.uncorrectable_errors = Some(4);
        monitor.read(&node, at(10), at(10));
        match unreadable {
            "fault" => node.gpus[0].fault = lost(),
            "gone" => node.gpus.clear(),
            "counter" => node.gpus[0].vitals.uncorrectable_errors = None,
            _ => monitor.late(true, at(10)),
        }
        for second in [10, 11, 12, 3600] {
            if unreadable != "late" {
                monitor.read(&node, at(second), at(second));
            }
            let next = monitor.next(at(second));
            assert!(next.is_none_or(|next| next > at(second)), "{unreadable}: at {second} s it is due at {next:?}");
        }
    }
}

#[test]
fn errors_of_memory_in_one_slice_leave_the_others_alone() {
    for xid_first in [true, false] {
        let (mut monitor, mut node) = (monitor(), seven());
        node.gpus[0].vitals.uncorrectable_errors = Some(0);
        monitor.read(&node, at(1), at(1));
        if xid_first {
            monitor.xid(&event(94, Some(3)), at(9));
        }
        node.gpus[0].vitals.uncorrectable_errors = Some(1);
        monitor.read(&node, at(10), at(10));
        if !xid_first {
            monitor.xid(&event(94, Some(3)), at(10));
        }
        for seconds in 11..30 {
            monitor.read(&node, at(seconds), at(seconds));
            assert_eq!(bad(&mut monitor, &node, at(seconds)), "c", "{xid_first}");
        }
    }
}

/// What was corrected says nothing of what was not: an error in a slice may be hidden from us, and that it rose is all we hear.
#[test]
fn errors_of_memory_are_not_explained_by_those_that_were_corrected() {
    for xid in [63, 92] {
        for xid_first in [true, false] {
            let (mut monitor, mut node) = (monitor(), seven());
            node.gpus[0].vitals.uncorrectable_errors = Some(0);
            monitor.read(&node, at(1), at(1));
            if xid_first {
                assert_eq!(monitor.xid(&event(xid, None), at(9)), Told::Ignored);
            }
            node.gpus[0].vitals.uncorrectable_errors = Some(1);
            monitor.read(&node, at(10), at(10));
            if !xid_first {
                monitor.xid(&event(xid, None), at(10));
            }
            monitor.read(&node, at(12), at(12));
            let fault = monitor.mark(&node, at(12)).gpus[0].fault.clone();
            assert_eq!(fault.map(|fault| fault.kind), Some("UncorrectableErrors"), "after {xid}");
        }
    }
}
