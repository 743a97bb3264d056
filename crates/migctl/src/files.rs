//! Files that people hand over.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use mig_model::layout::LONGEST_FILE;

use crate::failure::{Exit, Failure};

/// A file's text; `-` is stdin.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let read = |source: &mut dyn Read| {
        let mut bytes = Vec::new();
        source.take(LONGEST_FILE as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = if path == Path::new("-") {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    let bytes = bytes.map_err(|error| Failure::file("read", Path::new(&name), &error))?;
    if bytes.len() > LONGEST_FILE {
        let message = format!("{name} is longer than {} MiB, the most that is read", LONGEST_FILE >> 20);
        return Err(Failure::new(Exit::Usage, "FileTooLong", message).hint("is this the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Failure::new(Exit::Usage, "NotText", format!("{name} is no text: byte {place} is not UTF-8"))
    })
}
