//! One round of a reconciler: what fails for one row is no reason to leave the others undone.

use crate::error::Error;

/// Logs every failure and keeps the first.
#[derive(Default)]
pub struct Round {
    first: Option<Error>,
}

impl Round {
    /// Takes note of how one row went.
    pub fn note(&mut self, what: &'static str, result: Result<(), Error>) {
        if let Err(error) = result {
            let cause: &dyn std::error::Error = &error;
            tracing::warn!(what, error = cause, "one row of a round failed; the others go on");
            self.first.get_or_insert(error);
        }
    }

    /// Whether there was anything to do.
    ///
    /// # Errors
    /// The round's first.
    pub fn end(self, found: bool) -> Result<bool, Error> {
        match self.first {
            Some(error) => Err(error),
            None => Ok(found),
        }
    }
}
