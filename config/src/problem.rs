//! What is wrong with a configuration: where, what, and what to do about it.

use std::fmt;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where: the path of the value, as `address-pools[1].addresses[0]` (lists count from 0).
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What the operator can do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem at `place`.
    pub fn new(
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// `place: what; remedy`, always one line: control characters in quoted texts are shown escaped.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, ": ", &self.what, "; ", &self.remedy] {
            for character in part.chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
        }
        Ok(())
    }
}

/// A configuration that is not taken, with every problem found in it; never without one.
///
/// Displayed as one line for each problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refused(Vec<Problem>);

impl Refused {
    /// Refuses for these problems; `Ok` if there are none.
    pub fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }

    /// The problems, in the order of the document; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each_whatever_the_text() {
        let refused = Refused(vec![
            Problem::new("a", "b\nc", "d"),
            Problem::new("e", "f", "g\u{1b}"),
        ]);
        assert_eq!(refused.to_string(), "a: b\\nc; d\ne: f; g\\u{1b}");
    }

    #[test]
    fn no_problem_is_no_refusal() {
        assert_eq!(Refused::unless_empty(Vec::new()), Ok(()));
    }
}
