//! CDI, on containerd and plain runc: no runtime of NVIDIA's is on the node, and yet a container has its slices' device nodes and the
//! driver's library, and no other slice's.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use e2e::command::{on_the_node, succeed};
use e2e::namespace::Namespace;
use e2e::pod::{Running, pod_doing};
use libtest_mimic::Trial;

use crate::chart::{ROLLED_OUT, UPGRADE, lacks, roll_back};
use crate::trial_where;

/// Of the fake driver, as a host had them.
const GPUS: u32 = 195;
const CAPABILITIES: u32 = 241;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_where("with_cdi_a_container_reaches_its_own_slices_and_no_other", lacks, of_the_kubelets_names),
        trial_where("with_cdi_by_annotations_too", lacks, of_annotations),
    ]
}

async fn of_the_kubelets_names(test: &Namespace<'_>) -> Result<()> {
    under(test, "cdi-cri").await
}

async fn of_annotations(test: &Namespace<'_>) -> Result<()> {
    under(test, "cdi-annotations").await
}

async fn under(test: &Namespace<'_>, strategy: &str) -> Result<()> {
    // The kernel's own /proc has no driver in it here.
    let proc = "--set 'extraEnv[0].name=PROC_ROOT' --set 'extraEnv[0].value=/driver-root/proc'";
    succeed(&format!("{UPGRADE} --wait --set deviceListStrategy={strategy} {proc}"))?;
    let outcome = async {
        succeed(ROLLED_OUT)?;
        test.cluster.all_listed_again().await?;
        containers_reach_their_own(test).await
    }
    .await;
    test.delete_pods().await?;
    roll_back()?;
    // It stays for pods that may use it, of which there are none any more.
    on_the_node("rm -f /var/run/cdi/mig-agent-gpu.json")?;
    test.cluster.all_listed_again().await?;
    outcome
}

async fn containers_reach_their_own(test: &Namespace<'_>) -> Result<()> {
    let driver = Driver::of(test)?;
    let script = driver.script();
    // NVIDIA/k8s-device-plugin#728: two profiles in one container, which reaches both.
    let pods: [(&str, &[(&str, u64)]); 4] = [
        ("large", &[("3g.20gb", 1)]),
        ("both", &[("2g.10gb", 1), ("1g.5gb", 1)]),
        ("pair", &[("1g.5gb", 2)]),
        ("none", &[]),
    ];
    for (name, slices) in pods {
        test.create_pod(pod_doing(name, &script, &[slices])?).await?;
    }
    for (name, slices) in pods {
        let running = test.running(name).await?;
        driver.judge(&running, slices).with_context(|| format!("pod {name}"))?;
    }
    Ok(())
}

/// What the driver has for each slice.
struct Driver {
    /// By UUID: the GPU's minor number, and those of the two capabilities.
    slices: BTreeMap<String, (u32, BTreeSet<u32>)>,
}

impl Driver {
    fn of(test: &Namespace<'_>) -> Result<Self> {
        let tree = "/var/lib/fake-nvml/proc/driver/nvidia/capabilities";
        let files = on_the_node(&format!("cd {tree} && grep -r DeviceFileMinor: ."))?;
        let minors: BTreeMap<&str, u32> = files
            .lines()
            .filter_map(|line| {
                let (file, minor) = line.strip_prefix("./")?.split_once(":DeviceFileMinor: ")?;
                Some((file, minor.parse().ok()?))
            })
            .collect();
        let mut slices = BTreeMap::new();
        for (uuid, (gpu, files)) in test.cluster.scene.capabilities() {
            let own: Option<BTreeSet<u32>> = files.iter().map(|file| minors.get(file.as_str()).copied()).collect();
            let own = own.with_context(|| format!("the driver has not {files:?}, but {minors:?}"))?;
            slices.insert(uuid, (gpu, own));
        }
        Ok(Self { slices })
    }

    /// Every number that opens something of these GPUs.
    fn numbers(&self) -> BTreeSet<(u32, u32)> {
        let of_slice = |(gpu, capabilities): &(u32, BTreeSet<u32>)| {
            let nodes: Vec<_> = capabilities.iter().map(|minor| (CAPABILITIES, *minor)).collect();
            [vec![(GPUS, *gpu)], nodes].concat()
        };
        // 1 and 2 are for changing and watching all of them.
        let all = self.slices.values().flat_map(of_slice);
        all.chain([(CAPABILITIES, 1), (CAPABILITIES, 2)]).collect()
    }

    /// Says which nodes the container has, which numbers it can open by nodes that it makes itself, and whether the library is there.
    fn script(&self) -> String {
        let numbers: Vec<_> = self.numbers().into_iter().map(|(major, minor)| format!("{major}:{minor}")).collect();
        let made = "made=/made-$id; busybox mknod $made c ${id%:*} ${id#*:}";
        format!(
            "for node in /dev/nvidia* /dev/nvidia-caps/*; do [ -c $node ] && echo \"sees: $node $( (true <$node) 2>&1 )\"; done; \
             for file in /usr/lib/*-linux-gnu/libnvidia-ml.so.1; do [ -s $file ] && echo \"library: $file\"; done; \
             for id in {}; do {made}; echo \"opens: $id: $( (true <$made) 2>&1 )\"; done;",
            numbers.join(" ")
        )
    }

    fn judge(&self, running: &Running, asked: &[(&str, u64)]) -> Result<()> {
        let log = running.log("c0")?;
        let mut held = BTreeSet::new();
        for (profile, count) in asked {
            let variable = format!("MIG_DEVICES_{}", profile.replace('.', "_").to_uppercase());
            let uuids: BTreeSet<_> = running.variable("c0", &variable)?.split(',').map(str::to_owned).collect();
            ensure!(u64::try_from(uuids.len())? == *count, "{variable} is {uuids:?}");
            held.extend(uuids);
        }
        if !asked.is_empty() {
            let visible = running.variable("c0", "CUDA_VISIBLE_DEVICES")?;
            ensure!(
                visible.split(',').all(|uuid| held.contains(uuid)),
                "CUDA_VISIBLE_DEVICES is {visible}, it holds {held:?}"
            );
        }
        let mut own = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        for uuid in &held {
            let (gpu, capabilities) = self.slices.get(uuid).with_context(|| format!("there is no slice {uuid}"))?;
            nodes.extend(["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"].map(|name| format!("/dev/{name}")));
            nodes.insert(format!("/dev/nvidia{gpu}"));
            nodes.extend(capabilities.iter().map(|minor| format!("/dev/nvidia-caps/nvidia-cap{minor}")));
            own.insert((GPUS, *gpu));
            own.extend(capabilities.iter().map(|minor| (CAPABILITIES, *minor)));
        }

        // No module of the kernel has these numbers here, which is another answer than that of the container's cgroup.
        let refused = |answer: &str| answer.contains("Operation not permitted");
        let mut seen = BTreeSet::new();
        for (node, answer) in log.lines().filter_map(|line| line.strip_prefix("sees: ")?.split_once(' ')) {
            ensure!(!refused(answer), "it has {node} and may not open it: {answer}");
            seen.insert(node.to_owned());
        }
        ensure!(seen == nodes, "it sees {seen:?}, and not {nodes:?}: {log}");
        for (major, minor) in self.numbers() {
            let begin = format!("opens: {major}:{minor}: ");
            let answer = log.lines().find_map(|line| line.strip_prefix(&begin));
            let answer = answer.with_context(|| format!("it has not tried {major}:{minor}: {log}"))?;
            let is_own = own.contains(&(major, minor));
            ensure!(refused(answer) != is_own, "device {major}:{minor}, which is its own: {is_own}: {answer}");
        }
        ensure!(log.contains("library: /usr/lib/") != held.is_empty(), "the driver's library: {log}");
        Ok(())
    }
}
