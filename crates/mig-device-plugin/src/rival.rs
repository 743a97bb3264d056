//! Other plugins of this node that offer the same resource.
//!
//! A kubelet keeps one plugin for each name: the one that registered last. The lists of the others still count for it, and
//! when one of them goes, it lets go of the one that stayed. So there must be no two, and whoever is there already has it.

use std::path::Path;

use kubelet::is_plugin;
use mig_model::{ResourceDomain, ResourceName};

/// Leftovers of plugins that put the time of their start into the name are many on old nodes; of those there are few.
const MOST_ASKED: usize = 16;
/// For messages.
const MOST_NAMED: usize = 8;

/// The socket of a plugin that offers this resource and is alive. Registration tells nobody which names are taken, so
/// this goes by what the plugins that are known to do so call their sockets.
pub(crate) async fn find(directory: &Path, resource: &ResourceName) -> Option<String> {
    if *resource.domain() != ResourceDomain::default() {
        return None;
    }
    // NVIDIA's, and those that were made from it.
    let nvidias = format!("nvidia-{}.sock", resource.name());
    if is_plugin(&directory.join(&nvidias)).await {
        return Some(nvidias);
    }
    // GKE's, which offers slices by this name too.
    if resource.name() == "gpu" {
        let gkes = sockets(directory, |name| name.starts_with("nvidiaGPU-"));
        for name in gkes.into_iter().rev().take(MOST_ASKED) {
            if is_plugin(&directory.join(&name)).await {
                return Some(name);
            }
        }
    }
    None
}

/// Sockets that are neither the kubelet's nor of an agent like this one, as a list for people.
pub(crate) fn others(directory: &Path) -> String {
    let mut names = sockets(directory, |name| name != "kubelet.sock" && !name.starts_with("mig-agent-"));
    names.truncate(MOST_NAMED);
    // Nobody but root can have made them, and yet: these go into a log.
    let shown: Vec<_> = names.iter().map(|name| name.escape_default().to_string()).collect();
    if shown.is_empty() { "no other socket is there".to_owned() } else { shown.join(", ") }
}

fn sockets(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".sock") && wanted(name)).collect();
    names.sort();
    names
}
