//! The shapes that NVML's functions have.

use std::ffi::c_char;
use std::mem::{MaybeUninit, size_of};
use std::time::Instant;

use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings as nvml;

use super::{Object, Session};
use crate::error::DriverError;

/// The longest text that NVML gives (`NVML_DEVICE_UUID_V2_BUFFER_SIZE` and its like are 96 or less).
const TEXT: usize = 96;

/// The longest name of a process.
const PATH: usize = 4096;

/// What the loader made of a function's name: an older library may lack it.
pub(super) type Symbol<F, E> = Result<F, E>;

pub(super) type Fill<H, T> = unsafe extern "C" fn(H, *mut T) -> u32;
pub(super) type FillBy<H, T> = unsafe extern "C" fn(H, u32, *mut T) -> u32;
pub(super) type FillTwo<H, T> = unsafe extern "C" fn(H, *mut T, *mut T) -> u32;
pub(super) type FillList<H, T> = unsafe extern "C" fn(H, u32, *mut T, *mut u32) -> u32;
pub(super) type FillText<H> = unsafe extern "C" fn(H, *mut c_char, u32) -> u32;
pub(super) type Act<H> = unsafe extern "C" fn(H) -> u32;

/// What NVML fills.
///
/// # Safety
///
/// All bytes zero is a value of it. All of them are C structs of numbers, characters and handles, which are never followed.
pub(super) unsafe trait Plain: Copy {
    fn zero() -> Self {
        // SAFETY: whoever implements this trait says that all bytes zero is a value.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }
}

macro_rules! plain {
    ($($name:ty),* $(,)?) => {$(
        // SAFETY: numbers, arrays of characters and raw pointers only, as the bindings declare it.
        unsafe impl Plain for $name {}
    )*};
}

plain!(
    i32,
    u32,
    u64,
    nvml::nvmlDevice_t,
    nvml::nvmlEventSet_t,
    nvml::nvmlEventData_t,
    nvml::nvmlFieldValue_t,
    nvml::nvmlGpuInstance_t,
    nvml::nvmlComputeInstance_t,
    nvml::nvmlPciInfo_t,
    nvml::nvmlMemory_t,
    nvml::nvmlMemory_v2_t,
    nvml::nvmlDeviceAttributes_t,
    nvml::nvmlGpuInstanceInfo_t,
    nvml::nvmlGpuInstancePlacement_t,
    nvml::nvmlGpuInstanceProfileInfo_t,
    nvml::nvmlGpuInstanceProfileInfo_v2_t,
    nvml::nvmlComputeInstanceInfo_t,
    nvml::nvmlComputeInstancePlacement_t,
    nvml::nvmlComputeInstanceProfileInfo_t,
    nvml::nvmlProcessInfo_t,
);

/// The function, or the error for a library without it.
pub(super) fn present<F: Copy, E>(symbol: &Symbol<F, E>) -> Result<F, NvmlError> {
    symbol.as_ref().map(|function| *function).map_err(|_| NvmlError::FunctionNotFound)
}

/// What stands before the first NUL, or all of it; a driver's text is never trusted to end, to be UTF-8, to be one line,
/// or to be read from left to right.
pub(super) fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.cast_unsigned()).take_while(|b| *b != 0).collect();
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    String::from_utf8_lossy(&bytes).replace(|c: char| c.is_control() || turns(c), "\u{fffd}")
}

/// `NVML_STRUCT_VERSION`: the size below, the version in the top byte.
#[expect(clippy::cast_possible_truncation, reason = "NVML's structs are some hundred bytes long")]
pub(super) const fn versioned<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | version << 24
}

#[expect(clippy::cast_possible_truncation, reason = "the buffers are some thousand bytes long")]
const fn length<const N: usize>(_: &[c_char; N]) -> u32 {
    N as u32
}

impl Session {
    /// Makes one call of NVML. Every call goes through here: it is timed, and its error says what it was.
    pub(super) fn timed<T>(
        &self,
        call: &'static str,
        gpu: Option<u32>,
        make: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<T, DriverError> {
        let began = Instant::now();
        let answer = make();
        self.metrics.answered(call, began.elapsed(), answer.as_ref().err());
        answer.map_err(|source| DriverError::Call { call, gpu, source })
    }

    pub(super) fn text<E>(
        &self,
        name: &'static str,
        function: &Symbol<unsafe extern "C" fn(*mut c_char, u32) -> u32, E>,
    ) -> Result<String, DriverError> {
        let mut buffer = [0; TEXT];
        let call = |buffer: &mut [c_char; TEXT]| {
            let function = present(function)?;
            let length = length(buffer);
            // SAFETY: NVML is started; the pointer is to `length` writable characters.
            nvml_try(unsafe { function(buffer.as_mut_ptr(), length) })
        };
        self.timed(name, None, || call(&mut buffer))?;
        Ok(text(&buffer))
    }

    /// What a process is called.
    pub(crate) fn process_name(&self, pid: u32) -> Result<String, DriverError> {
        let mut buffer = [0; PATH];
        let call = |buffer: &mut [c_char; PATH]| {
            let function = present(&self.functions().nvmlSystemGetProcessName)?;
            let length = length(buffer);
            // SAFETY: NVML is started; the pointer is to `length` writable characters.
            nvml_try(unsafe { function(pid, buffer.as_mut_ptr(), length) })
        };
        self.timed("nvmlSystemGetProcessName", None, || call(&mut buffer))?;
        Ok(text(&buffer))
    }
}

/// Each of these is told by the type of `function` what it takes and fills, and `raw` came from this session, which is
/// alive as long as `self` is. Handles that a change has invalidated are NVML's to refuse.
impl<H: Copy> Object<'_, H> {
    /// Makes one call about this.
    pub(super) fn timed<T>(
        &self,
        call: &'static str,
        make: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<T, DriverError> {
        let gpu = (self.gpu != u32::MAX).then_some(self.gpu);
        self.session.timed(call, gpu, make)
    }

    /// A function that fills one thing.
    pub(super) fn fill<T: Plain, E>(
        &self,
        name: &'static str,
        function: &Symbol<Fill<H, T>, E>,
    ) -> Result<T, DriverError> {
        self.fill_from(name, function, T::zero())
    }

    /// A function that fills one thing which says first of what version it is.
    pub(super) fn fill_from<T: Plain, E>(
        &self,
        name: &'static str,
        function: &Symbol<Fill<H, T>, E>,
        mut value: T,
    ) -> Result<T, DriverError> {
        let call = || {
            let function = present(function)?;
            // SAFETY: see the impl; the pointer is to a live, writable T.
            nvml_try(unsafe { function(self.raw, &raw mut value) })
        };
        self.timed(name, call)?;
        Ok(value)
    }

    /// A function that fills one thing, by its number.
    pub(super) fn fill_by<T: Plain, E>(
        &self,
        name: &'static str,
        function: &Symbol<FillBy<H, T>, E>,
        which: u32,
    ) -> Result<T, DriverError> {
        self.fill_by_from(name, function, which, T::zero())
    }

    /// A function that fills one thing, by its number, which says first of what version it is.
    pub(super) fn fill_by_from<T: Plain, E>(
        &self,
        name: &'static str,
        function: &Symbol<FillBy<H, T>, E>,
        which: u32,
        mut value: T,
    ) -> Result<T, DriverError> {
        let call = || {
            let function = present(function)?;
            // SAFETY: see the impl; the pointer is to a live, writable T.
            nvml_try(unsafe { function(self.raw, which, &raw mut value) })
        };
        self.timed(name, call)?;
        Ok(value)
    }

    /// A function that fills two things.
    pub(super) fn fill_two<T: Plain, E>(
        &self,
        name: &'static str,
        function: &Symbol<FillTwo<H, T>, E>,
    ) -> Result<(T, T), DriverError> {
        let (mut one, mut two) = (T::zero(), T::zero());
        let call = || {
            let function = present(function)?;
            // SAFETY: see the impl; both pointers are to live, writable Ts.
            nvml_try(unsafe { function(self.raw, &raw mut one, &raw mut two) })
        };
        self.timed(name, call)?;
        Ok((one, two))
    }

    /// A function that fills a list whose length NVML bounds by `room`, and says how long it got.
    pub(super) fn fill_list<T: Plain, E>(
        &self,
        name: &'static str,
        function: &Symbol<FillList<H, T>, E>,
        which: u32,
        room: u32,
    ) -> Result<Vec<T>, DriverError> {
        let mut list = vec![T::zero(); usize::try_from(room).unwrap_or_default()];
        let mut count = room;
        let call = || {
            let function = present(function)?;
            // SAFETY: see the impl; the list has room for `room` Ts, which is as many as NVML says that this function
            // fills at most, and `count` says so to those that look; it is live and writable.
            nvml_try(unsafe { function(self.raw, which, list.as_mut_ptr(), &raw mut count) })
        };
        self.timed(name, call)?;
        if count > room {
            return Err(DriverError::Implausible { what: "things in a list that has fewer", count });
        }
        list.truncate(usize::try_from(count).unwrap_or_default());
        Ok(list)
    }

    /// A function that fills a text.
    pub(super) fn fill_text<E>(
        &self,
        name: &'static str,
        function: &Symbol<FillText<H>, E>,
    ) -> Result<String, DriverError> {
        let mut buffer = [0; TEXT];
        let call = |buffer: &mut [c_char; TEXT]| {
            let function = present(function)?;
            let length = length(buffer);
            // SAFETY: see the impl; the pointer is to `length` writable characters.
            nvml_try(unsafe { function(self.raw, buffer.as_mut_ptr(), length) })
        };
        self.timed(name, || call(&mut buffer))?;
        Ok(text(&buffer))
    }

    /// A function that does something.
    pub(super) fn act<E>(&self, name: &'static str, function: &Symbol<Act<H>, E>) -> Result<(), DriverError> {
        let call = || {
            let function = present(function)?;
            // SAFETY: see the impl; it takes nothing else.
            nvml_try(unsafe { function(self.raw) })
        };
        self.timed(name, call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_text_is_one_line_from_left_to_right() {
        let said = |bytes: &[u8]| text(&bytes.iter().map(|b| b.cast_signed()).collect::<Vec<c_char>>());
        assert_eq!(said(b"NVIDIA H200\0rest"), "NVIDIA H200");
        assert_eq!(said(b"no end"), "no end");
        assert_eq!(said("a\nb\u{1b}[31m\u{202e}c".as_bytes()), "a\u{fffd}b\u{fffd}[31m\u{fffd}c");
        assert_eq!(said(b"\xff"), "\u{fffd}");
    }
}
