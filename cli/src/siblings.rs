//! Finds the daemons that `up` and `demo` run: the binaries beside this one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Paths of the daemons' binaries.
pub struct Siblings {
    pub core: PathBuf,
    pub edge: PathBuf,
}

/// The binaries beside this one. Under `cargo run` cargo has built only `towline`, so the two daemons are brought up
/// to date first, in the same profile; that costs a fraction of a second when nothing has changed. Cargo shows how far it is:
/// the first time takes minutes.
pub fn find() -> Result<Siblings> {
    let own = std::env::current_exe().context("can not tell where this program is")?;
    let folder = own
        .parent()
        .context("this program is in no folder")?
        .to_owned();
    if let (Some(cargo), Some(manifest)) = (
        std::env::var_os("CARGO"),
        std::env::var_os("CARGO_MANIFEST_DIR"),
    ) {
        build(Path::new(&cargo), Path::new(&manifest), &folder)?;
    }
    let siblings = Siblings {
        core: folder.join("towline-core"),
        edge: folder.join("towline-edge"),
    };
    for program in [&siblings.core, &siblings.edge] {
        if !program.is_file() {
            bail!(
                "{} is missing: `towline up` runs the daemons that lie beside it. \
                 In a source tree, build all of them: cargo build --release -p cloud-core -p edge-node -p cli",
                program.display()
            );
        }
    }
    Ok(siblings)
}

fn is_about_this_package(variable: &str) -> bool {
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ]
    .iter()
    .any(|prefix| variable.starts_with(prefix))
}

fn build(cargo: &Path, manifest: &Path, folder: &Path) -> Result<()> {
    let release = folder.file_name().is_some_and(|name| name == "release");
    let mut command = Command::new(cargo);
    command
        .current_dir(manifest)
        .args(["build", "-p", "cloud-core", "-p", "edge-node"]);
    // What `cargo run` says about this package would make build scripts that look at it (ring's does) run again, and everything
    // above them be compiled again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_this_package) {
            command.env_remove(name);
        }
    }
    if release {
        command.arg("--release");
    }
    if !folder.join("towline-core").is_file() {
        eprintln!("building towline-core and towline-edge (the first time takes some minutes)");
    }
    let status = command
        .status()
        .with_context(|| format!("can not run {}", cargo.display()))?;
    if !status.success() {
        bail!(
            "building towline-core and towline-edge failed ({status}); the compiler's words are above"
        );
    }
    Ok(())
}
