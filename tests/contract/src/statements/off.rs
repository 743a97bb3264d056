//! A GPU whose MIG mode is off. All of it **[M]**, on one H200.

use super::{Statement, statements};
use crate::{call::Verdict, code::Code, gpu::Gpu};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:
    nothing_is_pending,
    it_can_have_no_mig_devices,
    no_mig_device_is_found,
    no_gpu_instance_is_found,
    gpu_instances_are_listed_and_there_are_none,
    as_many_remain_as_there_may_be,
];

fn nothing_is_pending(gpu: &Gpu) -> Verdict {
    gpu.nvml.mig_mode(gpu.device).gives((0, 0))
}

fn it_can_have_no_mig_devices(gpu: &Gpu) -> Verdict {
    gpu.nvml.max_mig_devices(gpu.device).gives(0)
}

fn no_mig_device_is_found(gpu: &Gpu) -> Verdict {
    gpu.nvml.mig_device(gpu.device, 0).returns(Code::NOT_FOUND)
}

fn no_gpu_instance_is_found(gpu: &Gpu) -> Verdict {
    gpu.nvml.gpu_instance(gpu.device, 0).returns(Code::NOT_FOUND)
}

/// The header has NOT_SUPPORTED.
fn gpu_instances_are_listed_and_there_are_none(gpu: &Gpu) -> Verdict {
    let offers = gpu.offers()?;
    offers.iter().try_for_each(|offer| gpu.nvml.gpu_instances(gpu.device, offer.profile.id).gives(Vec::new()))
}

/// The header has NOT_SUPPORTED.
fn as_many_remain_as_there_may_be(gpu: &Gpu) -> Verdict {
    let offers = gpu.offers()?;
    offers.iter().try_for_each(|offer| gpu.nvml.remaining(gpu.device, offer.profile.id).gives(offer.profile.instances))
}
