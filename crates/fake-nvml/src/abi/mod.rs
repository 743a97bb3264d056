//! The entry points, by what they are about. Each names the way in ([`crate::session`]) and says what it answers.
//!
//! A function of the driver's that is in none of these files gets a stub from `build.rs`.
#![allow(unreachable_pub, missing_docs, non_snake_case, reason = "these are NVML's own names, documented in nvml.h")]

macro_rules! entry_points {
    ($(fn $name:ident($($argument:ident: $ty:ty),* $(,)?) => $way:ident($($rest:tt)*);)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $ty),*) -> crate::code::Code {
            $way(crate::function::Function::$name, $($rest)*)
        }
    )*};
}

mod compute;
mod device;
mod event;
mod instance;
mod mig;
mod process;
mod system;
mod table;
mod vitals;

mod stubs {
    use crate::{handle::Handle, session::unsupported};
    include!(concat!(env!("OUT_DIR"), "/stubs.rs"));
}
