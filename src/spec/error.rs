//! What is wrong with a specification, all of it at once.

use std::fmt;

use crate::input_file::tame_line;

/// One thing wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// Where: `file:line:column`, or the option that said it.
    pub location: Option<String>,
    /// The sentence that says what is wrong and what is allowed.
    pub message: String,
}

impl SpecError {
    /// An error at `location`.
    pub fn at(location: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            location: Some(location.into()),
            message: message.into(),
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever a file has for a key, a value or a name.
        match &self.location {
            Some(location) => f.write_str(&tame_line(&format!("{location}: {}", self.message))),
            None => f.write_str(&tame_line(&self.message)),
        }
    }
}

impl std::error::Error for SpecError {}

/// Everything found wrong with a specification; displays one message per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<SpecError>);

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

impl From<SpecError> for SpecErrors {
    fn from(error: SpecError) -> Self {
        Self(vec![error])
    }
}
