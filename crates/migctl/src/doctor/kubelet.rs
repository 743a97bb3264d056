//! The kubelet: whether it is there, and whether it says which pods hold what.

use std::io;
use std::os::unix::net::UnixStream;

use kubelet::{KubeletPaths, causes, list_holdings};

use super::{Finding, Places};

pub(super) fn check(places: &Places<'_>) -> Vec<Finding> {
    let paths = KubeletPaths::new(&places.context.options.kubelet_root);
    if !paths.root().exists() {
        let message = format!("there is none: no {}", paths.root().display());
        return vec![Finding::skipped("kubelet", message)];
    }
    vec![registration(&paths), pods(&paths)]
}

fn registration(paths: &KubeletPaths) -> Finding {
    const CHECK: &str = "kubelet";
    let socket = paths.registration_socket();
    match UnixStream::connect(&socket) {
        Ok(_) => Finding::ok(CHECK, format!("it takes device plugins at {}", socket.display())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::skipped(CHECK, format!("only root may reach {}", socket.display()))
        }
        Err(error) => Finding::problem(CHECK, format!("nobody answers at {}: {error}", socket.display()))
            .advice("is it running? systemctl status kubelet")
            .advice("its root directory may be another one: --kubelet-root (k0s: /var/lib/k0s/kubelet, microk8s: /var/snap/microk8s/common/var/lib/kubelet)"),
    }
}

fn pods(paths: &KubeletPaths) -> Finding {
    const CHECK: &str = "pods";
    let socket = paths.pod_resources_socket();
    match UnixStream::connect(&socket) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Finding::warning(CHECK, format!("only root may ask {} who holds what", socket.display()))
                .advice("run as root: else nobody knows which instances pods hold, and none is destroyed");
        }
        Err(error) => {
            return Finding::problem(CHECK, format!("nobody answers at {}: {error}", socket.display()))
                .advice("while the kubelet does not say which pods hold instances, none is destroyed (but with --ignore-kubelet)");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(list_holdings(&socket)).map_err(|error| causes(&error)),
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(holdings) if holdings.is_empty() => Finding::ok(CHECK, "none holds a device"),
        Ok(holdings) => {
            let pods: std::collections::BTreeSet<_> = holdings.iter().map(|one| (&one.namespace, &one.pod)).collect();
            Finding::ok(CHECK, format!("holding devices: {}", pods.len()))
        }
        Err(why) => Finding::problem(CHECK, why)
            .advice("the kubelet's log may say more: journalctl -u kubelet")
            .advice("while it does not say which pods hold instances, none is destroyed (but with --ignore-kubelet)"),
    }
}
