//! What is beside the GPUs and goes with them, as NVIDIA's plugin knows it: each is something that a kernel module of its own
//! offers, and that NVIDIA's runtime adds where a variable says so.

use driver_files::{Node, Provided, Root, present, shown};

/// One such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Copies by the CPU into a GPU's memory.
    GdrCopy,
    /// GPUDirect Storage: from disks into a GPU's memory.
    Gds,
    /// Mellanox OFED: from the network into a GPU's memory.
    Mofed,
}

impl Extra {
    /// What a container is told, and NVIDIA's runtime with it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::GdrCopy => "NVIDIA_GDRCOPY",
            Self::Gds => "NVIDIA_GDS",
            Self::Mofed => "NVIDIA_MOFED",
        }
    }

    /// Those of its device nodes that there are; they have no numbers that could be known.
    pub(crate) fn nodes(self, dev: &Root) -> Vec<Node> {
        match self {
            Self::GdrCopy => present(dev, "", |name| name == "gdrdrv"),
            Self::Gds => present(dev, "", |name| name.starts_with("nvidia-fs")),
            Self::Mofed => present(dev, "infiniband", |name| name == "rdma_cm" || name.starts_with("uverbs")),
        }
    }

    /// The node's files that it reads in a container.
    pub(crate) fn files(self, root: &Root) -> Vec<Provided> {
        let paths: &[&str] = if self == Self::Gds { &["etc/cufile.json", "run/udev"] } else { &[] };
        paths.iter().filter_map(|path| shown(root, path)).collect()
    }

    /// What is missing where there is no node.
    pub(crate) fn lacks(self) -> &'static str {
        match self {
            Self::GdrCopy => "--gdrcopy-enabled: there is no /dev/gdrdrv: is the module gdrdrv loaded?",
            Self::Gds => "--gds-enabled: there is no /dev/nvidia-fs*: is the module nvidia-fs loaded?",
            Self::Mofed => {
                "--mofed-enabled: there is no /dev/infiniband/uverbs*: are the modules of Mellanox OFED loaded?"
            }
        }
    }
}
