//! What NVML does.
//!
//! Where a statement was measured on a real GPU, its comment says **[M]**; everything else is from NVIDIA's header and
//! documentation and awaits a real GPU's word.

use crate::{bench::Bench, call::Verdict, gpu::Gpu, nvml::Nvml};

mod compute;
mod cut;
mod device;
mod events;
mod h200;
mod library;
mod life;
mod mode;
mod off;
mod profiles;
mod without_mig;

/// Statements about one thing.
pub struct Chapter {
    /// Its name.
    pub name: &'static str,
    /// What a GPU must be for it.
    pub needs: fn(&Gpu) -> Verdict,
    /// What it states.
    pub statements: &'static [Statement],
}

/// One thing that NVML does.
pub struct Statement {
    /// A sentence.
    pub name: &'static str,
    /// How it is tried.
    pub attempt: Try,
}

/// How a statement is tried.
#[derive(Clone, Copy)]
pub enum Try {
    /// On a library that is loaded and no more.
    Library(fn(&Nvml) -> Verdict),
    /// On a GPU, of which it only reads.
    Gpu(fn(&Gpu) -> Verdict),
    /// On an empty GPU, whose MIG mode it changes.
    Mode(fn(&Bench) -> Verdict),
    /// On an empty GPU with MIG on, which it cuts.
    Life(fn(&Bench) -> Verdict),
}

impl Try {
    /// Whether it changes the GPU.
    pub fn changes(self) -> bool {
        matches!(self, Self::Mode(_) | Self::Life(_))
    }
}

/// A chapter's statements, by their functions' names.
macro_rules! statements {
    ($kind:ident: $($name:ident),* $(,)?) => {
        &[$($crate::statements::Statement {
            name: stringify!($name),
            attempt: $crate::statements::Try::$kind($name),
        }),*]
    };
}
use statements;

/// All of them.
pub const CHAPTERS: &[Chapter] = &[
    Chapter { name: "library", needs: |_| Ok(()), statements: library::STATEMENTS },
    Chapter { name: "device", needs: |_| Ok(()), statements: device::STATEMENTS },
    Chapter { name: "events", needs: |_| Ok(()), statements: events::STATEMENTS },
    Chapter { name: "without_mig", needs: Gpu::plain, statements: without_mig::STATEMENTS },
    Chapter { name: "profiles", needs: |gpu| gpu.capable().map(|_| ()), statements: profiles::STATEMENTS },
    Chapter { name: "off", needs: Gpu::off, statements: off::STATEMENTS },
    Chapter { name: "h200", needs: h200::needs, statements: h200::STATEMENTS },
    Chapter { name: "cut", needs: Gpu::cut, statements: cut::STATEMENTS },
    Chapter { name: "mode", needs: |_| Ok(()), statements: mode::STATEMENTS },
    Chapter { name: "life", needs: |_| Ok(()), statements: life::STATEMENTS },
    Chapter { name: "compute", needs: |_| Ok(()), statements: compute::STATEMENTS },
];

/// The statement of this chapter and name: `chapter::name`.
pub fn find(name: &str) -> Option<(&'static Chapter, &'static Statement)> {
    let (chapter, name) = name.split_once("::")?;
    let chapter = CHAPTERS.iter().find(|known| known.name == chapter)?;
    chapter.statements.iter().find(|known| known.name == name).map(|statement| (chapter, statement))
}
