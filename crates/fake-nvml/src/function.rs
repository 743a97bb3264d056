//! The functions that the library exports, by number: counters and faults are kept per function.

include!(concat!(env!("OUT_DIR"), "/functions.rs"));

impl Function {
    /// Its number, smaller than the length of [`NAMES`].
    pub(crate) const fn number(self) -> usize {
        self as usize
    }
}

/// The number of the function with this name.
pub(crate) fn number_of(name: &str) -> Option<usize> {
    NAMES.binary_search(&name).ok()
}
