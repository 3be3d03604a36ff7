//! `towline storage verify`: in the running core, or on the files of a stopped one.

use std::path::PathBuf;
use std::time::Duration;

use admin_api::{Damage, StartVerification, Verification, VerificationState};
use anyhow::{Context, Result, bail};
use clap::Args;
use settings::Size;

use super::offline;
use super::progress::Progress;
use crate::client::Admin;
use crate::output::{plain_json, plural, size};

/// How often the core is asked how far it is.
const EVERY: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct Verify {
    /// Read the files of a stopped core in this directory, instead of asking a running one.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the segments are, as the core's --cold-url says. Default: the directory `cold` in the data directory.
    #[arg(long, value_name = "URL", requires = "data_dir")]
    cold_url: Option<String>,
    /// Most bytes that the core reads in a second for it, for example 128MiB. Default: 64MiB.
    #[arg(long, value_name = "SIZE", conflicts_with = "data_dir")]
    rate: Option<Size>,
    /// One JSON document at the end instead of lines.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub async fn run(self, admin: impl Fn() -> Result<Admin>) -> Result<()> {
        let mut progress = Progress::new(self.json);
        let found = match &self.data_dir {
            Some(data_dir) => {
                offline::verify(data_dir, self.cold_url.as_deref(), &mut progress).await?
            }
            None => self.online(&admin()?, &mut progress).await?,
        };
        progress.end();
        if self.json {
            println!("{}", plain_json(&found)?);
        } else {
            println!("{}", summary(&found));
        }
        match found.state {
            VerificationState::Failed => bail!(
                "the verification did not end: {}",
                found
                    .error
                    .as_deref()
                    .unwrap_or("the core does not say why")
            ),
            VerificationState::Cancelled => bail!("cancelled before everything was looked at"),
            _ if found.damaged > 0 => bail!(
                "{} damaged; docs/reference/storage.md says what to do",
                match found.damaged {
                    1 => "1 place is".to_owned(),
                    n => format!("{n} places are"),
                }
            ),
            _ => Ok(()),
        }
    }

    async fn online(&self, admin: &Admin, progress: &mut Progress) -> Result<Verification> {
        let request = StartVerification {
            bytes_per_second: self.rate.map(Size::bytes),
        };
        let mut now = admin.start_verification(&request).await?;
        let mut told = 0;
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        while now.state == VerificationState::Running {
            tell(&now, &mut told, progress);
            progress.show(now.done_bytes, now.total_bytes, &now.now);
            tokio::select! {
                result = &mut interrupted => {
                    result.context("can not wait for Ctrl-C")?;
                    now = admin.cancel_verification().await?;
                    break;
                }
                () = tokio::time::sleep(EVERY) => now = admin.verification().await?,
            }
        }
        tell(&now, &mut told, progress);
        Ok(now)
    }
}

/// Prints the damage that was not printed yet.
fn tell(now: &Verification, told: &mut usize, progress: &mut Progress) {
    for damage in now.damage.iter().skip(*told) {
        progress.say(&words(damage));
    }
    *told = now.damage.len().max(*told);
}

/// A damaged place in one line.
pub fn words(damage: &Damage) -> String {
    let at = match (damage.at, damage.bytes) {
        (Some(at), Some(bytes)) => format!(" at byte {at}, {bytes} bytes"),
        (Some(at), None) => format!(" at byte {at}"),
        _ => String::new(),
    };
    let records: Vec<String> = damage
        .records
        .iter()
        .map(|r| {
            format!(
                "{}/{} partition {} offsets {} to {}",
                r.namespace, r.stream, r.partition, r.first_offset, r.last_offset
            )
        })
        .collect();
    let lost = if records.is_empty() {
        "no records that are known and can still be asked for".to_owned()
    } else {
        records.join(", ")
    };
    format!(
        "DAMAGED {}{at}: {}; holds {lost}",
        damage.place, damage.reason
    )
}

/// How it ended, or how far it is.
pub fn summary(v: &Verification) -> String {
    let state = match v.state {
        VerificationState::Running => "running",
        VerificationState::Done => "done",
        VerificationState::Cancelled => "cancelled",
        VerificationState::Failed => "failed",
    };
    let found = match v.damaged {
        0 => "every checksum holds".to_owned(),
        n => format!("{} DAMAGED", plural(n, "place")),
    };
    format!(
        "{state}: {} of {} read, {found}",
        size(v.done_bytes),
        size(v.total_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin_api::DamagedRecords;

    #[test]
    fn damage_is_told_with_its_place_and_what_it_holds() {
        let damage = Damage {
            place: "wal/00000000000000000001.wal".into(),
            at: Some(24),
            bytes: Some(100),
            reason: "the checksum of the body does not match".into(),
            records: vec![DamagedRecords {
                namespace: "default".into(),
                stream: "plant".into(),
                partition: 2,
                first_offset: 10,
                last_offset: 19,
            }],
        };
        let line = words(&damage);
        assert!(
            line.contains("wal/00000000000000000001.wal at byte 24, 100 bytes"),
            "{line}"
        );
        assert!(
            line.contains("default/plant partition 2 offsets 10 to 19"),
            "{line}"
        );
        assert!(words(&Damage::default()).contains("no records that are known"));
    }
}
