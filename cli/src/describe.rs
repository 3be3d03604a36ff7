//! `towline describe edge NAME`.

use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;
use crate::get::state;
use crate::output::{ago, or_dash, pairs};

/// Show everything that is known of one thing.
#[derive(Subcommand)]
pub enum Describe {
    /// An edge: its link, its certificate, what it has delivered.
    Edge { name: String },
}

impl Describe {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        let Describe::Edge { name } = self;
        let edge = admin.edge(&name).await?;
        for (what, value) in [
            ("Name", edge.name.clone()),
            ("Labels", pairs(&edge.labels)),
            ("State", state(edge.state).to_owned()),
            ("Remote", or_dash(edge.remote)),
            ("Connected since", ago(edge.connected_since_ms)),
            ("Last seen", ago(edge.last_seen_ms)),
            ("Enrolled", ago(edge.enrolled_ms)),
            ("Certificate serial", edge.certificate_serial),
            (
                "Certificate expires",
                or_dash(edge.certificate_expires_ms.map(days_left)),
            ),
            ("Producer id", or_dash(edge.producer_id)),
            ("Producer epoch", or_dash(edge.producer_epoch)),
            ("Last frame committed", or_dash(edge.last_frame)),
            ("Version", or_dash(edge.version)),
        ] {
            println!("{:<22}{value}", format!("{what}:"));
        }
        Ok(())
    }
}

fn days_left(expires_ms: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    format!("in {} days", (expires_ms - now) / 86_400_000)
}
