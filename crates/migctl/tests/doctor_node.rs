//! What `migctl doctor` finds of the node around the driver, provoked.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod examined;
mod machine;
mod podresources;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use examined::{doctor, found, healthy, laid_out, makes_nodes, put, said};
use fake_nvml::Permission;
use machine::{CUT, Machine, TWO};
use mig_nvml::NodeLock;
use podresources::PretendedKubelet;
use snapbox::{assert_data_eq, str};

#[test]
fn permissions_are_what_the_nodes_and_the_driver_allow() {
    let machine = healthy(CUT);
    let user = rustix::process::geteuid();
    let who = if user.is_root() { "root".to_owned() } else { format!("user {}", user.as_raw()) };
    let permissions = |machine: &Machine| found(machine, "permissions").replacen(&format!(": {who}: "), ": WHO: ", 1);
    assert_data_eq!(
        permissions(&machine),
        if user.is_root() {
            "ok: WHO: every verb works\n"
        } else {
            "warning: WHO: all but enable and disable work\n-> MIG mode is switched by root only; all that change anything have to write the lock file (--lock-file)\n"
        }
    );
    machine.permit(Permission::None);
    assert_data_eq!(
        permissions(&machine),
        str![[r#"
problem: WHO: instances cannot even be looked at: nvidia-cap2: the driver refuses
-> run as root; in a container, give it /dev/nvidia-caps/nvidia-cap2 (NVIDIA_MIG_MONITOR_DEVICES=all with NVIDIA's runtime)

"#]]
    );
    machine.permit(Permission::Config);
    fs::remove_file(machine.path("dev/nvidia-caps/nvidia-cap1")).unwrap();
    assert_data_eq!(
        permissions(&machine),
        str![[r#"
warning: WHO: verbs that look work; those that change do not: nvidia-cap1: there is none
-> run as root; in a container, give it /dev/nvidia-caps/nvidia-cap1 (NVIDIA_MIG_CONFIG_DEVICES=all with NVIDIA's runtime)

"#]]
    );
    let machine = healthy("gpus: [{ model: H200 }]");
    fs::remove_file(machine.path("dev/nvidia-caps/nvidia-cap2")).unwrap();
    assert_data_eq!(
        permissions(&machine),
        str![[r#"
warning: WHO: with MIG on, instances could not be looked at: nvidia-cap2: there is none
-> run as root; in a container, give it /dev/nvidia-caps/nvidia-cap2 (NVIDIA_MIG_MONITOR_DEVICES=all with NVIDIA's runtime)

"#]]
    );
    assert_data_eq!(
        permissions(&healthy("gpus: [{ model: T4 }]")),
        str![[r#"
skipped: there is no GPU with MIG

"#]]
    );
}

#[test]
fn device_nodes_have_to_be_there() {
    let machine = healthy(TWO);
    assert_data_eq!(
        found(&machine, "device-nodes"),
        str![[r#"
problem: nvidiactl is no device, nvidia0 is no device, nvidia1 is no device and 1 more
-> make them: nvidia-modprobe -c 0 -u, or run nvidia-smi as root (nvidia-uvm: modprobe nvidia-uvm)
-> in a container, mount the host's /dev, or give it the devices

"#]]
    );
    for node in ["nvidiactl", "nvidia1", "nvidia-uvm"] {
        fs::remove_file(machine.path("dev").join(node)).unwrap();
    }
    assert_data_eq!(
        found(&machine, "device-nodes"),
        str![[r#"
problem: nvidiactl is missing, nvidia0 is no device, nvidia1 is missing and 1 more
-> make them: nvidia-modprobe -c 0 -u, or run nvidia-smi as root (nvidia-uvm: modprobe nvidia-uvm)
-> in a container, mount the host's /dev, or give it the devices

"#]]
    );
}

#[test]
fn capability_nodes_have_to_be_there() {
    let machine = healthy(CUT);
    let nodes = machine.path("dev/nvidia-caps");
    let minors = |machine: &Machine| fs::remove_dir_all(machine.path("proc/driver/nvidia/capabilities")).unwrap();
    for node in ["nvidia-cap1", "nvidia-cap2"] {
        fs::remove_file(nodes.join(node)).unwrap();
    }
    assert_data_eq!(
        found(&machine, "capability-nodes"),
        str![[r#"
problem: nvidia-caps/nvidia-cap1 (mig/config) is missing, nvidia-caps/nvidia-cap2 (mig/monitor) is missing, nvidia-caps/nvidia-cap12 (gpu0/gi1) is no device and 5 more
-> run nvidia-smi as root: it makes missing nodes; wrong ones have to be removed before
-> until then, containers cannot use these instances

"#]]
    );
    // Of an older driver there is only the list of all minors.
    minors(&machine);
    assert_data_eq!(
        found(&machine, "capability-nodes"),
        str![[r#"
problem: nvidia-caps/nvidia-cap1 (mig/config) is missing, nvidia-caps/nvidia-cap2 (mig/monitor) is missing, nvidia-caps/nvidia-cap102 (gpu0/gi11) is no device and 5 more
-> run nvidia-smi as root: it makes missing nodes; wrong ones have to be removed before
-> until then, containers cannot use these instances

"#]]
    );
    fs::remove_dir_all(machine.path("proc/driver/nvidia-caps")).unwrap();
    assert_data_eq!(
        found(&machine, "capability-nodes"),
        str![[r#"
skipped: neither [DIR]/proc/driver/nvidia/capabilities nor [DIR]/proc/driver/nvidia-caps/mig-minors is to be seen

"#]]
    );
}

#[test]
fn real_nodes_are_compared_with_what_the_driver_says() {
    let machine = Machine::written(CUT);
    if !makes_nodes(&machine) {
        return;
    }
    laid_out(&machine, false);
    let replace = |node: &str, major: u32, minor: u32, mode: u32| {
        let path = machine.path("dev").join(node);
        fs::remove_file(&path).unwrap();
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::CharacterDevice, mode.into(), device)
            .unwrap();
    };
    replace("nvidia-caps/nvidia-cap2", 241, 2, 0o400);
    replace("nvidia-caps/nvidia-cap12", 240, 12, 0o444);
    replace("nvidia0", 195, 7, 0o666);
    assert_data_eq!(
        found(&machine, "capability-nodes"),
        str![[r#"
problem: nvidia-caps/nvidia-cap2 (mig/monitor) has mode 0400, not 0444, nvidia-caps/nvidia-cap12 (gpu0/gi1) is device 240:12, not 241:12
-> run nvidia-smi as root: it makes missing nodes; wrong ones have to be removed before
-> until then, containers cannot use these instances

"#]]
    );
    assert_data_eq!(
        found(&machine, "device-nodes"),
        str![[r#"
problem: nvidia0 is device 195:7, not 195:0
-> make them: nvidia-modprobe -c 0 -u, or run nvidia-smi as root (nvidia-uvm: modprobe nvidia-uvm)
-> in a container, mount the host's /dev, or give it the devices

"#]]
    );
}

#[test]
fn a_kubelet_that_is_there_has_to_answer() {
    let machine = Machine::written(CUT);
    let kubelet = |machine: &Machine| {
        let answer = doctor(machine);
        said(machine, &answer, "kubelet") + &said(machine, &answer, "pods")
    };
    assert_data_eq!(
        kubelet(&machine),
        str![[r#"
skipped: there is none: no [DIR]/kubelet

"#]]
    );
    fs::create_dir_all(machine.kubelet_root().join("device-plugins")).unwrap();
    assert_data_eq!(
        kubelet(&machine),
        str![[r#"
problem: nobody answers at [DIR]/kubelet/device-plugins/kubelet.sock: No such file or directory (os error 2)
-> is it running? systemctl status kubelet
-> its root directory may be another one: --kubelet-root (k0s: /var/lib/k0s/kubelet, microk8s: /var/snap/microk8s/common/var/lib/kubelet)
problem: nobody answers at [DIR]/kubelet/pod-resources/kubelet.sock: No such file or directory (os error 2)
-> while the kubelet does not say which pods hold instances, none is destroyed (but with --ignore-kubelet)

"#]]
    );
    let _socket = UnixListener::bind(machine.kubelet_root().join("device-plugins/kubelet.sock")).unwrap();
    let refusing = PretendedKubelet::start(&machine.kubelet_root(), None);
    assert_data_eq!(
        kubelet(&machine),
        str![[r#"
ok: it takes device plugins at [DIR]/kubelet/device-plugins/kubelet.sock
problem: the kubelet refused PodResources.List (ResourceExhausted): rejected by rate limit
-> the kubelet's log may say more: journalctl -u kubelet
-> while it does not say which pods hold instances, none is destroyed (but with --ignore-kubelet)

"#]]
    );
    drop(refusing);
    fs::remove_file(machine.kubelet_root().join("pod-resources/kubelet.sock")).unwrap();
    let pods = [("one", "GPU-aaaaaaaa"), ("two", "GPU-aaaaaaaa")];
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), Some(&pods));
    assert_data_eq!(
        kubelet(&machine),
        str![[r#"
ok: it takes device plugins at [DIR]/kubelet/device-plugins/kubelet.sock
ok: holding devices: 2

"#]]
    );
}

#[test]
fn others_who_cut_or_offer_gpus_are_named() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        found(&machine, "other-tools"),
        str![[r#"
ok: none is seen that cuts GPUs or offers them

"#]]
    );
    put(&machine, "etc/systemd/system/multi-user.target.wants/nvidia-mig-manager.service", "");
    put(&machine, "proc/900/comm", "nvidia-mig-mana\n");
    put(&machine, "kubelet/device-plugins/nvidia-gpu.sock", "");
    put(&machine, "kubelet/device-plugins/nvidia-mig-1g.5gb.sock", "");
    put(&machine, "kubelet/device-plugins/mig-agent-mig-1g.5gb.sock", "");
    assert_data_eq!(
        found(&machine, "other-tools"),
        str![[r#"
warning: nvidia-mig-manager.service is enabled: it cuts the GPUs in its own way at every boot
-> let one program cut them: systemctl disable nvidia-mig-manager.service
warning: nvidia-mig-manager (process 900) is running: it cuts the GPUs in its own way
-> let one program cut them: on Kubernetes, label the node nvidia.com/gpu.deploy.mig-manager=false
warning: NVIDIA's device plugin serves here: nvidia-gpu.sock, nvidia-mig-1g.5gb.sock
-> two plugins must not offer the same resources: take it off this node, or give mig-agent another --resource-domain

"#]]
    );
}

#[test]
fn who_holds_the_lock_is_named() {
    let machine = Machine::written(CUT);
    let path = machine.path("node.lock");
    assert_data_eq!(
        found(&machine, "lock"),
        str![[r#"
ok: nobody is changing the GPUs

"#]]
    );
    assert!(!path.exists(), "looking leaves nothing behind");
    let held = NodeLock::acquire(&path, "mig-agent").unwrap();
    let own = format!("process {}", std::process::id());
    let text = found(&machine, "lock").replace(&own, "process PID");
    let (start, end) = (text.find("process PID, ").unwrap(), text.find(")\n").unwrap());
    assert_data_eq!(
        format!("{}{}", &text[..start + 11], &text[end..]),
        str![[r#"
warning: the GPUs of this node are being changed by mig-agent (process PID)
-> wait until that has ended; if it hangs, end it (fuser -v [DIR]/node.lock)

"#]]
    );
    drop(held);
    assert!(found(&machine, "lock").starts_with("ok: "));
    assert!(words(&path).contains("mig-agent"), "looking writes nothing");
}

fn words(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_runtime_that_believes_images_is_told() {
    let machine = Machine::written(CUT);
    let runtime = |text: &str| {
        put(&machine, "etc/nvidia-container-runtime/config.toml", text);
        found(&machine, "container-runtime")
    };
    assert_data_eq!(
        found(&machine, "container-runtime"),
        str![[r#"
skipped: no [DIR]/etc/nvidia-container-runtime/config.toml: NVIDIA's runtime is not set up

"#]]
    );
    assert_data_eq!(
        runtime("#accept-nvidia-visible-devices-envvar-when-unprivileged = false\n"),
        str![[r#"
warning: it takes NVIDIA_VISIBLE_DEVICES from images: a pod that asks for no GPU may see all
-> in [DIR]/etc/nvidia-container-runtime/config.toml: accept-nvidia-visible-devices-envvar-when-unprivileged = false, accept-nvidia-visible-devices-as-volume-mounts = true
-> and run mig-agent with --device-list-strategy volume-mounts, or with a CDI strategy

"#]]
    );
    assert_data_eq!(
        runtime("accept-nvidia-visible-devices-envvar-when-unprivileged = false\n"),
        str![[r#"
ok: it takes neither variable nor mounts: --device-list-strategy cdi-cri

"#]]
    );
    let mounts = "accept-nvidia-visible-devices-envvar-when-unprivileged = false\naccept-nvidia-visible-devices-as-volume-mounts = true\n";
    assert_data_eq!(
        runtime(mounts),
        str![[r#"
ok: it takes devices from volume mounts: --device-list-strategy volume-mounts

"#]]
    );
    fs::remove_file(machine.path("etc/nvidia-container-runtime/config.toml")).unwrap();
    fs::create_dir(machine.path("etc/nvidia-container-runtime/config.toml")).unwrap();
    assert_data_eq!(
        found(&machine, "container-runtime"),
        str![[r#"
skipped: unable to read [DIR]/etc/nvidia-container-runtime/config.toml: Is a directory (os error 21)

"#]]
    );
}
