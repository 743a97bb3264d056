//! The library and the machine as a whole.

use core::ffi::c_char;

use crate::{
    arguments::{Out, OutText},
    code::Code,
    session::{init, on_node, shutdown},
};

/// Of no device, hence outside the usual way in: it answers before `nvmlInit` too.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: Code) -> *const c_char {
    code.text().as_ptr()
}

entry_points! {
    fn nvmlInit() => init();
    fn nvmlInit_v2() => init();
    fn nvmlInitWithFlags(_flags: u32) => init();
    fn nvmlShutdown() => shutdown();

    fn nvmlSystemGetDriverVersion(version: OutText, length: u32) =>
        on_node(|world| version.set(&world.driver, length));
    fn nvmlSystemGetNVMLVersion(version: OutText, length: u32) =>
        on_node(|world| version.set(&world.nvml, length));
    fn nvmlSystemGetCudaDriverVersion(version: Out<i32>) => on_node(|world| version.set(world.cuda));
    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<i32>) => on_node(|world| version.set(world.cuda));
    fn nvmlUnitGetCount(count: Out<u32>) => on_node(|_| count.set(0));
    fn nvmlGetExcludedDeviceCount(count: Out<u32>) => on_node(|_| count.set(0));
    fn nvmlGetBlacklistDeviceCount(count: Out<u32>) => on_node(|_| count.set(0));
}
