//! Tokens, and what an edge gets for one.

use bytes::Bytes;
use kernel::{Command, CursorPosition, Entry};
use sync_quic::{CloseCode, EnrolGrant, EnrolRefusal, EnrolRequest, fingerprint};

use super::{Entered, RETAINED_FIRST, Registry, RegistryError, cursor_name, is_edge_name};
use crate::authority::hex;
use crate::limits;
use crate::stored::{StoredEdge, TABLE, encode};
use crate::time::now_ms;
use crate::tokens::{self, NewToken, StoredToken, TokenOptions};

impl Registry {
    pub(crate) async fn create_token(
        &self,
        options: TokenOptions,
    ) -> Result<NewToken, RegistryError> {
        if options.ttl > limits::MAX_TOKEN_TTL {
            return Err(RegistryError::Ttl);
        }
        let long = |text: &String| text.len() > limits::MAX_LABEL;
        if options.labels.len() > limits::MAX_LABELS
            || options.labels.iter().any(|(k, v)| long(k) || long(v))
        {
            return Err(RegistryError::Labels);
        }
        let (token, stored) = StoredToken::create(options, self.authority.certificate(), now_ms());
        let entry = Entry::new().put(
            tokens::TABLE,
            Bytes::from(token.token.id.clone()),
            encode(&stored)?,
        );
        self.kernel.write(entry).await?;
        Ok(token)
    }

    /// Trades a token for a certificate. A name that exists gets a new certificate, and the old one is worth nothing from then on,
    /// also where it is connected: who holds a valid token may replace a board.
    pub(crate) async fn enrol(
        &self,
        request: &EnrolRequest,
    ) -> Result<EnrolGrant, (EnrolRefusal, String)> {
        let unavailable = |error: String| (EnrolRefusal::Unavailable, error);
        if request.version != sync::VERSION {
            return Err((
                EnrolRefusal::InvalidRequest,
                format!("this core speaks version {}", sync::VERSION),
            ));
        }
        let _changing = self.changing_tokens.lock().await;
        let _edge = self.changing(&request.name).await;
        let stored = self
            .kernel
            .table_get(tokens::TABLE, request.token_id.as_bytes());
        let Some(mut token) =
            stored.and_then(|value| serde_json::from_slice::<StoredToken>(&value).ok())
        else {
            return Err((
                EnrolRefusal::InvalidToken,
                "make a new one with `towline token create`".to_owned(),
            ));
        };
        let now = now_ms();
        token.check(&request.secret, now).map_err(|code| {
            (
                code,
                "make a new one with `towline token create`".to_owned(),
            )
        })?;
        if !is_edge_name(&request.name) {
            return Err((
                EnrolRefusal::InvalidName,
                "1 to 64 of letters, digits, `.`, `_` and `-`".to_owned(),
            ));
        }
        let certificate = self
            .authority
            .sign_edge(&request.request, &request.name)
            .map_err(|error| (EnrolRefusal::InvalidRequest, error.to_string()))?;
        token.uses += 1;

        let before = self
            .edges
            .lock()
            .by_name
            .get(&request.name)
            .map(|entered| entered.stored.clone());
        // The newest start stays known: the board may have kept its data directory, and it may be a copy. Its reports are over.
        let edge = StoredEdge {
            fingerprint: hex(&fingerprint(&certificate.der)),
            serial: certificate.serial,
            certificate_expires_ms: certificate.expires_ms,
            enrolled_ms: now,
            labels: token.labels.clone(),
            newest: before
                .as_ref()
                .map(|edge| edge.newest.clone())
                .unwrap_or_default(),
            software: before.as_ref().and_then(|edge| edge.software.clone()),
            lanes: before
                .as_ref()
                .map(|edge| edge.lanes.clone())
                .unwrap_or_default(),
            time_known: before.as_ref().is_some_and(|edge| edge.time_known),
            remote: before.as_ref().and_then(|edge| edge.remote),
            first_seen_ms: before.as_ref().and_then(|edge| edge.first_seen_ms),
            last_seen_ms: before.as_ref().and_then(|edge| edge.last_seen_ms),
            fenced: Vec::new(),
        };
        let mut entry = Entry::new()
            .put(
                TABLE,
                Bytes::from(request.name.clone()),
                encode(&edge).map_err(|error| unavailable(error.to_string()))?,
            )
            .put(
                tokens::TABLE,
                Bytes::from(request.token_id.clone()),
                encode(&token).map_err(|error| unavailable(error.to_string()))?,
            );
        if let Some(start) = self.downlink_start(&request.name, before.is_some(), now) {
            entry.push(start);
        }
        self.kernel
            .write(entry)
            .await
            .map_err(|error| unavailable(error.to_string()))?;

        let replaced = {
            let mut edges = self.edges.lock();
            edges.own(&request.name, &edge);
            let old = edges
                .by_name
                .insert(request.name.clone(), Entered::new(edge));
            old.and_then(|entered| entered.live)
        };
        if let Some(live) = replaced {
            live.connection
                .close(CloseCode::Revoked, "this edge was enrolled again");
        }
        if before.is_some() {
            tracing::warn!(edge = %request.name, token = %request.token_id, "edge enrolled again: its former certificate is void");
        } else {
            tracing::info!(edge = %request.name, token = %request.token_id, "edge enrolled");
        }
        Ok(EnrolGrant {
            name: request.name.clone(),
            certificate: certificate.der.into(),
            ca: self.authority.certificate().to_vec().into(),
        })
    }

    /// A new edge gets the commands that come after its enrolment, not those of an edge of that name before; one that is enrolled again
    /// goes on where it was. Both get first what is retained for them: the disk may be a new one.
    fn downlink_start(&self, name: &str, again: bool, now_ms: i64) -> Option<Command> {
        let stream = self.kernel.stream(&self.command_stream()?)?;
        let group = cursor_name(name);
        let committed = self.kernel.cursor(&group);
        let mut positions: Vec<CursorPosition> = Vec::new();
        for partition in stream.partition_ids() {
            let is_first = positions.is_empty();
            let offset = if again {
                let known = committed.iter().find(|at| at.partition == partition);
                known.map_or(0, |at| at.offset)
            } else {
                self.kernel.watermarks(partition)?.end
            };
            positions.push(CursorPosition {
                partition,
                offset,
                metadata: Bytes::from_static(if is_first { RETAINED_FIRST } else { b"" }),
                committed_at: now_ms,
            });
            if again {
                // The others stay as they are.
                break;
            }
        }
        Some(Command::CursorCommit { group, positions })
    }
}
