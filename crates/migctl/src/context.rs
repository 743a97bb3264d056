use crate::args::Options;
use crate::output::Output;

/// What every verb needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) options: Options,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(options: Options) -> Self {
        Self { output: Output::new(&options), options }
    }
}
