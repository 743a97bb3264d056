use std::sync::Arc;

use kubelet::deviceplugin::DeviceSpec;
use mig_model::Device;

use super::strategy::DeviceIdStrategy;

/// What one device adds to a container, worked out before the device is offered: Allocate only puts it together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gift {
    /// How NVIDIA's runtime is told of it.
    pub(crate) visible: String,
    /// The device nodes by which it is reached, if they are passed on.
    pub(crate) nodes: Arc<[DeviceSpec]>,
}

/// A device, and what a container gets with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) device: Device,
    pub(crate) gift: Gift,
}

impl Gift {
    pub(crate) fn new(device: &Device, ids: DeviceIdStrategy, nodes: Vec<DeviceSpec>) -> Self {
        let visible = match ids {
            DeviceIdStrategy::Uuid => device.uuid.clone(),
            DeviceIdStrategy::Index => index(device).unwrap_or_else(|| device.uuid.clone()),
        };
        Self { visible, nodes: nodes.into() }
    }
}

/// `0` for a GPU, `0:1` for a MIG device.
fn index(device: &Device) -> Option<String> {
    let gpu = device.address.gpu_index;
    match &device.address.mig {
        None => Some(gpu.to_string()),
        Some(mig) => Some(format!("{gpu}:{}", mig.index?)),
    }
}

#[cfg(test)]
mod tests {
    use mig_model::{Address, MigAddress};

    use super::*;

    #[test]
    fn indices_are_written_as_nvidia_does() {
        let mig = MigAddress { index: Some(3), gpu_instance: 9, compute_instance: 0 };
        let slice = Device {
            id: "MIG-a::1".to_owned(),
            uuid: "MIG-a".to_owned(),
            address: Address { gpu_index: 1, gpu_minor: Some(5), mig: Some(mig) },
            ..Device::default()
        };
        let gpu = Device {
            id: "GPU-a".to_owned(),
            uuid: "GPU-a".to_owned(),
            address: Address { mig: None, ..slice.address.clone() },
            ..Device::default()
        };
        let visible = |device: &Device, ids| Gift::new(device, ids, vec![]).visible;
        assert_eq!(visible(&slice, DeviceIdStrategy::Index), "1:3");
        assert_eq!(visible(&gpu, DeviceIdStrategy::Index), "1");
        assert_eq!(visible(&slice, DeviceIdStrategy::Uuid), "MIG-a");
    }
}
