//! A GPU that has no MIG.

use super::{Statement, statements};
use crate::{call::Verdict, code::Code, gpu::Gpu};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:
    its_mode_is_not_supported,
    it_can_have_no_mig_devices,
    it_has_no_profiles,
];

fn its_mode_is_not_supported(gpu: &Gpu) -> Verdict {
    gpu.nvml.mig_mode(gpu.device).returns(Code::NOT_SUPPORTED)
}

fn it_can_have_no_mig_devices(gpu: &Gpu) -> Verdict {
    gpu.nvml.max_mig_devices(gpu.device).gives(0)?;
    gpu.nvml.mig_device(gpu.device, 0).returns_one_of(&[Code::NOT_SUPPORTED, Code::NOT_FOUND, Code::INVALID_ARGUMENT])
}

fn it_has_no_profiles(gpu: &Gpu) -> Verdict {
    (0..17).try_for_each(|index| gpu.nvml.gpu_profile(gpu.device, index).returns(Code::NOT_SUPPORTED))
}
