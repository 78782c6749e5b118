//! An operator's desk: `kubectl`, `helm` and `istioctl` under their own names, for commands as people type them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Mesh, OPERATOR, text};
use crate::Lab;
use crate::deploy::project;

/// A shell in the project's folder, with the administrator's rights, or a client's without any.
#[derive(Debug)]
pub struct Desk<'a> {
    lab: &'a Lab,
    programs: PathBuf,
    variables: Vec<String>,
}

impl<'a> Desk<'a> {
    /// Lays the programs ready.
    ///
    /// # Errors
    /// The lab's directory cannot be written.
    pub fn new(lab: &'a Lab, mesh: &Mesh) -> Result<Self> {
        let programs = lab.directory().join("operator/bin");
        fs::create_dir_all(&programs)
            .with_context(|| format!("cannot make {}", programs.display()))?;
        let kubectl = lab.kubectl_command(&[]);
        let kubectl = format!("{} kubectl", kubectl.get_program().display());
        let istioctl = mesh.istio.istioctl();
        for (name, command) in [
            ("kubectl", kubectl.as_str()),
            ("helm", text(&mesh.helm)?),
            ("istioctl", text(&istioctl)?),
        ] {
            let program = programs.join(name);
            fs::write(&program, format!("#!/bin/sh\nexec {command} \"$@\"\n"))
                .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("cannot write {}", program.display()))?;
        }
        Ok(Self {
            lab,
            programs,
            variables: Vec::new(),
        })
    }

    /// Runs a line of shell beside the API server, with the administrator's rights; returns what it prints.
    ///
    /// # Errors
    /// Its last command fails; the error carries what it said.
    pub fn operator(&self, line: &str) -> Result<String> {
        let configuration = self.lab.kubeconfig();
        let rights = format!("KUBECONFIG={}", text(&configuration)?);
        self.run(OPERATOR, &[rights], line)
    }

    /// Runs a line of shell on a host of the lab, with no more rights than that has.
    ///
    /// # Errors
    /// As above.
    pub fn client(&self, host: &str, line: &str) -> Result<String> {
        self.run(host, &[], line)
    }

    /// Gives later lines a variable.
    pub fn export(&mut self, name: &str, value: &str) {
        self.variables.push(format!("{name}={value}"));
    }

    fn run(&self, host: &str, more: &[String], line: &str) -> Result<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let settings = [
            format!("PATH={}:{path}", text(&self.programs)?),
            format!("HOME={}", text(&self.lab.directory().join("operator"))?),
        ];
        let project = project();
        let mut words = vec!["env", "-C", text(&project)?];
        let settings = settings.iter().chain(more).chain(&self.variables);
        words.extend(settings.map(String::as_str));
        // Both streams, as a terminal shows them.
        let line = format!("exec 2>&1; {line}");
        words.extend(["sh", "-e", "-c", &line]);
        self.lab.read(host, &words)
    }
}
