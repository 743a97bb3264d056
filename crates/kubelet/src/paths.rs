use std::path::{Path, PathBuf};

/// Where a kubelet keeps its sockets: everything below its root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletPaths {
    root: PathBuf,
}

impl KubeletPaths {
    /// `root` is `/var/lib/kubelet`, unless the node was set up otherwise.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The kubelet's root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where plugins put their sockets.
    pub fn device_plugins(&self) -> PathBuf {
        self.root.join("device-plugins")
    }

    /// Where plugins register.
    pub fn registration_socket(&self) -> PathBuf {
        self.device_plugins().join("kubelet.sock")
    }

    /// Where the kubelet tells which pod holds what.
    pub fn pod_resources_socket(&self) -> PathBuf {
        self.root.join("pod-resources/kubelet.sock")
    }
}
