//! What C callers pass: the only places where the library follows a caller's pointer.
//!
//! Each type has a pointer's layout, so entry points take them by value and need no `unsafe` of their own. NULL is
//! answered with INVALID_ARGUMENT, as a driver does; any other pointer is trusted to be what `nvml.h` says, which is
//! all that a C library can do.

use core::ffi::{CStr, c_char};

use crate::{
    code::{Answer, Code},
    handle::Handle,
    resolve::MAX_GPUS,
};

/// Where the callee puts one value, or looks and puts.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

/// Where the callee puts as many values as the function's contract says.
#[repr(transparent)]
pub(crate) struct OutArray<T>(*mut T);

/// Where the callee puts a text with its closing zero.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct OutText(*mut c_char);

/// A text that the caller passes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct InText(*const c_char);

/// Sixteen bytes that the caller passes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct InBytes(*const [u8; 16]);

// By hand: derived, they would ask that T be Copy, and only the pointer is copied.
impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Clone for OutArray<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OutArray<T> {}

impl<T> Out<T> {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn set(self, value: T) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and by the function's contract a T that the caller lets us write; nothing is assumed of
        // its alignment.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }
}

impl<T> Out<T> {
    /// A place that no header vouches for: only one that is aligned, and in memory that this process can write to.
    pub(crate) fn at(address: u64) -> Option<Self> {
        let pointer: *mut T = mapped(address, size_of::<T>() as u64, align_of::<T>() as u64, "rw")?;
        Some(Self(pointer))
    }
}

/// A pointer to what nobody vouches for, when it is aligned and in memory that this process may use so.
fn mapped<T>(address: u64, length: u64, alignment: u64, permissions: &str) -> Option<*mut T> {
    let fits = |line: &str| -> Option<bool> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        Some(start <= address && address.checked_add(length)? <= end && rest.starts_with(permissions))
    };
    if address == 0 || !address.is_multiple_of(alignment) {
        return None;
    }
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let pointer = std::ptr::with_exposed_provenance_mut(usize::try_from(address).ok()?);
    maps.lines().any(|line| fits(line) == Some(true)).then_some(pointer)
}

/// Handles that the caller passes where no header says so.
pub(crate) struct InHandles(Vec<Handle>);

impl InHandles {
    /// As many as there are GPUs at most, from memory that this process can read.
    pub(crate) fn at(address: u64, count: u64) -> Option<Self> {
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_GPUS).contains(count))?;
        let pointer: *mut u64 = mapped(address, (count * size_of::<u64>()) as u64, align_of::<u64>() as u64, "r")?;
        // SAFETY: `mapped` has seen that all of it is aligned and readable; the caller, who waits for the answer, does
        // not write to what it passes, and any bits are a number.
        let words = unsafe { std::slice::from_raw_parts(pointer, count) };
        Some(Self(words.iter().copied().map(Handle::from_word).collect()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Handle> {
        self.0.iter().copied()
    }
}

impl<T: Copy> Out<T> {
    /// For structures that come with a version or a count.
    pub(crate) fn get(self) -> Answer<T> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and by the function's contract an initialised T of plain integers.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

impl<T> Out<T> {
    /// The version that every versioned structure begins with, checked before anything else of it is touched.
    pub(crate) fn version(self) -> Answer<u32> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and by the function's contract a structure that begins with a 32-bit version.
        Ok(unsafe { self.0.cast::<u32>().read_unaligned() })
    }

    /// The same place, when its version says that another structure is there.
    pub(crate) fn as_type<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

impl<T> OutArray<T> {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The caller made room for all of them: the function's contract says how many there can be.
    pub(crate) fn set(self, values: impl Iterator<Item = T>) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        for (position, value) in values.enumerate() {
            // SAFETY: within the array, which by the function's contract has room for every value.
            let place = unsafe { self.0.add(position) };
            // SAFETY: as above; nothing is assumed of its alignment.
            unsafe { place.write_unaligned(value) };
        }
        Ok(())
    }
}

impl<T: Copy> OutArray<T> {
    /// For arrays that come with questions, and go with the answers.
    pub(crate) fn update(self, count: usize, answer: impl Fn(T) -> T) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        for position in 0..count {
            // SAFETY: within the array, which by the function's contract has so many values.
            let place = unsafe { self.0.add(position) };
            // SAFETY: as above, an initialised T of plain integers; nothing is assumed of its alignment.
            let asked = unsafe { place.read_unaligned() };
            // SAFETY: as above.
            unsafe { place.write_unaligned(answer(asked)) };
        }
        Ok(())
    }
}

impl OutText {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// As much of the text as fits with its zero.
    pub(crate) fn set_cropped(self, text: &str, length: u32) -> Answer {
        let room = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(1);
        let mut end = room.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.set(text.get(..end).unwrap_or_default(), length)
    }

    /// Writes nothing when the text and its zero do not fit in `length`.
    pub(crate) fn set(self, text: &str, length: u32) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        if text.len() >= usize::try_from(length).unwrap_or(usize::MAX) {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        let bytes = text.bytes().chain([0]).map(|byte| c_char::from_ne_bytes([byte]));
        OutArray(self.0).set(bytes)
    }
}

impl InBytes {
    pub(crate) fn get(self) -> Answer<[u8; 16]> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and by the function's contract sixteen bytes.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

impl InText {
    pub(crate) fn get<'a>(self) -> Answer<&'a str> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and by the function's contract a text that ends with a zero and outlives the call.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Code::NOT_FOUND)
    }
}

/// A text in a structure's field of fixed size, cut to fit with its zero.
pub(crate) fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    field
}
