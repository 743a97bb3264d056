//! To come.

use super::{Statement, statements};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:];
