//! The admin listener of a core, as the commands call it.

use std::path::Path;
use std::time::Duration;

use admin_api::{
    AclRule, AclRules, AclVerdict, AlterStream, AlterUser, ApiError, CheckAcl, CreateAclRule,
    CreateStream, CreateToken, CreateUser, Credentials, Edge, Edges, Fleet, Gaps, GapsPage,
    MqttBan, MqttBans, MqttClient, MqttClients, MqttRetainedMessages, MqttSession, MqttSessions,
    MqttSlowSubscriber, MqttSlowSubscribers, MqttSubscription, MqttSubscriptions, Node, Nodes,
    Partition, Partitions, Peeked, Queue, Sealed, StartVerification, Storage, Stream, Streams,
    Token, User, Users, Verification, paths,
};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a call may take before it is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Bytes of the longest answer that is read: a list of millions of clients fits, and what never ends does not fill the memory.
const LONGEST_ANSWER: u64 = 1 << 30;

/// How long an upload of the whole write-ahead log may take.
const SEALED_WITHIN: Duration = Duration::from_secs(60 * 60);

/// A core and the right to administer it.
#[derive(Clone)]
pub struct Admin {
    agent: ureq::Agent,
    base: String,
    secret: String,
}

impl Admin {
    /// `core` is the URL of the admin listener; without it, the one that the credentials name.
    pub fn from_file(core: Option<&str>, credentials: &Path) -> Result<Admin> {
        let text = std::fs::read_to_string(credentials).with_context(|| {
            format!(
                "can not read the credentials {}; a core writes them as admin.credentials into its data directory, and so does an edge with an admin listener",
                credentials.display()
            )
        })?;
        let credentials: Credentials = toml::from_str(&text).with_context(|| {
            format!(
                "{} is not a credentials file of a core or an edge",
                credentials.display()
            )
        })?;
        let base = core
            .unwrap_or(&credentials.url)
            .trim_end_matches('/')
            .to_owned();
        Ok(Admin {
            agent: agent(),
            base,
            secret: credentials.secret,
        })
    }

    /// The token, which is shown this one time. `ttl_seconds`: none for the core's default of one hour.
    pub async fn create_token(
        &self,
        ttl_seconds: Option<u64>,
        labels: &[(String, String)],
    ) -> Result<String> {
        let request = CreateToken {
            ttl_seconds,
            labels: labels.iter().cloned().collect(),
        };
        let reply: Token = self
            .send("POST", paths::TOKENS.to_owned(), Some(&request))
            .await?;
        Ok(reply.token)
    }

    pub async fn edges(&self) -> Result<Vec<Edge>> {
        Ok(self.get::<Edges>(paths::EDGES.to_owned()).await?.edges)
    }

    /// What an edge could not deliver and never will: the newest of it.
    pub async fn gaps(&self, edge: &str) -> Result<Gaps> {
        self.get(format!("{}/{}/gaps", paths::EDGES, encoded(edge)))
            .await
    }

    /// The next page of all of it; `after`: what the page before has as `next`.
    pub async fn gaps_page(&self, edge: &str, after: Option<&str>) -> Result<GapsPage> {
        let after = after.map_or(String::new(), |place| format!("?after={}", encoded(place)));
        let edge = encoded(edge);
        self.get(format!("{}/{edge}/gaps/all{after}", paths::EDGES))
            .await
    }

    /// Asks an edge how it is; what it said last when it is not connected.
    pub async fn queue(&self, edge: &str) -> Result<Queue> {
        self.get(format!("{}/{}/queue", paths::EDGES, encoded(edge)))
            .await
    }

    /// The next messages that an edge will send.
    pub async fn peek(&self, edge: &str, lane: Option<&str>, count: u32) -> Result<Peeked> {
        let lane = lane.map_or(String::new(), |lane| format!("&lane={}", encoded(lane)));
        let edge = encoded(edge);
        self.get(format!(
            "{}/{edge}/queue/peek?count={count}{lane}",
            paths::EDGES
        ))
        .await
    }

    /// All edges, and what those that are connected say of themselves.
    pub async fn fleet(&self, selector: Option<&str>) -> Result<Fleet> {
        let selected = selector.map_or(String::new(), |selector| {
            format!("?selector={}", encoded(selector))
        });
        self.get(format!("{}{selected}", paths::FLEET)).await
    }

    pub async fn streams(&self) -> Result<Vec<Stream>> {
        Ok(self
            .get::<Streams>(paths::STREAMS.to_owned())
            .await?
            .streams)
    }

    pub async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(self
            .get::<Partitions>(paths::PARTITIONS.to_owned())
            .await?
            .partitions)
    }

    pub async fn stream(&self, name: &str) -> Result<Stream> {
        self.get(format!("{}/{}", paths::STREAMS, encoded(name)))
            .await
    }

    /// The partitions of one stream.
    pub async fn partitions_of(&self, stream: &str) -> Result<Vec<Partition>> {
        let path = format!("{}?stream={}", paths::PARTITIONS, encoded(stream));
        Ok(self.get::<Partitions>(path).await?.partitions)
    }

    pub async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(self.get::<Nodes>(paths::NODES.to_owned()).await?.nodes)
    }

    pub async fn create_stream(&self, request: &CreateStream) -> Result<Stream> {
        self.send("POST", paths::STREAMS.to_owned(), Some(request))
            .await
    }

    pub async fn alter_stream(&self, name: &str, request: &AlterStream) -> Result<Stream> {
        let path = format!("{}/{}", paths::STREAMS, encoded(name));
        self.send("PATCH", path, Some(request)).await
    }

    pub async fn delete_stream(&self, name: &str) -> Result<()> {
        let path = format!("{}/{}", paths::STREAMS, encoded(name));
        self.call("DELETE", path, None).await.map(drop)
    }

    pub async fn mqtt_clients(&self) -> Result<Vec<MqttClient>> {
        let path = paths::MQTT_CLIENTS.to_owned();
        Ok(self.get::<MqttClients>(path).await?.clients)
    }

    pub async fn mqtt_client(&self, id: &str) -> Result<MqttClient> {
        self.get(format!("{}/{}", paths::MQTT_CLIENTS, encoded(id)))
            .await
    }

    /// Of one client, or of all.
    pub async fn mqtt_subscriptions(&self, id: Option<&str>) -> Result<Vec<MqttSubscription>> {
        let path = match id {
            Some(id) => format!("{}/{}/subscriptions", paths::MQTT_CLIENTS, encoded(id)),
            None => paths::MQTT_SUBSCRIPTIONS.to_owned(),
        };
        Ok(self.get::<MqttSubscriptions>(path).await?.subscriptions)
    }

    pub async fn mqtt_sessions(&self) -> Result<Vec<MqttSession>> {
        let path = paths::MQTT_SESSIONS.to_owned();
        Ok(self.get::<MqttSessions>(path).await?.sessions)
    }

    pub async fn mqtt_retained(&self, filter: &str, count: usize) -> Result<MqttRetainedMessages> {
        let filter = encoded(filter);
        self.get(format!(
            "{}?filter={filter}&limit={count}",
            paths::MQTT_RETAINED
        ))
        .await
    }

    pub async fn mqtt_slow(&self) -> Result<Vec<MqttSlowSubscriber>> {
        let path = paths::MQTT_SLOW.to_owned();
        Ok(self.get::<MqttSlowSubscribers>(path).await?.subscribers)
    }

    pub async fn mqtt_kick(&self, id: &str) -> Result<()> {
        let path = format!("{}/{}", paths::MQTT_CLIENTS, encoded(id));
        self.call("DELETE", path, None).await.map(drop)
    }

    pub async fn mqtt_unsubscribe(&self, id: &str, filter: &str) -> Result<()> {
        let (id, filter) = (encoded(id), encoded(filter));
        let path = format!("{}/{id}/subscriptions?filter={filter}", paths::MQTT_CLIENTS);
        self.call("DELETE", path, None).await.map(drop)
    }

    pub async fn mqtt_end_session(&self, id: &str) -> Result<()> {
        let path = format!("{}/{}", paths::MQTT_SESSIONS, encoded(id));
        self.call("DELETE", path, None).await.map(drop)
    }

    pub async fn mqtt_bans(&self) -> Result<Vec<MqttBan>> {
        let path = paths::MQTT_BANS.to_owned();
        Ok(self.get::<MqttBans>(path).await?.bans)
    }

    pub async fn mqtt_ban(&self, ban: &MqttBan) -> Result<()> {
        let body = serde_json::to_vec(ban)?;
        let path = paths::MQTT_BANS.to_owned();
        self.call("POST", path, Some(body)).await.map(drop)
    }

    pub async fn mqtt_unban(&self, who: &str) -> Result<()> {
        let path = format!("{}?who={}", paths::MQTT_BANS, encoded(who));
        self.call("DELETE", path, None).await.map(drop)
    }

    pub async fn users(&self) -> Result<Vec<User>> {
        Ok(self.get::<Users>(paths::USERS.to_owned()).await?.users)
    }

    pub async fn create_user(&self, request: &CreateUser) -> Result<User> {
        self.send("POST", paths::USERS.to_owned(), Some(request))
            .await
    }

    pub async fn alter_user(&self, name: &str, request: &AlterUser) -> Result<User> {
        let path = format!("{}/{}", paths::USERS, encoded(name));
        self.send("PATCH", path, Some(request)).await
    }

    pub async fn delete_user(&self, name: &str) -> Result<()> {
        let path = format!("{}/{}", paths::USERS, encoded(name));
        self.call("DELETE", path, None).await.map(drop)
    }

    /// In the order in which they are looked at.
    pub async fn rules(&self) -> Result<Vec<AclRule>> {
        Ok(self.get::<AclRules>(paths::ACL.to_owned()).await?.rules)
    }

    pub async fn create_rule(&self, request: &CreateAclRule) -> Result<AclRule> {
        self.send("POST", paths::ACL.to_owned(), Some(request))
            .await
    }

    pub async fn delete_rule(&self, id: u64) -> Result<()> {
        let path = format!("{}/{id}", paths::ACL);
        self.call("DELETE", path, None).await.map(drop)
    }

    pub async fn check_rules(&self, request: &CheckAcl) -> Result<AclVerdict> {
        self.send("POST", paths::ACL_CHECK.to_owned(), Some(request))
            .await
    }

    pub async fn storage(&self) -> Result<Storage> {
        self.get(paths::STORAGE.to_owned()).await
    }

    pub async fn start_verification(&self, request: &StartVerification) -> Result<Verification> {
        self.send("POST", paths::STORAGE_VERIFY.to_owned(), Some(request))
            .await
    }

    pub async fn verification(&self) -> Result<Verification> {
        self.get(paths::STORAGE_VERIFY.to_owned()).await
    }

    pub async fn cancel_verification(&self) -> Result<Verification> {
        self.send("DELETE", paths::STORAGE_VERIFY.to_owned(), None::<&()>)
            .await
    }

    /// Takes as long as the upload of everything that is not sealed.
    pub async fn seal(&self) -> Result<Sealed> {
        let path = paths::STORAGE_SEAL.to_owned();
        let reply = self.call_within("POST", path, None, SEALED_WITHIN).await?;
        serde_json::from_slice(&reply).context("the reply is not what this version understands")
    }

    async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T> {
        self.send("GET", path, None::<&()>).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        path: String,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let body = body.map(serde_json::to_vec).transpose()?;
        let reply = self.call(verb, path.clone(), body).await?;
        serde_json::from_slice(&reply).with_context(|| {
            format!(
                "the reply of {}{path} is not what this version understands",
                self.base
            )
        })
    }

    async fn call(
        &self,
        verb: &'static str,
        path: String,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        self.call_within(verb, path, body, ANSWER_WITHIN).await
    }

    /// One HTTP exchange, on a thread where blocking is allowed.
    async fn call_within(
        &self,
        verb: &'static str,
        path: String,
        body: Option<Vec<u8>>,
        within: Duration,
    ) -> Result<Vec<u8>> {
        let url = format!("{}{path}", self.base);
        let (agent, secret) = (self.agent.clone(), self.secret.clone());
        tokio::task::spawn_blocking(move || {
            let request = ureq::http::Request::builder()
                .method(verb)
                .uri(&url)
                .header("authorization", format!("Bearer {secret}"))
                .header("content-type", "application/json")
                .body(body.unwrap_or_default())
                .with_context(|| format!("{url} is not a URL"))?;
            let request = agent
                .configure_request(request)
                .timeout_global(Some(within))
                .build();
            let reply = agent.run(request).with_context(|| {
                format!("no answer from the core at {url}; is it running, and is its admin listener there?")
            })?;
            let status = reply.status();
            let bytes = whole(reply).read_to_vec()?;
            if status.is_success() {
                return Ok(bytes);
            }
            Err(match serde_json::from_slice::<ApiError>(&bytes) {
                Ok(refusal) => anyhow!(refusal),
                Err(_) => anyhow!("{verb} {url} was answered with {status}"),
            })
        })
        .await?
    }
}

/// The text of a daemon's `/metrics`, from its admin address.
pub async fn metrics(admin: &str) -> Result<String> {
    let url = format!("http://{admin}{}", paths::METRICS);
    tokio::task::spawn_blocking(move || Ok(whole(agent().get(&url).call()?).read_to_string()?))
        .await?
}

/// Without a bound of ours it would be read up to 10 MiB.
fn whole(reply: ureq::http::Response<ureq::Body>) -> ureq::BodyWithConfig<'static> {
    reply.into_body().into_with_config().limit(LONGEST_ANSWER)
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WITHIN))
        .http_status_as_error(false)
        .build()
        .new_agent()
}

/// Percent-encoding of everything that is not plain in a URL (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// As the lists of 60,000 clients and more.
    #[tokio::test]
    async fn a_long_answer_is_read_to_its_end() {
        const LENGTH: usize = 11 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let core = std::thread::spawn(move || {
            for _ in 0..2 {
                let (socket, _) = listener.accept().unwrap();
                let lines = BufReader::new(&socket).lines();
                lines.map(Result::unwrap).find(String::is_empty).unwrap();
                let text = "x".repeat(LENGTH);
                let length = LENGTH + 2;
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                );
                write!(&socket, "{head}\"{text}\"").unwrap();
            }
        });
        let admin = Admin {
            agent: agent(),
            base: format!("http://{address}"),
            secret: String::new(),
        };
        let reply: String = admin.get(paths::EDGES.to_owned()).await.unwrap();
        assert_eq!(reply.len(), LENGTH);
        assert_eq!(metrics(&address).await.unwrap().len(), LENGTH + 2);
        core.join().unwrap();
    }

    #[test]
    fn a_name_survives_the_url() {
        assert_eq!(encoded("plant a/1"), "plant%20a%2F1");
    }

    #[test]
    fn a_missing_credentials_file_says_where_it_comes_from() {
        let error = Admin::from_file(None, Path::new("/nonexistent/admin.credentials"))
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains("admin.credentials into its data directory"),
            "{error}"
        );
    }
}
