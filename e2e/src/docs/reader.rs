//! A reader at their own machine: a host of the lab's LAN, a shell, kubectl, helm, the project's folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::blocks::{Block, Fate, of};
use crate::Lab;
use crate::artifact;
use crate::deploy::{PATIENCE, chart::Helm, project};

/// What the documents say, and what stands for it in the lab: the LAN, and an application's image.
const INSTEAD: [(&str, &str); 2] = [
    ("192.168.1.", "192.168.99."),
    ("gcr.io/google-samples/hello-app:1.0", artifact::ECHO_IMAGE),
];
/// What the documents name of the project's folder.
const FOLDERS: [&str; 3] = ["config", "docs", "e2e"];
/// Seconds a block may take: only to catch what hangs.
const LIMIT: &str = "400";
/// What variables one block leaves to the next.
const BETWEEN: &str = "variables";

/// Runs every block of one part of a document, in order, and returns what they print.
///
/// # Errors
/// There is none, one fails, or one does not print what it should; the error says which and what it printed.
pub fn follow(lab: &Lab, doc: &str, part: &str) -> Result<String> {
    let blocks: Vec<_> = of(doc)?
        .into_iter()
        .filter(|block| matches!(&block.fate, Fate::Run { part: of, .. } if of == part))
        .collect();
    ensure!(!blocks.is_empty(), "{doc} has no part {part}");
    let reader = Reader::sit_down(lab, &blocks)?;
    let mut printed = String::new();
    for block in blocks {
        printed += &reader.enter(&block)?;
    }
    Ok(printed)
}

struct Reader<'a> {
    lab: &'a Lab,
    room: PathBuf,
}

impl<'a> Reader<'a> {
    /// Puts within reach what the blocks call.
    fn sit_down(lab: &'a Lab, blocks: &[Block]) -> Result<Self> {
        let room = lab.directory().join("reader");
        let programs = room.join("bin");
        fs::create_dir_all(&programs)?;
        for folder in FOLDERS {
            link(&project().join(folder), &room.join(folder))?;
        }
        let kubectl = programs.join("kubectl");
        let real = lab.kubectl_command(&[]);
        let real = real.get_program().to_string_lossy().into_owned();
        fs::write(&kubectl, format!("#!/bin/sh\nexec {real} kubectl \"$@\"\n"))?;
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755))?;
        let calls = |program: &str| {
            let mut words = blocks
                .iter()
                .flat_map(|block| block.text.split_whitespace());
            words.any(|word| word == program)
        };
        if calls("helm") {
            link(Helm::have(lab.steps())?.program(), &programs.join("helm"))?;
        }
        if calls("ferrolb") {
            let program = artifact::ferrolb_program(lab.steps())?;
            link(&program, &programs.join("ferrolb"))?;
        }
        Ok(Self { lab, room })
    }

    /// Runs a block once, or until it prints what it should.
    fn enter(&self, block: &Block) -> Result<String> {
        let place = format!("{}:{}", block.doc, block.line);
        self.lab.steps().say(&place);
        let Some(seen) = &block.seen else {
            return self.run(block).context(place);
        };
        let seen = here(seen);
        let what = format!("{place} to print what it should");
        self.lab.wait_for(&what, PATIENCE, || {
            let printed = self.run(block)?;
            let missing = missing(&printed, &seen);
            ensure!(missing.is_none(), "no line {missing:?} in\n{printed}");
            Ok(Some(printed))
        })
    }

    /// Returns what it prints.
    fn run(&self, block: &Block) -> Result<String> {
        let Fate::Run { host, .. } = &block.fate else {
            anyhow::bail!("is not to be run");
        };
        let between = self.room.join(BETWEEN);
        let between = between.display();
        let script = format!(
            "set -a; [ ! -e {between} ] || . {between}\n{}\nexport -p > {between}\n",
            here(&block.text)
        );
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("timeout");
        command
            .args([
                "--kill-after=5",
                LIMIT,
                "bash",
                "-euo",
                "pipefail",
                "-c",
                &script,
            ])
            .current_dir(&self.room)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in self.lab.kubectl_command(&[]).get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let programs = format!("{}:{path}", self.room.join("bin").display());
        command.env("PATH", programs).env("HOME", &self.room);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.room.join(name));
        }
        // A host of the LAN that is no node, if there is one.
        let clients = self.lab.clients();
        let usual = clients.first().map_or("cp", String::as_str);
        let host = host.as_deref().unwrap_or(usual);
        let output = self.lab.spawn(host, &mut command)?.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}\n{}{printed}{told}",
            output.status,
            block.text
        );
        // Helm and kubectl warn there, and people read both.
        Ok(format!("{printed}{told}"))
    }
}

/// What a document says, as it is in the lab.
fn here(text: &str) -> String {
    INSTEAD
        .into_iter()
        .fold(text.to_owned(), |text, (said, meant)| {
            text.replace(said, meant)
        })
}

/// Makes `name` lead to `target`, wherever it led before.
fn link(target: &Path, name: &Path) -> Result<()> {
    if name.is_symlink() {
        fs::remove_file(name)?;
    }
    symlink(target, name).with_context(|| format!("cannot make {}", name.display()))
}

/// The first of the lines `wanted` that is not printed, or not behind those before it.
fn missing<'a>(printed: &str, wanted: &'a str) -> Option<&'a str> {
    let mut lines = printed.lines();
    wanted
        .lines()
        .filter(|line| !["", "…"].contains(&line.trim()))
        .find(|wanted| !lines.any(|line| fits(line, wanted)))
}

/// Whether a line is as `pattern` has it: `…` stands for anything, space for any space.
fn fits(line: &str, pattern: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, pattern) = (plain(line), plain(pattern));
    let mut pieces = pattern.split('…').map(str::trim);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else {
            return false;
        };
        rest = after;
        last = Some(piece);
    }
    match last {
        None => rest.is_empty(),
        Some(piece) => piece.is_empty() || line.ends_with(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_with_gaps() {
        assert!(fits(
            "web   LoadBalancer  10.0.0.1  192.168.99.96",
            "web LoadBalancer … 192.168.99.96"
        ));
        assert!(fits("a b", "a b") && fits("a b c", "… b …") && fits("a b", "a …"));
        assert!(!fits("a b c", "a b") && !fits("a b", "b") && !fits("a b", "a … c"));
        assert!(!fits("10.0.0.12", "10.0.0.1"));
    }

    #[test]
    fn the_first_line_that_is_missing_is_named() {
        let printed = "one\ntwo\nthree\n";
        assert_eq!(missing(printed, "one\n…\nthree\n"), None);
        assert_eq!(missing(printed, "three\none\n"), Some("one"));
        assert_eq!(missing(printed, "four"), Some("four"));
    }
}
