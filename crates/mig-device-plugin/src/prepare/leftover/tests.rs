use std::fs;

use mig_model::Device;

use super::*;
use crate::cdi::store;
use crate::prepare::tests::{Host, gpu, offers, slice};

/// What another agent, or this one with another configuration, makes of it.
fn keep_up(host: &Host, prepare: &Prepare, devices: Vec<Device>, free: &[&str]) -> Result<bool, String> {
    let wanted = Arc::new(Wanted { offers: offers(devices), container: host.container("envvar") });
    prepare.keep_up_spec(|| Some(Arc::clone(&wanted)), |uuid| free.contains(&uuid))
}

#[test]
fn what_pods_may_hold_stays_in_the_spec_and_true() {
    let host = Host::new();
    host.prepare("cdi-cri").run(&offers(vec![slice("MIG-a", 1), gpu("GPU-b"), gpu("GPU-c")]), |_| false);
    let prepare = Prepare::new();
    let free = ["GPU-b"];
    let now = vec![slice("MIG-a", 1), gpu("GPU-b"), gpu("GPU-c"), gpu("GPU-new")];
    assert_eq!(keep_up(&host, &prepare, now, &free), Ok(true));
    assert_eq!(host.names(), ["GPU-c", "MIG-a"]);
    // Cut anew in the same place: the old one's container is not to have the new one's nodes.
    keep_up(&host, &prepare, vec![slice("MIG-new", 1)], &free).unwrap();
    let devices = store::read(&host.path("cdi")).unwrap().unwrap().devices;
    let old = devices.iter().find(|device| device.name == "MIG-a").unwrap();
    assert_eq!((devices.len(), old.capabilities().count()), (2, 0));
    // The driver's files are looked for anew, and what another agent has written since is not lost.
    host.put("root/usr/lib64/libnvidia-ml.so.1", "\u{7f}ELF");
    host.prepare("cdi-cri").run(&offers(vec![gpu("GPU-others")]), |_| false);
    keep_up(&host, &prepare, vec![slice("MIG-new", 1)], &free).unwrap();
    assert_eq!(host.names(), ["GPU-c", "GPU-others", "MIG-a"]);
    let text = fs::read_to_string(host.path("cdi/mig-agent-gpu.json")).unwrap();
    assert!(text.contains("libnvidia-ml.so.1"), "{text}");

    fs::rename(host.path("proc"), host.path("away")).unwrap();
    keep_up(&host, &prepare, vec![slice("MIG-new", 1)], &free).unwrap_err();
    fs::rename(host.path("away"), host.path("proc")).unwrap();
    let free = ["GPU-c", "GPU-others", "MIG-a"];
    assert_eq!(keep_up(&host, &prepare, vec![slice("MIG-new", 1)], &free), Ok(false));
    assert!(!host.path("cdi/mig-agent-gpu.json").exists());
}

#[test]
fn where_there_is_no_spec_nothing_else_is_looked_for() {
    let host = Host::new();
    fs::remove_dir_all(host.path("proc")).unwrap();
    assert_eq!(keep_up(&host, &Prepare::new(), vec![slice("MIG-a", 1)], &[]), Ok(false));
    assert!(!host.path("cdi").exists());
}

#[test]
fn a_spec_by_which_devices_are_given_again_is_left_alone() {
    let host = Host::new();
    let prepare = host.prepare("cdi-cri");
    prepare.run(&offers(vec![gpu("GPU-a"), gpu("GPU-b")]), |_| false);
    let wanted = Arc::new(Wanted { offers: offers(vec![gpu("GPU-a")]), container: host.container("cdi-cri") });
    prepare.prepare.keep_up_spec(|| Some(Arc::clone(&wanted)), |_| true).unwrap();
    assert_eq!(host.names(), ["GPU-a", "GPU-b"]);
}
