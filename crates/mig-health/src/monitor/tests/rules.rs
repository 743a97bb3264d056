//! Rules that change while something is wrong.

use super::*;

fn rules(text: &str) -> Policy {
    Policy::new(&parse(text).unwrap(), Switches::default(), false).unwrap()
}

#[test]
fn what_new_rules_ignore_is_over_at_once_and_the_rest_is_as_it_was() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(94, Some(1)), at(2));
    monitor.xid(&event(8, Some(2)), at(2));
    monitor.xid(&event(31, Some(3)), at(2));
    assert_eq!(bad(&mut monitor, &node, at(2)), "ab");
    monitor.adopt(rules("xids: [{numbers: [94], policy: ignore}, {numbers: [31], policy: unhealthy}]"), at(3));
    assert_eq!(bad(&mut monitor, &node, at(3)), "b", "and what was ignored is not remembered");
    monitor.xid(&event(31, Some(3)), at(4));
    assert_eq!(monitor.xid(&event(94, Some(1)), at(4)), Told::Ignored);
    assert_eq!(bad(&mut monitor, &node, at(4)), "bc");
    assert_eq!(bad(&mut monitor, &node, at(32)), "c", "30 s after it happened, as before");
}

#[test]
fn new_times_count_from_when_it_happened() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(8, Some(2)), at(2));
    monitor.adopt(rules("recovery: {application: 10m}"), at(31));
    assert_eq!(bad(&mut monitor, &node, at(33)), "b");
    monitor.adopt(rules("recovery: {application: 5s}"), at(34));
    assert_eq!(bad(&mut monitor, &node, at(34)), "");
}

#[test]
fn another_kind_of_end_begins_anew() {
    let (mut monitor, node) = (monitor(), seven());
    monitor.read(&node, at(1), at(1));
    monitor.xid(&event(94, Some(1)), at(2));
    monitor.xid(&event(8, Some(2)), at(2));
    monitor.adopt(rules("xids: [{numbers: [8], recovery: hardware}, {numbers: [94], recovery: application}]"), at(3));
    assert_eq!(bad(&mut monitor, &node, at(33)), "b", "94 was quiet for 30 s; 8 waits for a look at the GPU");
    monitor.read(&node, at(34), at(34));
    assert_eq!((bad(&mut monitor, &node, at(93)), bad(&mut monitor, &node, at(94))), ("b".to_owned(), String::new()));
}

#[test]
fn states_and_unwatched_gpus_follow_the_rules_that_hold() {
    let (mut monitor, mut node) = (monitor(), seven());
    node.gpus[0].unwatched = Some(Fault { kind: "Unwatched", message: "no events".to_owned() });
    node.gpus[0].vitals.remapped_rows = Some(RemappedRows { pending: true, ..RemappedRows::default() });
    monitor.read(&node, at(1), at(1));
    let kind = |monitor: &mut Monitor, now| monitor.mark(&node, now).gpus[0].fault.as_ref().map(|fault| fault.kind);
    assert_eq!(kind(&mut monitor, at(1)), Some("RowRemapPending"));
    monitor.adopt(rules("states: {rowRemapPending: ignore}"), at(2));
    assert_eq!(kind(&mut monitor, at(2)), Some("Unwatched"));
    monitor.adopt(rules("{states: {rowRemapPending: ignore}, advertiseUnwatched: true}"), at(3));
    monitor.read(&node, at(3), at(3));
    assert_eq!(kind(&mut monitor, at(3)), None);
    monitor.adopt(rules(""), at(4));
    monitor.read(&node, at(4), at(4));
    assert_eq!(kind(&mut monitor, at(4)), Some("RowRemapPending"));
}
