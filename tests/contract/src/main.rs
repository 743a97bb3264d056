//! Holds a library to the contract: `contract --library /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1`.
//!
//! It needs nothing but itself, the library and a GPU. What changes the GPU is left out unless `--writable` is given.

use std::process::ExitCode;

use clap::Parser as _;
use contract::{
    harness::{Options, Target, child, say},
    statements::CHAPTERS,
};

fn main() -> ExitCode {
    let mut options = Options::parse();
    if let Some(code) = child(&options, None) {
        return code;
    }
    let Some(library) = options.library else {
        say("no library: give --library PATH, for instance /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        return ExitCode::FAILURE;
    };
    let target = Target::real(library, options.gpu, options.writable);
    // Without a library and a GPU every statement would fail for the same reason, or be left out.
    if !options.tests.list && !target.describe() {
        return ExitCode::FAILURE;
    }
    if options.writable {
        // There is one GPU.
        options.tests.test_threads = Some(1);
    }
    let mut trials = Vec::new();
    for chapter in CHAPTERS {
        trials.extend(chapter.statements.iter().map(|statement| target.trial(chapter, statement, |_| ())));
    }
    libtest_mimic::run(&options.tests, trials).exit_code()
}
