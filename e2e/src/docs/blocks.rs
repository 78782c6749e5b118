//! Blocks of code in Markdown, and what their marks say.

use std::fs;

use anyhow::{Context as _, Result};

use crate::deploy::project;

/// A block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The document's file name.
    pub doc: String,
    /// The line its fence is on, counted from one.
    pub line: usize,
    /// The first word behind the fence; empty if there is none.
    pub language: String,
    /// What becomes of it.
    pub fate: Fate,
    /// What stands in it.
    pub text: String,
    /// What it must print.
    pub seen: Option<String>,
}

/// What becomes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is run with the other blocks of its part, on this host if one is named.
    Run {
        /// The part of the document.
        part: String,
        /// The host.
        host: Option<String>,
    },
    /// The same commands are run where this document has them.
    SameAs(String),
    /// It is not run, for this reason.
    NotRun(String),
    /// It shows what the block before it prints.
    Seen,
    /// Nothing is said.
    Unmarked,
}

/// The blocks of README.md and of every document in `docs`.
///
/// # Errors
/// A file cannot be read, or a mark is not understood.
pub fn all() -> Result<Vec<Block>> {
    let mut names = vec!["README.md".to_owned()];
    for entry in fs::read_dir(project().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap_or_default();
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    let mut blocks = Vec::new();
    for name in names {
        blocks.extend(of(&name)?);
    }
    Ok(blocks)
}

/// The blocks of one document, by its file name.
pub(super) fn of(name: &str) -> Result<Vec<Block>> {
    let folder = if name == "README.md" { "" } else { "docs" };
    let path = project().join(folder).join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    read(name, &text)
}

/// The blocks of a document's text.
///
/// # Errors
/// A mark is not understood, or a block has no end.
pub fn read(doc: &str, text: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(mut block) = open.take() {
            if line.trim_end() != "```" {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            } else if block.fate == Fate::Seen {
                let former = blocks.last_mut();
                let former = former.filter(|former| former.seen.is_none() && former.fate.is_run());
                former
                    .with_context(|| format!("{doc}:{}: nothing prints this", block.line))?
                    .seen = Some(block.text);
            } else {
                blocks.push(block);
            }
        } else if let Some(words) = line.strip_prefix("```") {
            let (language, marks) = words.trim().split_once(' ').unwrap_or((words.trim(), ""));
            let fate = fate(marks.trim()).with_context(|| format!("{doc}:{number}: {marks:?}"))?;
            open = Some(Block {
                doc: doc.to_owned(),
                line: number,
                language: language.to_owned(),
                fate,
                text: String::new(),
                seen: None,
            });
        }
    }
    anyhow::ensure!(open.is_none(), "{doc}: a block has no end");
    Ok(blocks)
}

impl Fate {
    const fn is_run(&self) -> bool {
        matches!(self, Self::Run { .. })
    }
}

fn fate(marks: &str) -> Result<Fate> {
    if marks.is_empty() {
        return Ok(Fate::Unmarked);
    }
    if marks == "seen" {
        return Ok(Fate::Seen);
    }
    let (name, value) = marks.split_once('=').context("no mark of ours")?;
    match name {
        "not-run" => {
            let why = value
                .strip_prefix('"')
                .and_then(|why| why.strip_suffix('"'));
            let why = why.filter(|why| !why.is_empty());
            Ok(Fate::NotRun(why.context("no reason in quotes")?.to_owned()))
        }
        "same-as" => Ok(Fate::SameAs(value.to_owned())),
        "lab" => {
            let (part, host) = match value.split_once(' ') {
                None => (value, None),
                Some((part, rest)) => {
                    let host = rest.trim().strip_prefix("on=").context("no host")?;
                    (part, Some(host.to_owned()))
                }
            };
            let part = part.to_owned();
            Ok(Fate::Run { part, host })
        }
        _ => anyhow::bail!("no mark of ours"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_what_is_seen_are_read() {
        let text = "# a\n```sh lab=one on=n1\nls\n```\n\n```text seen\nb\n```\n```sh not-run=\"far away\"\nc\n```\n\
                    ```sh same-as=b.md\nd\n```\n```yaml\ne: f\n```\n";
        let blocks = read("a.md", text).unwrap();
        let run = Fate::Run {
            part: "one".into(),
            host: Some("n1".into()),
        };
        assert_eq!(
            blocks
                .iter()
                .map(|block| block.fate.clone())
                .collect::<Vec<_>>(),
            [
                run,
                Fate::NotRun("far away".into()),
                Fate::SameAs("b.md".into()),
                Fate::Unmarked
            ]
        );
        assert_eq!(blocks[0].seen.as_deref(), Some("b\n"));
        assert_eq!((blocks[0].line, blocks[0].text.as_str()), (2, "ls\n"));
        assert_eq!(blocks[3].language, "yaml");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            "```sh run=a\n```\n",
            "```sh not-run=\n```\n",
            "```sh not-run=\"\"\n```\n",
            "```sh lab=a at=n1\n```\n",
            "```text seen\nnobody printed it\n```\n",
            "```sh\nno end\n",
        ] {
            assert!(read("a.md", wrong).is_err(), "{wrong}");
        }
    }
}
