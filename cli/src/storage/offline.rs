//! `towline storage verify|cut --data-dir DIR`: the files of a core that is stopped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use admin_api::{Verification, VerificationState};
use anyhow::{Context, Result, anyhow, bail};
use cold_store::Patience;
use kernel::ports::{Disk, SystemDisk};
use kernel::verify::{self, DirectoryError, Seen};
use kernel::{Cut, CutError, cut_log};

use super::progress::Progress;
use super::verify::words;

/// Reads everything in `data_dir`, and the segments in the cold store at `cold_url` (none: in the directory itself).
pub async fn verify(
    data_dir: &Path,
    cold_url: Option<&str>,
    progress: &mut Progress,
) -> Result<Verification> {
    let shown = data_dir.display();
    let (root, disk) = open(data_dir)?;
    let url = match cold_url {
        Some(url) => url.to_owned(),
        None => format!("file://{}", root.join("cold").display()),
    };
    let cold = cold_store::open(&url, Patience::default()).context("--cold-url")?;
    let mut found = Verification::begun(now_ms());
    let mut see = |seen: Seen| match seen {
        Seen::Progress { done, total, now } => {
            progress.show(done, total, &now);
            (found.done_bytes, found.total_bytes, found.now) = (done, total, now);
        }
        Seen::Damage(damage) => {
            let damage = verification::note(&mut found, &damage);
            progress.say(&words(&damage));
        }
    };
    let result = verify::directory(&disk, &*cold, &mut see).await;
    match result {
        Ok(()) => {}
        Err(DirectoryError::Locked) => bail!(
            "a core runs in {shown}. Ask it: towline storage verify (with --core and --credentials, or a context); or stop it first"
        ),
        Err(error @ DirectoryError::OtherStore { .. }) => {
            bail!("{error}. Give the --cold-url that the core was started with")
        }
        Err(error) => return Err(error).with_context(|| format!("can not verify {shown}")),
    }
    found.state = VerificationState::Done;
    found.ended_ms = Some(now_ms());
    Ok(found)
}

/// Cuts the log before the damage that keeps a core from starting, if `really`; says where. `None`: there is no such damage.
pub fn cut(data_dir: &Path, really: bool) -> Result<Option<Cut>> {
    let shown = data_dir.display();
    let (_, disk) = open(data_dir)?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    cut_log(&disk, really).map_err(|error| match error {
        CutError::Locked => anyhow!("a core runs in {shown}: its log is not cut, and need not be"),
        error => anyhow::Error::from(error).context(format!("the log in {shown} was not cut")),
    })
}

fn open(data_dir: &Path) -> Result<(PathBuf, SystemDisk)> {
    let shown = data_dir.display();
    if !data_dir.join("wal").is_dir() {
        bail!("{shown} is no data directory of a core: it has no folder wal");
    }
    let root = std::path::absolute(data_dir).with_context(|| format!("{shown} is not a path"))?;
    let disk = SystemDisk::new(&root).with_context(|| format!("can not open {shown}"))?;
    Ok((root, disk))
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
