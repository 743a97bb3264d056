//! The library as a whole, before and after `nvmlInit`.

use super::{Statement, statements};
use crate::{
    call::{Verdict, broken, equal, holds},
    code::Code,
    facts,
    gpu::TEXT,
    nvml::Nvml,
};

pub(super) const STATEMENTS: &[Statement] = statements![Library:
    before_init_every_call_returns_uninitialized,
    init_and_shutdown_are_counted,
    after_the_last_shutdown_it_can_be_initialized_again,
    init_with_no_flags_is_init,
    return_codes_have_the_drivers_texts,
    versions_of_driver_nvml_and_cuda_agree,
    a_text_buffer_without_room_for_the_end_is_too_small,
    null_for_a_result_is_an_invalid_argument,
    there_are_as_many_handles_as_gpus,
    an_index_beyond_the_gpus_is_an_invalid_argument,
    an_unknown_uuid_is_not_found,
];

fn before_init_every_call_returns_uninitialized(nvml: &Nvml) -> Verdict {
    // The header lets nvmlSystemGetNVMLVersion and nvmlSystemGetCudaDriverVersion answer at any time.
    nvml.count().returns(Code::UNINITIALIZED)?;
    nvml.by_index(0).returns(Code::UNINITIALIZED)?;
    nvml.by_uuid("GPU-00000000-0000-0000-0000-000000000000").returns(Code::UNINITIALIZED)?;
    nvml.by_pci("00000000:00:00.0").returns(Code::UNINITIALIZED)?;
    nvml.driver_version(TEXT).returns(Code::UNINITIALIZED)?;
    nvml.create_event_set().returns(Code::UNINITIALIZED)?;
    nvml.shutdown().returns(Code::UNINITIALIZED)
}

fn init_and_shutdown_are_counted(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    nvml.init().value()?;
    nvml.shutdown().value()?;
    nvml.count().value()?;
    nvml.shutdown().value()?;
    nvml.count().returns(Code::UNINITIALIZED)?;
    nvml.shutdown().returns(Code::UNINITIALIZED)
}

fn after_the_last_shutdown_it_can_be_initialized_again(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    let before = nvml.count().value()?;
    nvml.shutdown().value()?;
    nvml.init().value()?;
    nvml.count().gives(before)
}

fn init_with_no_flags_is_init(nvml: &Nvml) -> Verdict {
    nvml.init_with_flags(0).value()?;
    nvml.count().value()?;
    nvml.shutdown().value()
}

/// **[M]**, and without `nvmlInit`.
fn return_codes_have_the_drivers_texts(nvml: &Nvml) -> Verdict {
    for (code, text) in facts::h200()?.error_strings {
        // Newer drivers have more codes.
        if !matches!(code, 31..999) {
            equal(format!("nvmlErrorString on {code}"), nvml.error_string(Code(code)), Some(text))?;
        }
    }
    let unknown = nvml.error_string(Code(998));
    equal("nvmlErrorString on 998, which no code has", unknown, Some("Unknown Error".to_owned()))
}

/// **[M]**: 580.159.04, 13.580.159.04, 13000. The last is that of the CUDA library, which may be newer than the driver.
fn versions_of_driver_nvml_and_cuda_agree(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    let driver = nvml.driver_version(TEXT).value()?;
    let parts: Vec<&str> = driver.split('.').collect();
    let numbers = parts.iter().all(|part| part.parse::<u32>().is_ok());
    let three = numbers && matches!(parts.len(), 2 | 3);
    holds(format!("nvmlSystemGetDriverVersion: {driver:?} is two or three numbers"), three)?;
    let version = nvml.nvml_version(TEXT).value()?;
    let major = version.strip_suffix(&driver).and_then(|rest| rest.strip_suffix('.')?.parse::<i32>().ok());
    let Some(major) = major else {
        return broken(format!("nvmlSystemGetNVMLVersion: expected a number and {driver:?}, got {version:?}"));
    };
    let cuda = nvml.cuda_version().value()?;
    holds(format!("nvmlSystemGetCudaDriverVersion_v2: {cuda} is of version {major} or later"), cuda / 1000 >= major)
}

fn a_text_buffer_without_room_for_the_end_is_too_small(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    let length = |text: String| u32::try_from(text.len()).unwrap_or(u32::MAX);
    let driver = length(nvml.driver_version(TEXT).value()?);
    nvml.driver_version(driver).returns(Code::INSUFFICIENT_SIZE)?;
    nvml.driver_version(driver + 1).value()?;
    let version = length(nvml.nvml_version(TEXT).value()?);
    nvml.nvml_version(version).returns(Code::INSUFFICIENT_SIZE)?;
    nvml.nvml_version(version + 1).value()?;
    Ok(())
}

fn null_for_a_result_is_an_invalid_argument(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    nvml.nulls().into_iter().try_for_each(|call| call.on("NULL").returns(Code::INVALID_ARGUMENT))
}

fn there_are_as_many_handles_as_gpus(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    let count = nvml.count().value()?;
    let mut handles = Vec::new();
    for index in 0..count {
        let device = nvml.by_index(index).value()?;
        holds(format!("index {index} has a handle of its own"), !handles.contains(&device))?;
        nvml.index(device).on(format_args!("the handle of {index}")).gives(index)?;
        handles.push(device);
    }
    nvml.by_index(count).returns(Code::INVALID_ARGUMENT)
}

/// **[M]** for 99.
fn an_index_beyond_the_gpus_is_an_invalid_argument(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    nvml.by_index(99).returns(Code::INVALID_ARGUMENT)?;
    nvml.by_index(u32::MAX).returns(Code::INVALID_ARGUMENT)
}

/// **[M]**: malformed or unknown, a GPU's or a MIG device's, even empty.
fn an_unknown_uuid_is_not_found(nvml: &Nvml) -> Verdict {
    nvml.init().value()?;
    let unknown =
        ["GPU-00000000-0000-0000-0000-000000000000", "MIG-00000000-0000-0000-0000-000000000000", "nonsense", ""];
    unknown.iter().try_for_each(|uuid| nvml.by_uuid(uuid).returns(Code::NOT_FOUND))
}
