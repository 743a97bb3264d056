use std::collections::{BTreeMap, HashMap};

use kubelet::deviceplugin::ContainerAllocateResponse;
use mig_model::Device;

/// What every container gets, whatever it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSettings {
    /// Variables that get the list of the container's devices.
    pub visible_devices_env: Vec<String>,
}

impl ContainerSettings {
    /// What a container gets for these devices of one resource.
    ///
    /// The kubelet asks once per resource and keeps one value per variable, so a container with devices of two profiles
    /// finds both only in the variables that carry the profile's name.
    pub(crate) fn answer(&self, devices: &[&Device]) -> ContainerAllocateResponse {
        let all: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
        let mut by_profile: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for device in devices {
            if let Some(profile) = &device.profile {
                by_profile.entry(profile.variable_suffix()).or_default().push(&device.id);
            }
        }
        let mut envs: HashMap<String, String> =
            self.visible_devices_env.iter().map(|name| (name.clone(), all.join(","))).collect();
        envs.extend(by_profile.into_iter().map(|(suffix, ids)| (format!("MIG_DEVICES_{suffix}"), ids.join(","))));
        ContainerAllocateResponse { envs, ..ContainerAllocateResponse::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, profile: Option<&str>) -> Device {
        Device {
            id: id.to_owned(),
            gpu: "GPU-0".to_owned(),
            profile: profile.map(|text| text.parse().unwrap()),
            ..Device::default()
        }
    }

    #[test]
    fn each_variable_names_the_devices() {
        let settings = ContainerSettings {
            visible_devices_env: vec!["CUDA_VISIBLE_DEVICES".into(), "NVIDIA_VISIBLE_DEVICES".into()],
        };
        let (one, two) = (device("MIG-a", Some("1g.10gb+me")), device("MIG-b", Some("1g.10gb+me")));
        let mut envs: Vec<(String, String)> = settings.answer(&[&one, &two]).envs.into_iter().collect();
        envs.sort();
        let expected = ["CUDA_VISIBLE_DEVICES", "MIG_DEVICES_1G_10GB_ME", "NVIDIA_VISIBLE_DEVICES"];
        assert_eq!(envs, expected.map(|name| (name.to_owned(), "MIG-a,MIG-b".to_owned())));
    }

    #[test]
    fn a_whole_gpu_is_no_mig_device() {
        let settings = ContainerSettings { visible_devices_env: vec!["CUDA_VISIBLE_DEVICES".into()] };
        let envs = settings.answer(&[&device("GPU-0", None)]).envs;
        assert_eq!(envs.into_iter().collect::<Vec<_>>(), [("CUDA_VISIBLE_DEVICES".to_owned(), "GPU-0".to_owned())]);
    }
}
