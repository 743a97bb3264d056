//! `kubelet_internal_checkpoint`: what the kubelet remembers over a restart.
//!
//! The shape is the real one's. The checksum is always 0 and is not looked at: the real one hashes Go's own dump of the
//! data.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use kubelet::deviceplugin::ContainerAllocateResponse;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::{
    allocations::{Allocations, Held},
    node::State,
};

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
    checksum: u64,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    /// Go writes `null` for an empty one.
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "PodUID")]
    pod: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: BTreeMap<i64, Vec<String>>,
    /// The answer as protobuf in base64.
    alloc_resp: String,
}

/// What a checkpoint holds.
#[derive(Default)]
pub(crate) struct Remembered {
    pub(crate) allocations: Allocations,
    /// Resources that were known; their devices are not, until the plugin lists them again.
    pub(crate) resources: Vec<String>,
}

pub(crate) fn path(device_plugins: &Path) -> PathBuf {
    device_plugins.join("kubelet_internal_checkpoint")
}

pub(crate) fn write(device_plugins: &Path, state: &State) -> io::Result<()> {
    let mut entries = Vec::new();
    for (pod, containers) in &state.allocations.pods {
        for (container, resources) in containers {
            for (resource, held) in resources {
                entries.push(Entry {
                    pod: pod.clone(),
                    container_name: container.clone(),
                    resource_name: resource.clone(),
                    device_ids: held.by_numa.clone(),
                    alloc_resp: BASE64_STANDARD.encode(held.answer.encode_to_vec()),
                });
            }
        }
    }
    let healthy = state.resources.iter().filter_map(|(name, known)| {
        let lists = known.lists.as_ref()?;
        Some((name.clone(), lists.healthy.iter().cloned().collect()))
    });
    let data = Data { pod_device_entries: Some(entries), registered_devices: healthy.collect() };
    let text = serde_json::to_vec(&File { data, checksum: 0 })?;
    // Written beside and renamed, so that a kill leaves the old one or the new one.
    let beside = device_plugins.join(".kubelet_internal_checkpoint");
    fs::write(&beside, text)?;
    fs::rename(&beside, path(device_plugins))
}

/// None if there is no checkpoint.
pub(crate) fn read(device_plugins: &Path) -> io::Result<Option<Remembered>> {
    let text = match fs::read(path(device_plugins)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = serde_json::from_slice::<File>(&text)?;
    let mut remembered = Remembered::default();
    for entry in file.data.pod_device_entries.into_iter().flatten() {
        let bytes = BASE64_STANDARD.decode(&entry.alloc_resp).map_err(io::Error::other)?;
        let answer = ContainerAllocateResponse::decode(bytes.as_slice())?;
        let held = Held { by_numa: entry.device_ids, answer };
        remembered.allocations.insert(&entry.pod, &entry.container_name, &entry.resource_name, held);
    }
    remembered.resources.extend(file.data.registered_devices.into_keys());
    Ok(Some(remembered))
}
