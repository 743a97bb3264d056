//! What a node's labels say of its GPUs: the names and values of NVIDIA's gpu-feature-discovery, for each of its strategies.
//!
//! One set describes the GPUs as such; under `mixed` another describes each profile there is, under `single` the only one
//! takes the place of the GPUs'. `docs/labels.md` has all of them, and where NVIDIA's differ.

use std::collections::BTreeMap;

use crate::details::{NodeDetails, PartDetails};
use crate::inventory::{Gpu, MigMode, NodeInventory};
use crate::profile::Profile;
use crate::resource::{ResourceDomain, ResourceName};
use crate::sharing::Terms;
use crate::strategy::Strategy;

/// Labels by their names.
pub type Labels = BTreeMap<String, String>;

/// What Kubernetes allows of a value, and of a name after its slash.
const LONGEST: usize = 63;

/// PCI classes of GPUs: with a display's connector, and without.
const GRAPHICS: u32 = 0x03_0000;
const COMPUTE: u32 = 0x03_0200;

/// The labels of a node; none if it has no GPU.
pub fn labels(inventory: &NodeInventory, details: &NodeDetails, terms: &Terms) -> Labels {
    let mut labels = Labels::new();
    if let Some(first) = inventory.gpus.first() {
        let mut set = Set { labels: &mut labels, terms };
        set.versions(&inventory.driver.version, details.cuda);
        let capable = inventory.gpus.iter().any(|gpu| gpu.mig != MigMode::Unsupported);
        set.add("mig.capable", &capable);
        // A node that shares GPUs through MPS would say so here.
        set.add("mps.capable", &false);
        if let Some(class) = details.gpus.get(&first.uuid).and_then(|gpu| gpu.pci_class) {
            let mode = match class {
                GRAPHICS => "graphics",
                COMPUTE => "compute",
                _ => "unknown",
            };
            set.add("gpu.mode", mode);
        }
        set.whole(&inventory.gpus, details);
        match terms.strategy {
            Strategy::None => {}
            Strategy::Single => set.single(&inventory.gpus, details),
            Strategy::Mixed => set.mixed(&inventory.gpus, details),
        }
        if terms.strategy != Strategy::None {
            set.add("mig.strategy", &terms.strategy);
        }
    }
    labels
}

/// MIG devices of one profile.
struct Kind<'i> {
    /// The name of the first GPU that has one.
    product: &'i str,
    profile: &'i Profile,
    count: usize,
}

/// By the order in which they are met, as NVIDIA's takes the first of each for all.
fn kinds(gpus: &[Gpu]) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for gpu in gpus.iter().filter(|gpu| gpu.mig.is_enabled()) {
        for compute in gpu.instances.iter().flat_map(|instance| &instance.compute_instances) {
            match kinds.iter_mut().find(|kind| *kind.profile == compute.profile) {
                Some(kind) => kind.count += 1,
                None => kinds.push(Kind { product: &gpu.name, profile: &compute.profile, count: 1 }),
            }
        }
    }
    kinds
}

struct Set<'l> {
    labels: &'l mut Labels,
    terms: &'l Terms,
}

// === impl Set ===

impl Set<'_> {
    /// What no label can be called or say is left out: NVIDIA's name for it would be refused by the API server.
    fn add(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        let value = value.to_string();
        if is_plain(name) && (value.is_empty() || is_plain(&value)) {
            self.labels.insert(format!("{}/{name}", ResourceDomain::default()), value);
        }
    }

    fn versions(&mut self, driver: &str, cuda: Option<(u32, u32)>) {
        let parts: Vec<&str> = driver.split('.').collect();
        if let [major, minor, rest @ ..] = parts.as_slice()
            && let [] | [_] = rest
        {
            let revision = rest.first().copied().unwrap_or_default();
            self.add("cuda.driver-version.full", driver);
            for (name, older, value) in
                [("major", "major", *major), ("minor", "minor", *minor), ("revision", "rev", revision)]
            {
                self.add(&format!("cuda.driver-version.{name}"), value);
                self.add(&format!("cuda.driver.{older}"), value);
            }
        }
        if let Some((major, minor)) = cuda {
            self.add("cuda.runtime-version.full", &format!("{major}.{minor}"));
            for (name, value) in [("major", major), ("minor", minor)] {
                self.add(&format!("cuda.runtime-version.{name}"), &value);
                self.add(&format!("cuda.runtime.{name}"), &value);
            }
        }
    }

    /// The GPUs of one product, cut or not. NVIDIA's gives the labels of a node with several products to any of them,
    /// but to one with a GPU that is not cut if there is one; here it is the first such.
    fn whole(&mut self, gpus: &[Gpu], details: &NodeDetails) {
        let uncut = gpus.iter().find(|gpu| !gpu.mig.is_enabled());
        let Some(chosen) = uncut.or(gpus.first()) else { return };
        let alike = || gpus.iter().filter(|gpu| gpu.name == chosen.name);
        self.base("gpu", (&chosen.name, ""), alike().count(), usize::from(uncut.is_some()));
        let mut known = alike().filter_map(|gpu| details.gpus.get(&gpu.uuid));
        // Of GPUs that are alike, one that is not cut tells everybody how much memory they have.
        if let Some(memory) = known.clone().find_map(|gpu| gpu.memory_mib).filter(|memory| *memory > 0) {
            self.add("gpu.memory", &memory);
        }
        if let Some((major, minor)) = known.find_map(|gpu| gpu.compute_capability).filter(|(major, _)| *major > 0) {
            self.add("gpu.family", family(major, minor));
            self.add("gpu.compute.major", &major);
            self.add("gpu.compute.minor", &minor);
        }
    }

    /// Of a resource, called as it is unshared. Shared devices that have no name of their own are told from others by their
    /// product.
    fn base(&mut self, resource: &str, product: (&str, &str), count: usize, replicas: usize) {
        let name = ResourceName::parse(resource, &self.terms.domain).ok();
        let shares = name.and_then(|name| self.terms.shares(&name)).filter(|_| replicas > 0);
        let (name, rest) = product;
        let mark = if shares.is_some_and(|shares| !shares.renamed) { "-SHARED" } else { "" };
        self.add(&format!("{resource}.product"), &self::product(name, &format!("{rest}{mark}")));
        self.add(&format!("{resource}.count"), &count);
        match shares {
            Some(shares) => self.add(&format!("{resource}.replicas"), &shares.replicas),
            None => self.add(&format!("{resource}.replicas"), &replicas),
        }
        self.add(&format!("{resource}.sharing-strategy"), if shares.is_some() { "time-slicing" } else { "none" });
    }

    fn mixed(&mut self, gpus: &[Gpu], details: &NodeDetails) {
        for kind in kinds(gpus) {
            self.part(ResourceName::mig(&ResourceDomain::default(), kind.profile).name(), &kind, details);
        }
    }

    /// A node that does not fit the strategy is labelled as NVIDIA's labels it, though of its GPUs those that fit are
    /// offered: who selects nodes by these labels meets no other nodes than before.
    fn single(&mut self, gpus: &[Gpu], details: &NodeDetails) {
        let Some(cut) = gpus.iter().find(|gpu| gpu.mig.is_enabled()) else { return };
        let all_are_cut = gpus.iter().all(|gpu| gpu.mig.is_enabled() && !gpu.instances.is_empty());
        match kinds(gpus).as_slice() {
            [kind] if all_are_cut => {
                // The GPU's, not the device's, and the latter may stay unknown.
                self.labels.remove(&format!("{}/gpu.memory", ResourceDomain::default()));
                self.part("gpu", kind, details);
            }
            _ => {
                self.add("gpu.product", &product(&cut.name, "-MIG-INVALID"));
                for name in ["gpu.count", "gpu.replicas", "gpu.memory"] {
                    self.add(name, &0);
                }
            }
        }
    }

    fn part(&mut self, resource: &str, kind: &Kind<'_>, details: &NodeDetails) {
        let Kind { product: name, profile, count } = kind;
        self.base(resource, (name, &format!("-MIG-{}", profile.resource_suffix())), *count, 1);
        let mut add = |name: &str, value: u64| self.add(&format!("{resource}.{name}"), &value);
        let Some(part) = details.parts.get(&((*name).to_owned(), (*profile).clone())) else {
            // The name says that much.
            add("slices.gi", profile.slices().into());
            add("slices.ci", profile.compute_slices().into());
            return;
        };
        let PartDetails { memory_mib, multiprocessors, gpu_slices, compute_slices, engines } = *part;
        add("memory", memory_mib);
        for (name, value) in [
            ("multiprocessors", multiprocessors),
            ("slices.gi", gpu_slices),
            ("slices.ci", compute_slices),
            ("engines.copy", engines.copy),
            ("engines.decoder", engines.decoder),
            ("engines.encoder", engines.encoder),
            ("engines.jpeg", engines.jpeg),
            ("engines.ofa", engines.ofa),
        ] {
            add(name, value.into());
        }
    }
}

/// A product's name as a value: spaces become `-`, and what no value may have is dropped. NVIDIA's would let one grow too
/// long, which the API server then refuses; here the GPU's part is cut short and the rest kept.
fn product(name: &str, rest: &str) -> String {
    let allowed: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ')).collect();
    let words: Vec<&str> = allowed.split_whitespace().collect();
    let mut value = words.join("-");
    value.truncate(LONGEST.saturating_sub(rest.len()));
    let is_edge = |c: char| !c.is_ascii_alphanumeric();
    format!("{}{rest}", value.trim_matches(is_edge)).trim_matches(is_edge).to_owned()
}

/// What the API server takes for a value, and for a name after its slash.
fn is_plain(text: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    text.len() <= LONGEST && inner && text.starts_with(is_edge) && text.ends_with(is_edge)
}

/// NVIDIA's table, `undefined` included.
fn family(major: u32, minor: u32) -> &'static str {
    match (major, minor) {
        (1, _) => "tesla",
        (2, _) => "fermi",
        (3, _) => "kepler",
        (5, _) => "maxwell",
        (6, _) => "pascal",
        (7, ..5) => "volta",
        (7, _) => "turing",
        (8, ..9) => "ampere",
        (8, _) => "ada-lovelace",
        (9, _) => "hopper",
        (10 | 12, _) => "blackwell",
        _ => "undefined",
    }
}

#[cfg(test)]
mod tests;
