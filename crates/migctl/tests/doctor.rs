//! What `migctl doctor` finds of the driver and its GPUs, provoked.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod examined;
mod machine;
mod podresources;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use examined::{doctor, found, healthy, laid_out, makes_nodes, put, said, with};
use machine::{CUT, Machine, TWO};
use podresources::PretendedKubelet;
use snapbox::{assert_data_eq, str};

/// With all paths relative: where a line ends must not depend on where the machine is.
fn from_here(machine: &Machine) -> Command {
    let mut command = machine.command();
    command.env_remove("NVML_LIBRARY").args(["doctor", "--root=.", "--proc-root=proc", "--kubelet-root=kubelet"]);
    command
}

#[test]
fn a_healthy_node_is_told_to_be_so() {
    let machine = Machine::written(CUT);
    if !makes_nodes(&machine) {
        return;
    }
    laid_out(&machine, false);
    fs::create_dir_all(machine.kubelet_root().join("device-plugins")).unwrap();
    let _socket = UnixListener::bind(machine.kubelet_root().join("device-plugins/kubelet.sock")).unwrap();
    let pods = [("training", "MIG-aaaaaaaa-0000-5000-8000-000000000002")];
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), Some(&pods));
    put(
        &machine,
        "etc/nvidia-container-runtime/config.toml",
        "accept-nvidia-visible-devices-envvar-when-unprivileged = false\naccept-nvidia-visible-devices-as-volume-mounts = true\n",
    );
    let library = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
    fake_nvml::copy_library(&machine.path(""), &library).unwrap();
    let output = from_here(&machine).arg("--nvidia-driver-root=.").output().unwrap();
    assert_data_eq!(
        machine.told(&output),
        str![[r#"
ok       library            NVML 13.580.159.04 from
                            ./usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
ok       kernel-module      580.159.04, as the library
ok       driver             580.159.04; MIG on NVIDIA A100-SXM4-40GB needs R450
ok       gpus               1 GPU answers
ok       mig-mode           on for 1 of 1 GPUs; none waits for a reset
ok       instances          3, each with its compute instances
ok       permissions        root: every verb works
ok       device-nodes       3 are as they should be
ok       capability-nodes   8 are as they should be
ok       kubelet            it takes device plugins at
                            kubelet/device-plugins/kubelet.sock
ok       pods               holding devices: 1
ok       other-tools        none is seen that cuts GPUs or offers them
ok       lock               nobody is changing the GPUs
ok       container-runtime  it takes devices from volume mounts:
                            --device-list-strategy volume-mounts
exit 0

"#]]
    );
}

#[test]
fn problems_fail_and_warnings_do_not() {
    let machine = healthy("gpus: [{ model: T4 }]");
    let output = machine.run("doctor --root .");
    assert_eq!(output.status.code(), Some(1), "plain files are no devices: {}", machine.told(&output));
    let answer = doctor(&machine);
    assert_eq!((&answer["problems"], &answer["warnings"]), (&2.into(), &0.into()), "{answer}");
    if makes_nodes(&machine) {
        let machine = Machine::written("gpus: [{ model: A100-SXM4-40GB, mig: true }]");
        laid_out(&machine, false);
        let output = machine.run("doctor --root .");
        assert_eq!(output.status.code(), Some(0), "{}", machine.told(&output));
        assert_eq!(doctor(&machine)["warnings"], 1);
    }
}

#[test]
fn without_a_library_the_rest_is_checked() {
    let machine = Machine::bare();
    let output = from_here(&machine).arg("--nvml-library=/nowhere/libnvidia-ml.so.1").output().unwrap();
    assert_data_eq!(
        machine.told(&output),
        str![[r#"
problem  library            there is no NVML library at
                            /nowhere/libnvidia-ml.so.1: check --nvml-library
         -> name the driver's libnvidia-ml.so.1, or leave --nvml-library out
problem  kernel-module      it is not loaded: unable to read
                            proc/driver/nvidia/version: No such file or
                            directory (os error 2)
         -> load it: modprobe nvidia; in a container, see that the host's /proc
            is what --proc-root names
skipped  driver             NVML does not start
skipped  gpus               NVML does not start
skipped  mig-mode           NVML does not start
skipped  instances          NVML does not start
skipped  permissions        NVML does not start
problem  device-nodes       nvidiactl is missing, nvidia-uvm is missing
         -> make them: nvidia-modprobe -c 0 -u, or run nvidia-smi as root
            (nvidia-uvm: modprobe nvidia-uvm)
         -> in a container, mount the host's /dev, or give it the devices
skipped  capability-nodes   neither proc/driver/nvidia/capabilities nor
                            proc/driver/nvidia-caps/mig-minors is to be seen
skipped  kubelet            there is none: no kubelet
ok       other-tools        none is seen that cuts GPUs or offers them
ok       lock               nobody is changing the GPUs
skipped  container-runtime  no ./etc/nvidia-container-runtime/config.toml:
                            NVIDIA's runtime is not set up
! error: 3 problems were found
exit 1

"#]]
    );
}

/// In the agent's pod NVIDIA_DRIVER_ROOT is a path of the node, for CDI, and the files are mounted elsewhere.
#[test]
fn the_agents_pod_finds_its_driver() {
    let machine = Machine::written(CUT);
    let root = machine.path("mounted");
    fs::create_dir_all(&root).unwrap();
    let library = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
    fake_nvml::copy_library(&root, &library).unwrap();
    let mut command = machine.command();
    command.env_remove("NVML_LIBRARY").env("NVIDIA_DRIVER_ROOT", "/nowhere").env("CONTAINER_DRIVER_ROOT", &root);
    let output = command.args(["-o", "json", "doctor"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(&format!("from {}", root.display())), "{told}");
}

#[test]
fn libraries_that_do_not_load_are_told_apart() {
    let machine = Machine::written(CUT);
    put(&machine, "text.so", "no library\n");
    let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
    fs::write(machine.path("short.so"), &whole[..4096]).unwrap();
    let library = |file: &str| {
        let path = machine.path(file);
        said(&machine, &with(&machine, &["--nvml-library", path.to_str().unwrap()]), "library")
    };
    assert_data_eq!(
        library("none.so"),
        str![[r#"
problem: there is no NVML library at [DIR]/none.so: check --nvml-library
-> name the driver's libnvidia-ml.so.1, or leave --nvml-library out

"#]]
    );
    assert_data_eq!(
        library("short.so"),
        str![[r#"
problem: the NVML library [DIR]/short.so is cut short: it is being written, or the disk was full; install the driver again if this stays
-> if no installation is under way, install the driver again; is the disk full? df

"#]]
    );
    assert_data_eq!(
        library("text.so"),
        str![[r#"
problem: [DIR]/text.so is no library: install the driver again, or name the right file by --nvml-library
-> see which package put the file there: dpkg -S, rpm -qf

"#]]
    );
}

#[test]
fn an_nvml_that_does_not_start_says_why() {
    let of = |call: &str, code: &str| {
        let machine = healthy(CUT);
        machine.add_fault(call, None, Some(code), None);
        let answer = doctor(&machine);
        let checks = ["library", "driver", "gpus", "mig-mode", "instances"];
        checks.map(|check| said(&machine, &answer, check)).concat()
    };
    assert_data_eq!(
        of("nvmlInit_v2", "DRIVER_NOT_LOADED"),
        str![[r#"
problem: NVML does not start: NVIDIA driver is not loaded (is the nvidia kernel module loaded, and /dev/nvidiactl visible here?)
-> load the kernel module: modprobe nvidia; if that fails, dmesg says why
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start

"#]]
    );
    assert_data_eq!(
        of("nvmlInit_v2", "LIB_RM_VERSION_MISMATCH"),
        str![[r#"
problem: NVML does not start: RM detects a driver/library version mismatch (library and kernel module are of different versions: the driver was upgraded without a reboot, or --nvidia-driver-root names another driver's files)
-> reboot, or end all that use GPUs, then unload the nvidia modules and load them again
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start

"#]]
    );
    assert_data_eq!(
        of("nvmlInit_v2", "NO_PERMISSION"),
        str![[r#"
problem: NVML does not start: the current user does not have permission to perform this operation (reading MIG instances needs the mig/monitor capability: give the container /dev/nvidia-caps/nvidia-cap2, with NVIDIA's runtime by NVIDIA_MIG_MONITOR_DEVICES=all)
-> run as root, or where /dev/nvidiactl may be opened
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start

"#]]
    );
    assert_data_eq!(
        of("nvmlInit_v2", "UNKNOWN"),
        str![[r#"
problem: NVML does not start: an internal driver error occurred
-> the kernel's log may say why: dmesg | grep -e NVRM -e Xid
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start

"#]]
    );
    assert_data_eq!(
        of("nvmlDeviceGetCount_v2", "UNKNOWN"),
        str![[r#"
problem: [..]/libfake_nvml.so starts, and then: nvmlDeviceGetCount_v2 failed: an internal driver error occurred
-> the kernel's log may say why: dmesg | grep -e NVRM -e Xid
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start
skipped: NVML does not start

"#]]
    );
}

#[test]
fn library_and_kernel_module_have_to_agree() {
    let machine = healthy(CUT);
    assert_data_eq!(
        found(&machine, "kernel-module"),
        str![[r#"
ok: 580.159.04, as the library

"#]]
    );
    put(&machine, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Tue\n");
    assert_data_eq!(
        found(&machine, "kernel-module"),
        str![[r#"
problem: it is of version 570.86.15, the library of 580.159.04
-> reboot if the driver was upgraded; else let --nvidia-driver-root name the running driver's files

"#]]
    );
    put(&machine, "proc/driver/nvidia/version", "nothing\n");
    assert_data_eq!(
        found(&machine, "kernel-module"),
        str![[r#"
skipped: [DIR]/proc/driver/nvidia/version names no version

"#]]
    );
    fs::remove_file(machine.path("proc/driver/nvidia/version")).unwrap();
    assert_data_eq!(
        found(&machine, "kernel-module"),
        str![[r#"
skipped: unable to read [DIR]/proc/driver/nvidia/version: No such file or directory (os error 2)

"#]]
    );
}

#[test]
fn a_driver_has_to_know_mig_on_the_gpu() {
    let of = |driver: &str, model: &str| {
        let machine = Machine::written(&format!("driver: \"{driver}\"\ngpus: [{{ model: {model} }}]\n"));
        found(&machine, "driver")
    };
    assert_data_eq!(
        of("535.104.05", "H200"),
        str![[r#"
problem: 535.104.05 is too old: MIG on NVIDIA H200 needs R550 or later
-> install a driver of branch 550 or later

"#]]
    );
    assert_data_eq!(
        of("570.86.15", "RTX-PRO-6000"),
        str![[r#"
problem: 570.86.15 is too old: MIG on NVIDIA RTX PRO 6000 Blackwell Server Edition needs R575 or later
-> install a driver of branch 575 or later

"#]]
    );
    assert_data_eq!(
        of("550.54.14", "H200"),
        str![[r#"
ok: 550.54.14; MIG on NVIDIA H200 needs R550

"#]]
    );
    assert_data_eq!(
        of("550.54.14", "T4"),
        str![[r#"
skipped: 550.54.14; which one MIG needs on these GPUs is not known here

"#]]
    );
}

#[test]
fn gpus_that_fail_are_named() {
    let machine = Machine::new("one-gpu-lost");
    assert_data_eq!(
        found(&machine, "gpus"),
        str![[r#"
problem: GPU 1: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
-> dmesg | grep Xid says why; end what uses it, then nvidia-smi --gpu-reset -i 1; if it stays lost, reboot, and check its seating and power

"#]]
    );
    let machine = Machine::written(TWO);
    machine.add_fault("nvmlDeviceGetMigMode", Some(1), Some("RESET_REQUIRED"), None);
    machine.add_fault("nvmlDeviceGetMemoryInfo", Some(2), Some("UNKNOWN"), None);
    assert_data_eq!(
        found(&machine, "gpus"),
        str![[r#"
problem: GPU 0: nvmlDeviceGetMigMode failed on GPU 0: device requires a reset before it can be used again (reset the GPU: nvidia-smi --gpu-reset -i INDEX)
-> end what uses it, then nvidia-smi --gpu-reset -i 0
problem: GPU 1: nvmlDeviceGetMemoryInfo failed on GPU 1: an internal driver error occurred
-> the kernel's log may say more: dmesg | grep -e NVRM -e Xid

"#]]
    );
    assert_data_eq!(
        found(&Machine::new("no-gpus"), "gpus"),
        str![[r#"
problem: the driver knows no GPU on this machine
-> lspci -d 10de: lists those on the bus; if they are there, dmesg says why the driver left them out

"#]]
    );
    assert_data_eq!(
        found(&Machine::written(TWO), "gpus"),
        str![[r#"
ok: 2 GPUs answer

"#]]
    );
}

#[test]
fn a_mode_that_waits_names_who_keeps_it() {
    let machine = Machine::written("gpus: [{ model: A100-SXM4-40GB, mig: { current: false, pending: true } }]");
    machine.run_process(0, None, 4711, "python3");
    put(&machine, "proc/812/comm", "nv-hostengine\n");
    put(&machine, "proc/813/comm", "bash\n");
    put(&machine, "proc/814/comm", "nvidia-persiste\n");
    assert_data_eq!(
        found(&machine, "mig-mode"),
        str![[r#"
warning: GPU 0: it is to be on, and waits for a reset of the GPU
-> stop what uses it: python3 (4711)
-> nv-hostengine (process 812) may keep it open: systemctl stop nvidia-dcgm
-> nvidia-persistenced (process 814) may keep it open: systemctl stop nvidia-persistenced
-> nvidia-smi --gpu-reset -i 0; what else it needs: migctl --gpuid 0 enable

"#]]
    );
    assert_data_eq!(
        found(&Machine::written(CUT), "mig-mode"),
        str![[r#"
ok: on for 1 of 1 GPUs; none waits for a reset

"#]]
    );
}

#[test]
fn memory_that_nobody_can_use_is_told() {
    let machine = Machine::written(
        "gpus:
  - model: A100-SXM4-40GB
    instances: [{ profile: 4g.20gb, compute: [] }, { profile: 1g.5gb }]
  - { model: A100-SXM4-40GB, mig: true }
",
    );
    assert_data_eq!(
        found(&machine, "instances"),
        str![[r#"
warning: GPU 0: GPU instance 2 (4g.20gb at 0:4) has no compute instance: nobody can use its memory
-> use it: migctl --gpuid 0 create instance --type 4g.20gb --in 2
-> or destroy it: migctl --gpuid 0 destroy instance --instanceid 2
warning: GPU 1: MIG is on and nothing is cut: nobody can use it
-> cut it (what it offers: migctl --gpuid 1 list instance)
-> or turn MIG off: migctl --gpuid 1 disable

"#]]
    );
    // What it says to do can be done.
    assert!(machine.run("--gpuid 0 create instance --type 4g.20gb --in 2").status.success());
    assert!(machine.run("--gpuid 1 create instance --type 1g.5gb").status.success());
    assert_data_eq!(
        found(&machine, "instances"),
        str![[r#"
ok: 3, each with its compute instances

"#]]
    );
}
