//! Planted bugs: what `make mutants` shows the chaos harness to see.
//!
//! A normal build has none: [`planted`] is `false` before the compiler looks at it. Built with `--cfg foldd_mutants`, the
//! variable `FOLDD_MUTANT` names the one that is planted. Bugs of the SQL are planted by the harness itself.

/// Whether this bug is planted.
#[cfg(not(foldd_mutants))]
pub(crate) const fn planted(_bug: &str) -> bool {
    false
}

/// Whether this bug is planted.
#[cfg(foldd_mutants)]
pub(crate) fn planted(bug: &str) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("FOLDD_MUTANT").ok());
    PLANTED.as_deref() == Some(bug)
}
