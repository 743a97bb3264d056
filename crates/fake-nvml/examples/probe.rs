//! A client for the tests: loads the library it is given, then does what each line on its standard input says.
//!
//! A line is a function and its arguments: `u:5` a number, `s:text` a text, `h:name` a handle kept before, `null`;
//! `hs:a,b` handles in an array, `p:start,size` a placement, `o` a number to be filled, `c:N` one that is N before, `l` a 64-bit one, `t` a text,
//! `oh:name` a handle that is kept, `b` a large zeroed structure, `v:N` one whose version is N, `w:skip,count` one of which
//! `count` 32-bit words are told after `skip`, `x:hex` bytes. `table:N` in a function's place is the Nth entry of the table that
//! is kept as `table`. The answer is the return code and what was filled.
#![allow(unsafe_code, reason = "it calls C functions by name")]
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program: any failure is the test's"
)]

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io::{BufRead, stdin},
};

type Call = unsafe extern "C" fn(u64, u64, u64, u64, u64) -> u32;

const ROOM: usize = 4096;

/// An entry of the table at this address: its size in bytes, or a function.
fn entry(table: u64, place: usize) -> Call {
    let table = std::ptr::with_exposed_provenance::<usize>(table.try_into().unwrap());
    // SAFETY: the library has just given this table out; its first word is its size.
    let size = unsafe { table.read() };
    assert!(place * 8 < size, "the table ends at {size}");
    // SAFETY: within the table, whose other words are functions.
    let function = unsafe { table.add(place).cast::<Call>() };
    // SAFETY: as above.
    unsafe { function.read() }
}

fn pair(text: &str) -> (u64, u64) {
    let (one, two) = text.split_once(',').unwrap();
    (one.parse().unwrap(), two.parse().unwrap())
}

fn main() {
    let path = std::env::args_os().nth(1).expect("the path of a library");
    // SAFETY: the library under test; loading it runs no code of its own.
    let library = unsafe { libloading::Library::new(path) }.expect("the library loads");
    let mut handles: HashMap<String, u64> = HashMap::new();
    for line in stdin().lock().lines() {
        let line = line.unwrap();
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let call = match name.strip_prefix("table:") {
            Some(place) => entry(handles["table"], place.parse().unwrap()),
            // SAFETY: every function of NVML's that the tests name takes at most five integers or pointers.
            None => match unsafe { library.get::<Call>(name) } {
                Ok(call) => *call,
                Err(_) => {
                    println!("missing");
                    continue;
                }
            },
        };
        let kinds: Vec<&str> = words.collect();
        let mut buffers: Vec<Vec<u64>> = kinds.iter().map(|_| vec![0; ROOM / 8]).collect();
        let mut values = [0; 5];
        for ((kind, buffer), value) in kinds.iter().zip(&mut buffers).zip(&mut values) {
            *value = match kind.split_once(':') {
                Some(("u", number)) => number.parse().unwrap(),
                Some(("h", name)) => handles.get(name).copied().unwrap_or(0xdead_beef),
                Some(("hs", names)) => {
                    let known = names.split(',').map(|name| handles.get(name).copied().unwrap_or(0xdead_beef));
                    buffer.iter_mut().zip(known).for_each(|(place, handle)| *place = handle);
                    buffer.as_mut_ptr() as u64
                }
                Some(("s", text)) => CString::new(text).unwrap().into_raw() as u64,
                Some(("v" | "c", number)) => {
                    buffer[0] = number.parse().unwrap();
                    buffer.as_mut_ptr() as u64
                }
                Some(("x", hex)) => {
                    let byte = |place: usize| u64::from_str_radix(&hex[place * 2..place * 2 + 2], 16).unwrap();
                    (0..hex.len() / 2).for_each(|place| buffer[place / 8] |= byte(place) << (place % 8 * 8));
                    buffer.as_mut_ptr() as u64
                }
                Some(("p", place)) => {
                    let (start, size) = pair(place);
                    buffer[0] = start | size << 32;
                    buffer.as_mut_ptr() as u64
                }
                _ if *kind == "null" => 0,
                _ => buffer.as_mut_ptr() as u64,
            };
        }
        let [a, b, c, d, e] = values;
        // SAFETY: each pointer is to ROOM bytes of ours or to a text of ours, and NVML writes less.
        let code = unsafe { call(a, b, c, d, e) };
        let mut answer = code.to_string();
        for (kind, buffer) in kinds.iter().zip(&buffers) {
            match *kind {
                "o" => answer.push_str(&format!(" {}", buffer[0] & 0xffff_ffff)),
                "l" => answer.push_str(&format!(" {}", buffer[0])),
                "t" => {
                    // SAFETY: zeroed before the call, and shorter than the buffer.
                    let text = unsafe { CStr::from_ptr(buffer.as_ptr().cast()) };
                    answer.push_str(&format!(" {}", text.to_string_lossy()));
                }
                kind if kind.starts_with("c:") => answer.push_str(&format!(" {}", buffer[0] & 0xffff_ffff)),
                kind if kind.starts_with("w:") => {
                    let (skip, count) = pair(&kind[2..]);
                    let words = buffer.iter().flat_map(|both| [both & 0xffff_ffff, both >> 32]);
                    let told = words.skip(skip.try_into().unwrap()).take(count.try_into().unwrap());
                    told.for_each(|word| answer.push_str(&format!(" {word}")));
                }
                kind => {
                    if let (Some(name), 0) = (kind.strip_prefix("oh:"), code) {
                        handles.insert(name.to_owned(), buffer[0]);
                    }
                }
            }
        }
        println!("{answer}");
    }
}
