//! `towline mqtt`: the clients of the MQTT broker of a core or an edge, what they subscribe to, what is kept for them; ending and banning.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use admin_api::{
    MQTT_RETAINED_SHOWN, MqttBan, MqttClient, MqttRetained, MqttSession, MqttSlowSubscriber,
    MqttSubscription,
};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use settings::Value;

use crate::client::Admin;
use crate::output::{self, Output, Row, ago, or_dash, size, utc};

/// Look into the MQTT broker of a core or an edge, and end what should not go on.
#[derive(Subcommand)]
pub enum MqttCommand {
    /// Who is connected.
    Clients(Form),
    /// One connected client and what it subscribes to.
    Client {
        /// Its client id.
        id: String,
        #[command(flatten)]
        form: Form,
    },
    /// Subscriptions: of all clients and persistent sessions, or of one.
    Subscriptions {
        /// Client id; none: all.
        id: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Persistent sessions, whether their clients are connected or not.
    Sessions(Form),
    /// Retained messages, with the beginning of their payloads.
    Retained {
        /// Topic filter.
        #[arg(default_value = "#")]
        filter: String,
        /// Messages at most; never more than 10000.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
        count: usize,
        #[command(flatten)]
        form: Form,
    },
    /// Subscribers for which messages waited, the slowest first.
    Slow(Form),
    /// End a client's connection. It may come back at once; `towline mqtt ban` keeps it away.
    Kick {
        /// Its client id.
        id: String,
    },
    /// Keep a client, a user or an address out, and end its connections.
    Ban {
        /// client:ID, user:NAME or address:IP.
        who: String,
        /// How long, as 10m; none: until it is lifted, or the broker is restarted.
        #[arg(long, value_name = "TIME", value_parser = Duration::parse)]
        r#for: Option<Duration>,
        /// For the list.
        #[arg(long, value_name = "TEXT", default_value = "by hand")]
        reason: String,
    },
    /// Let somebody in again.
    Unban {
        /// client:ID, user:NAME or address:IP.
        who: String,
    },
    /// Who is banned.
    Bans(Form),
    /// Take a subscription away from a client, connected or not.
    Unsubscribe {
        /// Its client id.
        id: String,
        /// The filter as `towline mqtt subscriptions` has it: with $share/... or $exclusive/..., and rewritten where a rule rewrites it.
        filter: String,
    },
    /// End a persistent session for good, with its connection, its subscriptions and what waits for it.
    EndSession {
        /// Its client id.
        id: String,
    },
}

#[derive(Args)]
pub struct Form {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Everything, for scripts: the same as -o json.
    #[arg(long)]
    json: bool,
}

impl Form {
    fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output }
    }

    fn print<T: Row>(&self, rows: &[T]) -> Result<()> {
        output::print(rows, self.output())
    }
}

/// A client and what it subscribes to: two tables, or one object.
#[derive(Serialize)]
struct OneClient {
    #[serde(flatten)]
    client: MqttClient,
    /// The client's own `subscriptions` is how many there are.
    subscribed: Vec<MqttSubscription>,
}

impl OneClient {
    fn render(&self, output: Output) -> Result<String> {
        let client = output::render(std::slice::from_ref(self), output)?;
        Ok(match output {
            Output::Json | Output::Yaml => client,
            Output::Table | Output::Wide => {
                format!("{client}\n{}", output::render(&self.subscribed, output)?)
            }
        })
    }
}

impl Row for OneClient {
    const COLUMNS: &'static [&'static str] = MqttClient::COLUMNS;
    const WIDE: &'static [&'static str] = MqttClient::WIDE;

    fn cells(&self) -> Vec<String> {
        self.client.cells()
    }
}

/// Of retained messages than were shown.
fn there_are_more(asked: usize) -> String {
    if asked < MQTT_RETAINED_SHOWN {
        "there are more: ask with -n, or for a narrower filter".to_owned()
    } else {
        format!(
            "there are more than the {MQTT_RETAINED_SHOWN} that are shown at most: ask for a narrower filter"
        )
    }
}

impl MqttCommand {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        match self {
            MqttCommand::Clients(form) => form.print(&admin.mqtt_clients().await?),
            MqttCommand::Client { id, form } => {
                let one = OneClient {
                    client: admin.mqtt_client(&id).await?,
                    subscribed: admin.mqtt_subscriptions(Some(&id)).await?,
                };
                print!("{}", one.render(form.output())?);
                Ok(())
            }
            MqttCommand::Subscriptions { id, form } => {
                form.print(&admin.mqtt_subscriptions(id.as_deref()).await?)
            }
            MqttCommand::Sessions(form) => form.print(&admin.mqtt_sessions().await?),
            MqttCommand::Retained {
                filter,
                count,
                form,
            } => {
                let retained = admin.mqtt_retained(&filter, count).await?;
                form.print(&retained.messages)?;
                if retained.more {
                    eprintln!("{}", there_are_more(count));
                }
                Ok(())
            }
            MqttCommand::Slow(form) => form.print(&admin.mqtt_slow().await?),
            MqttCommand::Kick { id } => {
                admin.mqtt_kick(&id).await?;
                println!("client {id} is disconnected");
                Ok(())
            }
            MqttCommand::Ban {
                who,
                r#for: time,
                reason,
            } => {
                let ban = new_ban(who, time, reason, SystemTime::now())?;
                admin.mqtt_ban(&ban).await?;
                println!("{} is banned", ban.who);
                Ok(())
            }
            MqttCommand::Unban { who } => {
                admin.mqtt_unban(&who).await?;
                println!("{who} is let in again");
                Ok(())
            }
            MqttCommand::Bans(form) => form.print(&admin.mqtt_bans().await?),
            MqttCommand::Unsubscribe { id, filter } => {
                admin.mqtt_unsubscribe(&id, &filter).await?;
                println!("client {id} is not subscribed to {filter} any more");
                Ok(())
            }
            MqttCommand::EndSession { id } => {
                admin.mqtt_end_session(&id).await?;
                println!("the session of client {id} is ended");
                Ok(())
            }
        }
    }
}

/// How long it lasts is said twice: the broker counts from when it is asked, since its clock may be another one. An earlier broker knows
/// only when it ends, by the clock of here; without that it would be a ban without an end.
fn new_ban(
    who: String,
    time: Option<Duration>,
    reason: String,
    now: SystemTime,
) -> Result<MqttBan> {
    let (mut for_ms, mut until_ms) = (None, None);
    if let Some(time) = time {
        if time.is_zero() {
            bail!("--for is 0: nobody would be banned; leave it out for a ban without an end");
        }
        let end = now.duration_since(UNIX_EPOCH)?.saturating_add(time);
        let too_long = "--for is too long: leave it out for a ban without an end";
        for_ms = Some(u64::try_from(time.as_millis()).context(too_long)?);
        until_ms = Some(i64::try_from(end.as_millis()).context(too_long)?);
    }
    Ok(MqttBan {
        who,
        until_ms,
        for_ms,
        reason,
    })
}

fn seconds(time: Option<u32>) -> String {
    time.map_or("never".to_owned(), |time| format!("{time}s"))
}

impl Row for MqttClient {
    const COLUMNS: &'static [&'static str] = &[
        "CLIENT",
        "USER",
        "ADDRESS",
        "MQTT",
        "CONNECTED",
        "SUBSCRIPTIONS",
    ];
    const WIDE: &'static [&'static str] = &["IN FLIGHT", "SESSION ENDS AFTER"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.client.clone(),
            or_dash(self.user.as_ref()),
            or_dash(self.address.as_ref()),
            self.version.clone(),
            ago(Some(self.connected_ms)),
            self.subscriptions.to_string(),
            self.in_flight.to_string(),
            seconds(self.session_expiry_seconds),
        ]
    }
}

impl Row for MqttSubscription {
    const COLUMNS: &'static [&'static str] = &["CLIENT", "FILTER", "QOS"];
    const WIDE: &'static [&'static str] = &["NO LOCAL", "RETAIN AS PUBLISHED", "IDENTIFIER"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.client.clone(),
            self.filter.clone(),
            self.qos.to_string(),
            self.no_local.to_string(),
            self.retain_as_published.to_string(),
            or_dash(self.identifier),
        ]
    }
}

impl Row for MqttSession {
    const COLUMNS: &'static [&'static str] = &[
        "CLIENT",
        "CONNECTED",
        "AWAY SINCE",
        "ENDS AFTER",
        "SUBSCRIPTIONS",
        "IN FLIGHT",
    ];
    const WIDE: &'static [&'static str] = &["WILL PENDING"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.client.clone(),
            self.connected.to_string(),
            ago(self.disconnected_ms),
            seconds(self.expiry_seconds),
            self.subscriptions.to_string(),
            self.in_flight.to_string(),
            self.will_pending.to_string(),
        ]
    }
}

impl Row for MqttRetained {
    const COLUMNS: &'static [&'static str] = &["TOPIC", "QOS", "SIZE", "PAYLOAD"];
    const WIDE: &'static [&'static str] = &["EXPIRES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.qos.to_string(),
            size(self.bytes),
            self.payload.escape_debug().to_string(),
            self.expires_ms.map_or("never".to_owned(), utc),
        ]
    }
}

impl Row for MqttSlowSubscriber {
    const COLUMNS: &'static [&'static str] = &["CLIENT", "WAITED", "LAST"];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![
            self.client.clone(),
            format!("{} ms", self.waited_ms),
            ago(Some(self.last_ms)),
        ]
    }
}

impl Row for MqttBan {
    const COLUMNS: &'static [&'static str] = &["WHO", "UNTIL", "REASON"];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![
            self.who.clone(),
            self.until_ms.map_or("lifted".to_owned(), utc),
            self.reason.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_shown_with_what_it_subscribes_to_in_each_form() {
        let one = OneClient {
            client: MqttClient {
                client: "pump".into(),
                subscriptions: 1,
                ..MqttClient::default()
            },
            subscribed: vec![MqttSubscription {
                client: "pump".into(),
                filter: "$share/g/a".into(),
                qos: 1,
                ..MqttSubscription::default()
            }],
        };
        let json: serde_json::Value =
            serde_json::from_str(&one.render(Output::Json).unwrap()).unwrap();
        assert_eq!(json[0]["client"], "pump");
        assert_eq!(json[0]["subscriptions"], 1);
        assert_eq!(json[0]["subscribed"][0]["filter"], "$share/g/a");
        let yaml = one.render(Output::Yaml).unwrap();
        assert!(
            yaml.contains("  subscribed:\n  - client: pump\n    filter: $share/g/a\n"),
            "{yaml}"
        );
        for (output, columns) in [
            (Output::Table, MqttSubscription::COLUMNS),
            (Output::Wide, MqttSubscription::WIDE),
        ] {
            let text = one.render(output).unwrap();
            let shown = columns.iter().all(|column| text.contains(column));
            assert!(shown && text.contains("$share/g/a"), "{text}");
        }
    }

    #[test]
    fn who_was_shown_all_that_can_be_is_not_told_to_ask_for_more() {
        for (asked, more) in [(100, true), (9_999, true), (10_000, false), (20_000, false)] {
            assert_eq!(there_are_more(asked).contains("-n"), more, "{asked}");
        }
    }

    #[test]
    fn how_long_a_ban_lasts_is_said_so_that_an_earlier_broker_knows_it_too() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let sent = |time| {
            let ban = new_ban("client:a".into(), time, String::new(), now)?;
            let sent = serde_json::to_value(ban)?;
            anyhow::Ok((sent["for_ms"].as_u64(), sent["until_ms"].as_i64()))
        };
        let hour = sent(Some(Duration::from_secs(3600))).unwrap();
        assert_eq!(hour, (Some(3_600_000), Some(3_700_000)));
        assert_eq!(sent(None).unwrap(), (None, None));
        for (time, why) in [(Duration::ZERO, "nobody"), (Duration::MAX, "too long")] {
            let error = sent(Some(time)).unwrap_err().to_string();
            assert!(error.contains("--for") && error.contains(why), "{error}");
        }
    }
}
