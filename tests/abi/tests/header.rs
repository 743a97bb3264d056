//! The fake's structures and those that the product uses, against every header given.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failure here is the test's")]

use std::{fs, path::Path};

use abi::{Layout, evaluate, expressions, headers};
use nvml_wrapper_sys::bindings as sys;

macro_rules! layout {
    ($name:ident { $($field:ident),* $(,)? }) => {
        (stringify!($name), size_of::<sys::$name>(), &[$((stringify!($field), std::mem::offset_of!(sys::$name, $field))),*])
    };
}

/// What the product reads through nvml-wrapper-sys.
const PRODUCT: &[Layout] = &[
    layout!(nvmlDeviceAttributes_t {
        multiprocessorCount,
        sharedCopyEngineCount,
        sharedDecoderCount,
        sharedEncoderCount,
        sharedJpegCount,
        sharedOfaCount,
        gpuInstanceSliceCount,
        computeInstanceSliceCount,
        memorySizeMB,
    }),
    layout!(nvmlGpuInstancePlacement_t { start, size }),
    layout!(nvmlGpuInstanceProfileInfo_t {
        id,
        isP2pSupported,
        sliceCount,
        instanceCount,
        multiprocessorCount,
        copyEngineCount,
        decoderCount,
        encoderCount,
        jpegCount,
        ofaCount,
        memorySizeMB,
    }),
    layout!(nvmlGpuInstanceProfileInfo_v2_t {
        version,
        id,
        isP2pSupported,
        sliceCount,
        instanceCount,
        multiprocessorCount,
        copyEngineCount,
        decoderCount,
        encoderCount,
        jpegCount,
        ofaCount,
        memorySizeMB,
        name,
    }),
    layout!(nvmlGpuInstanceInfo_t { device, id, profileId, placement }),
    layout!(nvmlComputeInstancePlacement_t { start, size }),
    layout!(nvmlComputeInstanceProfileInfo_t {
        id,
        sliceCount,
        instanceCount,
        multiprocessorCount,
        sharedCopyEngineCount,
        sharedDecoderCount,
        sharedEncoderCount,
        sharedJpegCount,
        sharedOfaCount,
    }),
    layout!(nvmlComputeInstanceProfileInfo_v2_t {
        version,
        id,
        sliceCount,
        instanceCount,
        multiprocessorCount,
        sharedCopyEngineCount,
        sharedDecoderCount,
        sharedEncoderCount,
        sharedJpegCount,
        sharedOfaCount,
        name,
    }),
    layout!(nvmlComputeInstanceInfo_t { device, gpuInstance, id, profileId, placement }),
    layout!(nvmlMemory_t { total, free, used }),
    layout!(nvmlPciInfo_t { busIdLegacy, domain, bus, device, pciDeviceId, pciSubSystemId, busId }),
    layout!(nvmlEventData_t { device, eventType, eventData, gpuInstanceId, computeInstanceId }),
    layout!(nvmlProcessInfo_t { pid, usedGpuMemory, gpuInstanceId, computeInstanceId }),
];

/// Numbers that the fake or the product has of its own.
const CONSTANTS: &[(&str, u64)] = &[
    ("NVML_DEVICE_UUID_V2_BUFFER_SIZE", 96),
    ("NVML_DEVICE_NAME_V2_BUFFER_SIZE", 96),
    ("NVML_GSP_FIRMWARE_VERSION_BUF_SIZE", 0x40),
    ("NVML_GPU_INSTANCE_PROFILE_1_SLICE", 0),
    ("NVML_GPU_INSTANCE_PROFILE_2_SLICE", 1),
    ("NVML_GPU_INSTANCE_PROFILE_3_SLICE", 2),
    ("NVML_GPU_INSTANCE_PROFILE_4_SLICE", 3),
    ("NVML_GPU_INSTANCE_PROFILE_7_SLICE", 4),
    ("NVML_GPU_INSTANCE_PROFILE_8_SLICE", 5),
    ("NVML_GPU_INSTANCE_PROFILE_6_SLICE", 6),
    ("NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1", 7),
    ("NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1", 8),
    ("NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2", 9),
    ("NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX", 10),
    ("NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX", 11),
    ("NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX", 12),
    ("NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME", 13),
    ("NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME", 14),
    ("NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME", 15),
    ("NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME", 16),
    ("NVML_GPU_INSTANCE_PROFILE_CAPS_GFX", 2),
    ("NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE", 0),
    ("NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE", 4),
    ("NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE_NVL", 8),
    ("NVML_COMPUTE_INSTANCE_PROFILE_CAPS_GFX", 1),
    ("NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED", 0),
    ("NVML_DEVICE_ARCH_AMPERE", 7),
    ("NVML_TOPOLOGY_NODE", 40),
    ("NVML_TOPOLOGY_SYSTEM", 50),
    ("NVML_P2P_STATUS_NOT_SUPPORTED", 5),
    ("nvmlEventTypeXidCriticalError", 8),
    ("nvmlEventMigConfigChange", 0x100),
];

/// Each value in each header that has its name; a name that none has is a mistake of ours.
fn compare(expected: &[(String, u64)]) {
    let headers = headers().unwrap_or_else(|reason| panic!("{reason}"));
    let folder = tempfile::tempdir().unwrap();
    let mut seen = vec![false; expected.len()];
    for header in &headers {
        let text = fs::read_to_string(header).unwrap_or_else(|error| panic!("{}: {error}", header.display()));
        let words: std::collections::BTreeSet<&str> =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        // An older header lacks what came later.
        let known = |expression: &str| names(expression).iter().all(|name| words.contains(name));
        let asked: Vec<String> = expected.iter().map(|(name, _)| name.clone()).filter(|name| known(name)).collect();
        let found =
            evaluate(header, folder.path(), &asked).unwrap_or_else(|error| panic!("{}: {error}", header.display()));
        for ((expression, value), seen) in expected.iter().zip(&mut seen) {
            if let Some(found) = found.get(expression) {
                *seen = true;
                assert_eq!(value, found, "{expression} in {}", short(header));
            }
        }
    }
    let missing: Vec<&String> =
        expected.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|((name, _), _)| name).collect();
    assert!(missing.is_empty(), "in no header: {missing:?}");
}

fn names(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| !matches!(*word, "" | "sizeof" | "offsetof")).collect()
}

fn short(header: &Path) -> String {
    header
        .iter()
        .rev()
        .take(4)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect::<std::path::PathBuf>()
        .display()
        .to_string()
}

#[test]
fn the_fakes_structures_are_nvidias() {
    compare(&expressions(fake_nvml::LAYOUTS));
}

#[test]
fn the_products_structures_are_nvidias() {
    compare(&expressions(PRODUCT));
}

#[test]
fn return_codes_and_structure_versions_are_nvidias() {
    let codes = fake_nvml::CODES.iter().map(|(name, code, _)| {
        let prefix = if *name == "SUCCESS" { "NVML_" } else { "NVML_ERROR_" };
        (format!("{prefix}{name}"), u64::from(code.0))
    });
    let versions = fake_nvml::VERSIONS.iter().map(|(name, version)| ((*name).to_owned(), u64::from(*version)));
    compare(&codes.chain(versions).collect::<Vec<_>>());
}

#[test]
fn constants_are_nvidias() {
    compare(&CONSTANTS.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Vec<_>>());
}
