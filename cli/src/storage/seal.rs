//! `towline storage seal`.

use admin_api::Sealed;
use anyhow::Result;
use clap::Args;

use crate::client::Admin;
use crate::output::size;

#[derive(Args)]
pub struct Seal {}

impl Seal {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        let sealed = admin.seal().await?;
        println!("{}", words(&sealed));
        Ok(())
    }
}

fn words(sealed: &Sealed) -> String {
    let written = match sealed.written_bytes {
        0 => "everything was sealed already".to_owned(),
        bytes => format!("{} written to the cold store", size(bytes)),
    };
    match sealed.unsealed_bytes {
        0 => format!("{written}; nothing is in the write-ahead log alone"),
        bytes => format!(
            "{written}; {} that came meanwhile are not sealed",
            size(bytes)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_whether_anything_is_left() {
        let words = |written_bytes, unsealed_bytes| {
            words(&Sealed {
                written_bytes,
                unsealed_bytes,
            })
        };
        assert!(words(0, 0).starts_with("everything was sealed already; nothing"));
        assert!(words(2048, 0).starts_with("2.0 KiB written"));
        assert!(words(2048, 1024).ends_with("1.0 KiB that came meanwhile are not sealed"));
    }
}
