//! `towline user add|passwd|list|delete|grant-group|revoke-group`.

use admin_api::{AlterUser, CreateUser, User};
use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;
use crate::output::{self, Output, Row, ago};

/// Users: who may connect with MQTT, Kafka and AMQP.
#[derive(Subcommand)]
pub enum UserCommand {
    /// Add a user. The password is one line of the standard input, or asked for; it never stands on the command line.
    Add {
        name: String,
        /// A group, for rules that are about groups; may be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Give a user another password, read as by `add`. Its connections end.
    Passwd { name: String },
    /// List users.
    List {
        /// How to print the list.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Delete a user. Its connections end.
    Delete { name: String },
    /// Put a user into groups.
    GrantGroup {
        name: String,
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Take a user out of groups.
    RevokeGroup {
        name: String,
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
    },
}

impl UserCommand {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        match self {
            UserCommand::Add { name, groups } => {
                let password = credentials::read_password()?;
                let user = admin
                    .create_user(&CreateUser {
                        name,
                        password,
                        groups,
                    })
                    .await?;
                println!("user {} added", user.name);
            }
            UserCommand::Passwd { name } => {
                let request = AlterUser {
                    password: Some(credentials::read_password()?),
                    ..AlterUser::default()
                };
                admin.alter_user(&name, &request).await?;
                println!("user {name} has another password");
            }
            UserCommand::List { output } => output::print(&admin.users().await?, output)?,
            UserCommand::Delete { name } => {
                admin.delete_user(&name).await?;
                println!("user {name} deleted");
            }
            UserCommand::GrantGroup { name, groups } => {
                let request = AlterUser {
                    add_groups: groups,
                    ..AlterUser::default()
                };
                show(&admin.alter_user(&name, &request).await?);
            }
            UserCommand::RevokeGroup { name, groups } => {
                let request = AlterUser {
                    remove_groups: groups,
                    ..AlterUser::default()
                };
                show(&admin.alter_user(&name, &request).await?);
            }
        }
        Ok(())
    }
}

fn show(user: &User) {
    let groups = if user.groups.is_empty() {
        "none".to_owned()
    } else {
        user.groups.join(", ")
    };
    println!("user {}: groups {groups}", user.name);
}

impl Row for User {
    const COLUMNS: &'static [&'static str] = &["NAME", "GROUPS", "CREATED", "CHANGED"];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.groups.join(","),
            ago(Some(self.created_ms)),
            ago(Some(self.changed_ms)),
        ]
    }
}
