//! `towline storage verify --data-dir DIR`: the files of a core that is stopped.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use admin_api::{Damage, DamagedRecords, Verification, VerificationState};
use anyhow::{Context, Result, bail};
use cold_store::Patience;
use kernel::ports::SystemDisk;
use kernel::verify::{self, DirectoryError, Seen};

use super::progress::Progress;
use super::verify::words;

/// Reads everything in `data_dir`, and the segments in the cold store at `cold_url` (none: in the directory itself).
pub async fn verify(
    data_dir: &Path,
    cold_url: Option<&str>,
    progress: &mut Progress,
) -> Result<Verification> {
    let shown = data_dir.display();
    if !data_dir.join("wal").is_dir() {
        bail!("{shown} is no data directory of a core: it has no folder wal");
    }
    let root = std::path::absolute(data_dir).with_context(|| format!("{shown} is not a path"))?;
    let disk = SystemDisk::new(&root).with_context(|| format!("can not open {shown}"))?;
    let url = match cold_url {
        Some(url) => url.to_owned(),
        None => format!("file://{}", root.join("cold").display()),
    };
    let cold = cold_store::open(&url, Patience::default()).context("--cold-url")?;
    let mut found = Verification {
        state: VerificationState::Running,
        started_ms: now_ms(),
        ended_ms: None,
        total_bytes: 0,
        done_bytes: 0,
        now: String::new(),
        damage: Vec::new(),
        damaged: 0,
        error: None,
    };
    let mut see = |seen: Seen| match seen {
        Seen::Progress { done, total, now } => {
            progress.show(done, total, &now);
            (found.done_bytes, found.total_bytes, found.now) = (done, total, now);
        }
        Seen::Damage(damage) => {
            let damage = told(damage);
            progress.say(&words(&damage));
            found.damaged += 1;
            found.damage.push(damage);
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

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// In the words of the admin API, which a running core uses.
fn told(damage: verify::Damage) -> Damage {
    Damage {
        place: damage.place,
        at: damage.at,
        bytes: damage.bytes,
        reason: damage.reason,
        records: damage
            .records
            .into_iter()
            .map(|records| DamagedRecords {
                namespace: records.address.namespace.to_string(),
                stream: records.address.name.to_string(),
                partition: records.partition.partition,
                first_offset: records.first_offset,
                last_offset: records.last_offset,
            })
            .collect(),
    }
}
