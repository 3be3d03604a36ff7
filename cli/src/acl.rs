//! `towline acl add|list|delete|check`.

use admin_api::{AclRule, CheckAcl, CreateAclRule};
use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::client::Admin;
use crate::output::{self, Output, Row, or_dash};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Effect {
    Allow,
    Deny,
}

/// Access rules: who may do what. They are looked at in order, and the first that fits decides; where none fits, the answer is no.
/// Without any rule, whoever is let in may do everything. Client ids of MQTT are free until a rule with `connect` binds one.
#[derive(Subcommand)]
pub enum AclCommand {
    /// Add a rule, at the end or before another one.
    Add {
        #[arg(value_enum)]
        effect: Effect,
        /// publish, subscribe, create, delete, alter, describe, joined by commas, or all (of these); connect, with client-id:NAME.
        verbs: String,
        /// topic:FILTER (an MQTT topic filter; %u is the user, %c the client id), stream:NAME, group:NAME, queue:NAME, exchange:NAME,
        /// client-id:NAME (a NAME may end with *), or * for everything.
        resource: String,
        /// Only for this user.
        #[arg(long)]
        user: Option<String>,
        /// Only for users in this group.
        #[arg(long)]
        group: Option<String>,
        /// Only for this client id, or those that begin as it does before a *. Clients choose it themselves.
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
        /// Only for clients whose certificate has this name.
        #[arg(long, value_name = "NAME")]
        certificate: Option<String>,
        /// The number of the rule before which this one is looked at.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
    },
    /// List the rules in their order.
    List {
        /// How to print the list.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Delete a rule by its number.
    Delete { number: u64 },
    /// Say whether a user may do something, and which rule decides. The exit status is 0 when it may, 1 when not.
    Check {
        /// The user; `anonymous` is a client without one.
        user: String,
        /// publish, subscribe, create, delete, alter, describe or connect.
        verb: String,
        /// topic:NAME, stream:NAME, group:NAME, queue:NAME, exchange:NAME or client-id:NAME.
        resource: String,
        #[arg(long, value_name = "ID", default_value = "")]
        client_id: String,
        #[arg(long, value_name = "NAME")]
        certificate: Option<String>,
    },
}

impl AclCommand {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        match self {
            AclCommand::Add {
                effect,
                verbs,
                resource,
                user,
                group,
                client_id,
                certificate,
                before,
            } => {
                let rule = admin
                    .create_rule(&CreateAclRule {
                        allow: effect == Effect::Allow,
                        verbs,
                        resource,
                        user,
                        group,
                        client_id,
                        certificate,
                        before,
                    })
                    .await?;
                println!("rule {} added: {}", rule.id, sentence(&rule));
            }
            AclCommand::List { output } => output::print(&admin.rules().await?, output)?,
            AclCommand::Delete { number } => {
                admin.delete_rule(number).await?;
                println!("rule {number} deleted");
            }
            AclCommand::Check {
                user,
                verb,
                resource,
                client_id,
                certificate,
            } => {
                let request = CheckAcl {
                    user: (user != "anonymous").then_some(user),
                    client_id,
                    certificate,
                    verb,
                    resource,
                };
                let verdict = admin.check_rules(&request).await?;
                let word = if verdict.allowed { "allowed" } else { "denied" };
                match &verdict.rule {
                    Some(rule) => println!("{word}: rule {}: {}", rule.id, sentence(rule)),
                    None => println!("{word}: {}", verdict.reason),
                }
                if !verdict.allowed {
                    std::process::exit(1);
                }
            }
        }
        Ok(())
    }
}

fn effect(rule: &AclRule) -> &'static str {
    if rule.allow { "allow" } else { "deny" }
}

/// `allow publish topic:a/# to user ann`.
fn sentence(rule: &AclRule) -> String {
    let mut text = format!("{} {} {}", effect(rule), rule.verbs, rule.resource);
    let mut joint = " to";
    for (what, name) in [
        ("user", &rule.user),
        ("group", &rule.group),
        ("client id", &rule.client_id),
        ("certificate", &rule.certificate),
    ] {
        if let Some(name) = name {
            text.push_str(&format!("{joint} {what} {name}"));
            joint = " with";
        }
    }
    if joint == " to" {
        text.push_str(" to everybody");
    }
    text
}

impl Row for AclRule {
    const COLUMNS: &'static [&'static str] = &[
        "NUMBER",
        "RULE",
        "VERBS",
        "RESOURCE",
        "USER",
        "GROUP",
        "CLIENT ID",
        "CERTIFICATE",
    ];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            effect(self).to_owned(),
            self.verbs.clone(),
            self.resource.clone(),
            or_dash(self.user.as_ref()),
            or_dash(self.group.as_ref()),
            or_dash(self.client_id.as_ref()),
            or_dash(self.certificate.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_a_sentence() {
        let mut rule = AclRule {
            id: 1,
            allow: false,
            verbs: "publish,subscribe".into(),
            resource: "topic:a/#".into(),
            user: None,
            group: None,
            client_id: None,
            certificate: None,
        };
        assert_eq!(
            sentence(&rule),
            "deny publish,subscribe topic:a/# to everybody"
        );
        rule.group = Some("team".into());
        rule.client_id = Some("d-*".into());
        assert_eq!(
            sentence(&rule),
            "deny publish,subscribe topic:a/# to group team with client id d-*"
        );
    }
}
