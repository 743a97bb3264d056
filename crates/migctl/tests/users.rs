//! Who uses what, and that nothing of it is taken away.

mod machine;
mod podresources;

use machine::{CUT, Machine};
use podresources::PretendedKubelet;
use snapbox::{assert_data_eq, str};

const SMALL: &str = "MIG-aaaaaaaa-0000-5000-8000-000000000002";
const OTHER: &str = "MIG-aaaaaaaa-0000-5000-8000-000000000003";

#[test]
fn processes_are_named_and_kept() {
    let machine = Machine::written(CUT);
    machine.run_process(0, Some(11), 4711, "python3");
    machine.run_process(0, Some(1), 4712, "trainer");
    assert_data_eq!(
        machine.transcript("list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  0  11   0  1g.5gb   0:1        MIG-aaaaaaaa-0000-5000-8000-000000000002  python3 (4711)
  0  12   0  1g.5gb   1:1        MIG-aaaaaaaa-0000-5000-8000-000000000003  -
  0   1   0  3g.20gb  4:4        MIG-aaaaaaaa-0000-5000-8000-000000000001  trainer (4712)
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11"),
        str![[r#"
! error: GPU 0: GPU instance 11 (1g.5gb at 0:1) is in use by python3 (4711)
! hint: nothing was changed; end what uses it, and try again
exit 4

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11 --computeid 0"),
        str![[r#"
! error: GPU 0: compute instance 0 of GPU instance 11 (1g.5gb) is in use by python3 (4711)
! hint: nothing was changed; end what uses it, and try again
exit 4

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --all"),
        str![[r#"
! error: GPU 0: 2 instances are in use
! hint: GPU instance 11 (1g.5gb at 0:1): python3 (4711)
! hint: GPU instance 1 (3g.20gb at 4:4): trainer (4712)
! hint: nothing was changed; end what uses it, and try again
exit 4

"#]]
    );
    assert_data_eq!(
        machine.transcript("disable --destroy-instances"),
        str![[r#"
! error: GPU 0: 2 instances are in use
! hint: GPU instance 11 (1g.5gb at 0:1): python3 (4711)
! hint: GPU instance 1 (3g.20gb at 4:4): trainer (4712)
! hint: nothing was changed; end what uses it, and try again
exit 4

"#]]
    );
    assert_eq!(machine.changes(), 0);
    // What nobody uses goes.
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 12"),
        str![[r#"
GPU 0: - destroyed GPU instance 12 (1g.5gb at 1:1)
exit 0

"#]]
    );
}

#[test]
fn pods_are_named_and_kept_though_no_process_runs_yet() {
    let machine = Machine::written(CUT);
    // The second holds a share of a device: its id has a number behind the UUID.
    let shared = "MIG-aaaaaaaa-0000-5000-8000-000000000003::1";
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), Some(&[("training", SMALL), ("shared", shared)]));
    machine.write(
        "none.yaml",
        "version: v1\nmig-configs: { none: [{ devices: all, mig-enabled: true, mig-devices: {} }] }\n",
    );
    assert_data_eq!(
        machine.transcript("list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  0  11   0  1g.5gb   0:1        MIG-aaaaaaaa-0000-5000-8000-000000000002  pod default/training
  0  12   0  1g.5gb   1:1        MIG-aaaaaaaa-0000-5000-8000-000000000003  pod default/shared
  0   1   0  3g.20gb  4:4        MIG-aaaaaaaa-0000-5000-8000-000000000001  -
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("-o json destroy instance --instanceid 11"),
        str![[r#"
! {"error":{"kind":"InUse","message":"GPU 0: GPU instance 11 (1g.5gb at 0:1) is in use by pod default/training","hints":["nothing was changed; end what uses it, and try again"],"exit":4}}
exit 4

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --all"),
        str![[r#"
! error: GPU 0: 2 instances are in use
! hint: GPU instance 11 (1g.5gb at 0:1): pod default/training
! hint: GPU instance 12 (1g.5gb at 1:1): pod default/shared
! hint: nothing was changed; end what uses it, and try again
exit 4

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f none.yaml"),
        str![[r#"
! error: GPU 0: GPU instances 11, 12 are in the way and in use
! hint: GPU instance 11 (1g.5gb at 0:1) is used by pod default/training
! hint: GPU instance 12 (1g.5gb at 1:1) is used by pod default/shared
exit 4

"#]]
    );
    assert_eq!(machine.changes(), 0);
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11 --ignore-kubelet"),
        str![[r#"
GPU 0: - destroyed GPU instance 11 (1g.5gb at 0:1)
exit 0

"#]]
    );
}

/// Podresources never lists the containers that only run at a pod's start.
#[test]
fn what_the_agent_has_given_out_is_kept_though_the_kubelet_does_not_list_it() {
    let machine = Machine::written(CUT);
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), Some(&[("training", OTHER)]));
    let given = |id: &str, seen: bool| {
        format!(r#"{{"id": "{id}", "resource": "nvidia.com/mig-1g.5gb", "gpu": null, "seen": {seen}}}"#)
    };
    let large = "MIG-aaaaaaaa-0000-5000-8000-000000000001";
    let list = [given(&format!("{SMALL}::1"), false), given(OTHER, false), given(large, true)].join(",");
    machine.note("given-out.json", "this", &list);
    assert_data_eq!(
        machine.transcript("list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  0  11   0  1g.5gb   0:1        MIG-aaaaaaaa-0000-5000-8000-000000000002  a container that was given nvidia.com/mig-1g.5gb and is not listed yet
  0  12   0  1g.5gb   1:1        MIG-aaaaaaaa-0000-5000-8000-000000000003  pod default/training
  0   1   0  3g.20gb  4:4        MIG-aaaaaaaa-0000-5000-8000-000000000001  -
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11"),
        str![[r#"
! error: GPU 0: GPU instance 11 (1g.5gb at 0:1) is in use by a container that was given nvidia.com/mig-1g.5gb and is not listed yet
! hint: nothing was changed; end what uses it, and try again
exit 4

"#]]
    );
    assert_eq!(machine.changes(), 0);
    let told = machine.json("list config");
    assert_eq!(told["gpus"][0]["instances"][0]["compute_instances"][0]["users"][0]["kind"], "given-out", "{told}");
    // What pods were listed with is theirs only while they are.
    assert!(machine.transcript("destroy instance --instanceid 1").ends_with("exit 0\n"));
    machine.note("given-out.json", "another start of the machine", &list);
    assert!(machine.transcript("destroy instance --instanceid 11").ends_with("exit 0\n"));
}

/// It answers so many calls a second, of whomever; and a change of many instances asks it before each.
#[test]
fn a_kubelet_that_was_asked_too_often_is_asked_again() {
    let machine = Machine::written(CUT);
    let _kubelet = PretendedKubelet::start_busy(&machine.kubelet_root(), 4, &[("training", OTHER)]);
    let text = machine.transcript("destroy instance --instanceid 11");
    assert!(text.ends_with("exit 0\n"), "{text}");
}

#[test]
fn a_kubelet_that_does_not_say_is_no_permission() {
    let machine = Machine::written(CUT);
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), None);
    assert_data_eq!(
        machine.transcript("list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  0  11   0  1g.5gb   0:1        MIG-aaaaaaaa-0000-5000-8000-000000000002  -
  0  12   0  1g.5gb   1:1        MIG-aaaaaaaa-0000-5000-8000-000000000003  -
  0   1   0  3g.20gb  4:4        MIG-aaaaaaaa-0000-5000-8000-000000000001  -
! warning: pods are not shown: the kubelet refused PodResources.List (ResourceExhausted): rejected by rate limit
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11"),
        str![[r#"
! error: unable to tell whether pods hold these instances: the kubelet refused PodResources.List (ResourceExhausted): rejected by rate limit
! hint: if you know that none does, go on with --ignore-kubelet
exit 4

"#]]
    );
    assert_eq!(machine.changes(), 0);
    // Creating takes nothing away from anybody.
    assert_data_eq!(
        machine.transcript("create instance --type 2g.10gb"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID
  0   6   0  2g.10gb  2:2        MIG-57b4b551-6dab-5c93-9e47-d9656235d34c
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11 --ignore-kubelet"),
        str![[r#"
GPU 0: - destroyed GPU instance 11 (1g.5gb at 0:1)
exit 0

"#]]
    );
}

#[test]
fn a_socket_that_nobody_answers_is_no_permission_either() {
    let machine = Machine::written(CUT);
    std::fs::create_dir_all(machine.kubelet_root().join("pod-resources")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(machine.kubelet_root().join("pod-resources/kubelet.sock")).unwrap());
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11"),
        str![[r#"
! error: unable to tell whether pods hold these instances: unable to reach the kubelet at [DIR]/kubelet/pod-resources/kubelet.sock: transport error: Connection refused (os error 111)
! hint: if you know that none does, go on with --ignore-kubelet
exit 4

"#]]
    );
    assert_eq!(machine.changes(), 0);
}

#[test]
fn a_pod_that_holds_the_whole_gpu_keeps_its_mode() {
    let machine =
        Machine::written("gpus:\n  - { model: H100-80GB-HBM3, uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000 }\n");
    let whole = [("training", "GPU-aaaaaaaa-0000-4000-8000-000000000000")];
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), Some(&whole));
    assert_data_eq!(
        machine.transcript("enable"),
        str![[r#"
! error: GPU 0 is in use by pod default/training
! hint: nothing was changed; end the pods, and try again
exit 4

"#]]
    );
    assert_eq!(machine.changes(), 0);
}

#[test]
fn what_a_pod_was_given_meanwhile_is_kept() {
    let machine = Machine::written(CUT);
    // Asked for the plan, and before the first of three instances goes, there is no pod yet.
    let _kubelet = PretendedKubelet::start_late(&machine.kubelet_root(), 2, Some(&[("late", OTHER)]));
    assert_data_eq!(
        machine.transcript("destroy instance --all"),
        str![[r#"
GPU 0: - destroyed GPU instance 11 (1g.5gb at 0:1)
! error: GPU 0: GPU instance 12 (1g.5gb at 1:1) is in use by pod default/late
! hint: it was taken into use after this was planned; look again, and try again
! hint: 1 step was done
! hint: not done: GPU 0: - destroy GPU instance 12 (1g.5gb at 1:1)
! hint: not done: GPU 0: - destroy GPU instance 1 (3g.20gb at 4:4)
exit 4

"#]]
    );
    assert_eq!(machine.world().gpus[0].instances.len(), 2);
}

#[test]
fn a_kubelet_that_has_stopped_still_has_its_pods() {
    let machine = Machine::written(CUT);
    let folder = machine.kubelet_root().join("device-plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kubelet_internal_checkpoint"), "{}").unwrap();
    let refused = machine.run("destroy instance --instanceid 11");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not running"), "{refused:?}");
    assert_eq!(machine.world().gpus[0].instances.len(), 3);
    assert!(machine.run("destroy instance --instanceid 11 --ignore-kubelet").status.success());
}

#[test]
fn processes_that_may_not_be_seen_are_not_none() {
    let machine = Machine::written(CUT);
    for call in ["nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3"] {
        machine.add_fault(call, None, Some("NO_PERMISSION"), None);
    }
    let refused = machine.run("destroy instance --instanceid 11");
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("which processes run"), "{refused:?}");
    assert_eq!(machine.world().gpus[0].instances.len(), 3);
}

#[test]
fn an_instance_that_is_named_twice_goes_once() {
    let machine = Machine::written(CUT);
    assert!(machine.run("destroy instance --instanceid 11,11").status.success());
    assert_eq!(machine.world().gpus[0].instances.len(), 2);
}
