//! A test case: a name, what to run, and how it says that it cannot run here. Owns the type that every part of
//! `cargo xtask test` adds its cases with; runs nothing itself.

use std::fmt;

/// One case of `cargo xtask test`. `run` prints nothing: what a reader needs on failure goes into the error.
pub struct Case {
    /// `group/what/with-what`, without spaces: what `--only` matches and the report prints.
    pub name: String,
    /// Runs the case. An error is a failure, except [`LeftOut`], which says that this machine cannot run it.
    /// Cases run at the same time as others, so each keeps its files in a folder of its own.
    pub run: Box<dyn Fn() -> anyhow::Result<()> + Send + Sync>,
}

impl Case {
    /// A case of this name that runs `run`.
    pub fn new(name: impl Into<String>, run: impl Fn() -> anyhow::Result<()> + Send + Sync + 'static) -> Case {
        Case { name: name.into(), run: Box::new(run) }
    }
}

/// Returned as an error by a case that cannot run on this machine: `return Err(LeftOut::because("no qemu"))`.
#[derive(Debug)]
pub struct LeftOut(pub String);

impl LeftOut {
    /// The error that leaves a case out; `reason` says what is missing and how to get it.
    pub fn because(reason: impl Into<String>) -> anyhow::Error {
        LeftOut(reason.into()).into()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LeftOut {}
