use std::fs;
use std::path::PathBuf;

use mig_model::{Address, MigAddress, ResourceDomain};
use tempfile::TempDir;

use super::*;

const DEVICES: &str = "Character devices:\n195 nvidia\n241 nvidia-caps\n511 nvidia-uvm\n\nBlock devices:\n";
const MINORS: &str = "gpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n";

/// A node's files in a directory.
pub(super) struct Host(TempDir);

impl Host {
    pub(super) fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.put("proc/devices", DEVICES);
        host.put("proc/driver/nvidia-caps/mig-minors", MINORS);
        host.put("root/usr/lib64/libcuda.so.1", "\u{7f}ELF");
        host
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub(super) fn put(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn prepare(&self, strategy: &str) -> Preparing {
        Preparing { prepare: Prepare::new(), container: self.container(strategy) }
    }

    pub(super) fn container(&self, strategy: &str) -> Arc<ContainerSettings> {
        let files = Files {
            driver_root_here: self.path("root"),
            proc_root: self.path("proc"),
            cdi_dir: self.path("cdi"),
            ..Files::default()
        };
        let list_strategies = vec![strategy.parse().unwrap()];
        Arc::new(ContainerSettings { list_strategies, files, ..ContainerSettings::default() })
    }

    pub(super) fn names(&self) -> Vec<String> {
        let spec = store::read(&self.path("cdi")).unwrap();
        spec.map_or_else(Vec::new, |spec| spec.devices).into_iter().map(|device| device.name).collect()
    }
}

pub(super) fn gpu(id: &str) -> Device {
    Device {
        id: id.to_owned(),
        uuid: id.to_owned(),
        address: Address { gpu_index: 0, gpu_minor: Some(0), mig: None },
        ..Device::default()
    }
}

pub(super) fn slice(id: &str, gpu_instance: u32) -> Device {
    let mig = MigAddress { index: Some(0), gpu_instance, compute_instance: 0 };
    Device { address: Address { mig: Some(mig), ..gpu(id).address }, ..gpu(id) }
}

pub(super) fn offers(devices: Vec<Device>) -> Offers {
    let resources = BTreeMap::from([(ResourceName::gpu(&ResourceDomain::default()), devices)]);
    Offers { driver_version: "580.95.05".to_owned(), resources, left_out: Vec::new() }
}

pub(super) struct Preparing {
    pub(super) prepare: Prepare,
    container: Arc<ContainerSettings>,
}

impl Preparing {
    fn touches_files(&self) -> bool {
        self.container.touches_files()
    }

    pub(super) fn run(&self, offers: &Offers, may_drop: impl Fn(&str) -> bool) -> Prepared {
        let wanted = Wanted { offers: offers.clone(), container: Arc::clone(&self.container) };
        self.prepare.run(&wanted, may_drop)
    }
}

/// Each device's fault, or nothing.
fn faults(prepared: &Prepared) -> Vec<&str> {
    let all = prepared.resources.values().flatten();
    all.map(|offered| offered.device.fault.as_ref().map_or("", |fault| fault.message.as_str())).collect()
}

#[test]
fn by_default_no_file_is_touched() {
    let host = Host::new();
    let prepare = host.prepare("envvar");
    assert!(!prepare.touches_files());
    let prepared = prepare.run(&offers(vec![slice("MIG-a", 1)]), |_| false);
    assert_eq!((faults(&prepared), host.path("cdi").exists()), (vec![""], false));
}

#[test]
fn a_spec_that_cannot_be_read_is_not_overwritten() {
    let host = Host::new();
    fs::create_dir_all(host.path("cdi/mig-agent-gpu.json")).unwrap();
    let prepare = host.prepare("cdi-cri");
    let prepared = prepare.run(&offers(vec![gpu("GPU-a")]), |_| false);
    let problem = prepared.problem.unwrap();
    assert!(problem.starts_with("unable to read the CDI spec in"), "{problem}");
    fs::remove_dir(host.path("cdi/mig-agent-gpu.json")).unwrap();
    assert_eq!(prepare.run(&offers(vec![gpu("GPU-a")]), |_| false).problem, None, "it is tried again");
}

#[test]
fn a_device_without_numbers_is_the_only_one_to_suffer() {
    let host = Host::new();
    let lost = Fault { kind: "GpuIsLost", message: "the GPU is lost".to_owned() };
    let devices = vec![
        slice("MIG-a", 1),
        slice("MIG-unlisted", 9),
        Device { address: Address { gpu_minor: None, ..Address::default() }, ..gpu("GPU-unnumbered") },
        Device { fault: Some(lost), ..slice("MIG-lost", 9) },
    ];
    let prepared = host.prepare("cdi-cri").run(&offers(devices), |_| false);
    let faults = faults(&prepared);
    assert_eq!(faults[0], "");
    assert_eq!(faults[1], "driver/nvidia-caps/mig-minors in /proc lacks gpu0/gi9/ci0");
    assert_eq!(faults[2], "the driver does not say the GPU's minor number");
    assert_eq!(faults[3], "the GPU is lost", "the driver's own word comes first");
    assert_eq!(prepared.problem, None);
    assert_eq!(prepared.complaints.len(), 3);
    assert!(prepared.blocking > 0);
    assert_eq!(host.names(), ["MIG-a"]);
}

#[test]
fn what_concerns_all_is_a_problem_of_the_node() {
    let host = Host::new();
    host.put("proc/devices", "Character devices:\n  1 mem\n");
    let prepared = host.prepare("cdi-cri").run(&offers(vec![gpu("GPU-a"), slice("MIG-a", 1)]), |_| false);
    let problem = prepared.problem.clone().unwrap();
    assert!(problem.contains("is the kernel's driver loaded"), "{problem}");
    assert_eq!(faults(&prepared), [problem.as_str(), problem.as_str()]);

    // Whole GPUs need no capabilities.
    let host = Host::new();
    fs::remove_dir_all(host.path("proc/driver")).unwrap();
    let prepared = host.prepare("cdi-cri").run(&offers(vec![gpu("GPU-a"), slice("MIG-a", 1)]), |_| false);
    assert_eq!(prepared.problem, None);
    assert!(faults(&prepared)[0].is_empty() && faults(&prepared)[1].contains("mig-minors"));
    let prepared = host.prepare("cdi-cri").run(&offers(vec![slice("MIG-a", 1)]), |_| false);
    assert!(prepared.problem.unwrap().contains("no device can be given"));
}

#[test]
fn a_module_that_is_not_loaded_is_mentioned() {
    let host = Host::new();
    host.put("proc/devices", "195 nvidia\n241 nvidia-caps\n");
    let prepared = host.prepare("cdi-cri").run(&offers(vec![slice("MIG-a", 1)]), |_| false);
    assert_eq!(faults(&prepared), [""]);
    assert!(prepared.complaints[0].contains("nvidia-modprobe -u"), "{:?}", prepared.complaints);
    assert_eq!(prepared.blocking, 0, "no device waits for it");

    fs::remove_dir_all(host.path("proc/driver")).unwrap();
    let prepared = host.prepare("cdi-cri").run(&offers(vec![slice("MIG-a", 1)]), |_| false);
    let problem = prepared.problem.unwrap();
    assert!(problem.contains("mig-minors") && !problem.contains("nvidia-modprobe"), "{problem}");
}

#[test]
fn what_a_pod_may_hold_stays_in_the_spec() {
    let host = Host::new();
    host.prepare("cdi-cri").run(&offers(vec![slice("MIG-a", 1), gpu("GPU-b")]), |_| false);
    assert_eq!(host.names(), ["GPU-b", "MIG-a"]);
    // Another agent, for which both have vanished.
    let prepare = host.prepare("cdi-cri");
    let prepared = prepare.run(&offers(vec![gpu("GPU-c")]), |id| id == "GPU-b");
    assert_eq!((host.names(), prepared.keeps), (vec!["GPU-c".to_owned(), "MIG-a".to_owned()], true));
    let prepared = prepare.run(&offers(vec![gpu("GPU-c")]), |_| true);
    assert_eq!((host.names(), prepared.keeps), (vec!["GPU-c".to_owned()], false));
    prepare.run(&offers(vec![]), |_| true);
    assert!(!host.path("cdi/mig-agent-gpu.json").exists(), "a spec without devices is not valid");
}

/// A container of the old one's pod that starts again would get the new one with them.
#[test]
fn a_slice_that_is_no_more_gives_its_capabilities_to_the_one_in_its_place() {
    let host = Host::new();
    let nodes = || -> BTreeMap<String, usize> {
        let devices = store::read(&host.path("cdi")).unwrap().unwrap().devices;
        devices.into_iter().map(|device| (device.name.clone(), device.capabilities().count())).collect()
    };
    let prepare = host.prepare("cdi-cri");
    prepare.run(&offers(vec![slice("MIG-old", 1)]), |_| false);
    prepare.run(&offers(vec![gpu("GPU-b")]), |_| false);
    assert_eq!(nodes()["MIG-old"], 2, "nobody else has them");
    prepare.run(&offers(vec![slice("MIG-new", 1)]), |_| false);
    assert_eq!((nodes()["MIG-old"], nodes()["MIG-new"]), (0, 2));
}

#[test]
fn a_device_whose_numbers_cannot_be_read_now_keeps_those_that_it_had() {
    let host = Host::new();
    let prepare = host.prepare("cdi-cri");
    prepare.run(&offers(vec![slice("MIG-a", 1)]), |_| false);
    let before = store::read(&host.path("cdi")).unwrap();
    host.put("proc/driver/nvidia-caps/mig-minors", "");
    let prepared = prepare.run(&offers(vec![slice("MIG-a", 1)]), |_| true);
    assert!(!faults(&prepared)[0].is_empty());
    assert_eq!(store::read(&host.path("cdi")).unwrap(), before);
}

#[test]
fn ids_of_old_drivers_are_kept_rather_than_guessed_at() {
    let host = Host::new();
    host.prepare("cdi-cri").run(&offers(vec![slice("MIG-GPU-b8ea3855/1/0", 1)]), |_| false);
    assert_eq!(host.names(), ["MIG-GPU-b8ea3855_1_0"]);
    host.prepare("cdi-cri").run(&offers(vec![gpu("GPU-a")]), |_| true);
    assert_eq!(host.names(), ["GPU-a", "MIG-GPU-b8ea3855_1_0"]);
}

#[test]
fn a_spec_that_somebody_spoilt_is_written_anew() {
    let host = Host::new();
    host.put("cdi/mig-agent-gpu.json", "{\"devices\": [");
    let prepare = host.prepare("cdi-cri");
    let prepared = prepare.run(&offers(vec![gpu("GPU-a")]), |_| false);
    assert!(prepared.complaints[0].contains("is written anew"), "{:?}", prepared.complaints);
    assert_eq!((faults(&prepared), host.names()), (vec![""], vec!["GPU-a".to_owned()]));
    host.put("cdi/mig-agent-gpu.json", "{}");
    prepare.run(&offers(vec![gpu("GPU-a")]), |_| false);
    assert_eq!(host.names(), ["GPU-a"]);
}

#[test]
fn device_nodes_are_looked_for_where_the_node_has_them() {
    let host = Host::new();
    let files = |dev_root: Option<&str>, here: Option<&str>| Files {
        driver_root: "/run/nvidia/driver".into(),
        driver_root_here: host.path("root"),
        dev_root: dev_root.map(PathBuf::from),
        dev_root_here: here.map(|here| host.path(here)),
        ..Files::default()
    };
    let root = |files: Files| dev_root(&files).unwrap().node().to_owned();
    assert_eq!(root(files(None, None)), PathBuf::from("/"), "the driver root has no nodes");
    assert_eq!(root(files(Some("/run/nvidia/driver"), None)), PathBuf::from("/run/nvidia/driver"));
    host.put("dev-of-host/dev/nvidiactl", "");
    assert_eq!(root(files(None, Some("dev-of-host"))), PathBuf::from("/"));
    host.put("root/dev/nvidiactl", "");
    assert_eq!(root(files(None, None)), PathBuf::from("/run/nvidia/driver"));
    let error = dev_root(&files(Some("/"), Some("nowhere"))).unwrap_err();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn while_the_disk_hangs_faults_and_removals_still_count() {
    let host = Host::new();
    let prepare = host.prepare("cdi-cri");
    let ready = prepare.run(&offers(vec![gpu("GPU-a"), gpu("GPU-b"), gpu("GPU-c")]), |_| false);
    let faulty = Device { fault: Some(Fault { kind: "Lost", message: "it fell off".to_owned() }), ..gpu("GPU-b") };
    let now = Prepare::meanwhile(&ready, &offers(vec![gpu("GPU-a"), faulty, gpu("GPU-new")]), "the disk hangs");
    assert_eq!(faults(&now), ["", "it fell off", "the disk hangs"]);
}
