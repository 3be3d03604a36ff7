//! The broker's [`Access`] on the users and rules that all front ends share.

use access_rules::{Resource, Verb};
use bytes::Bytes;
use credentials::Mechanism;
use frontend::{Asker, Context, Identity, LoginError, ScramLogin};
use futures_util::future::BoxFuture;
use mqtt_broker::access::{
    Access, Admitted, Exceeded, Exchange, Login, Peer, Principal, Share, Step,
};
use mqtt_broker::backend::ConnectError;
use mqtt_codec::{TopicFilter, TopicName};

pub struct CoreAccess {
    ctx: Context,
}

impl CoreAccess {
    pub fn new(ctx: &Context) -> CoreAccess {
        CoreAccess { ctx: ctx.clone() }
    }

    async fn login(&self, login: Login<'_>) -> Result<frontend::Principal, LoginError> {
        let certificate = login.peer.certificate.as_ref();
        match (
            login.user_name,
            certificate.and_then(|one| Identity::name_of(one)),
        ) {
            (None, Some(name)) => self.ctx.identity.certificate(name),
            // The certificate was verified; a user name beside it may only say the same.
            (Some(said), Some(name)) if said == &**name => self.ctx.identity.certificate(name),
            (Some(said), _) => {
                let password = login.password.unwrap_or_default();
                let identity = &self.ctx.identity;
                identity.password(said, password, login.peer).await
            }
            (None, None) => self.ctx.identity.anonymous(login.peer.address),
        }
    }
}

fn admitted(principal: frontend::Principal) -> Admitted {
    Admitted {
        user: principal.user,
        groups: principal.groups,
        certificate: principal.certificate,
        revoked: principal.revoked,
        expires: principal.expires,
    }
}

fn refusal(error: LoginError) -> ConnectError {
    match error {
        LoginError::Wrong => ConnectError::BadUserNameOrPassword,
        LoginError::Anonymous | LoginError::NoName => ConnectError::NotAuthorized,
        LoginError::TooMany => ConnectError::RateExceeded,
        LoginError::Busy => ConnectError::ServerUnavailable,
        LoginError::Malformed => ConnectError::MalformedData,
    }
}

fn asker(who: &Principal) -> Asker<'_> {
    Asker {
        user: who.user.as_deref(),
        groups: &who.groups,
        certificate: who.certificate.as_deref(),
        client: who.client.as_str(),
    }
}

impl Access for CoreAccess {
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Admitted, ConnectError>> {
        Box::pin(async move { self.login(login).await.map(admitted).map_err(refusal) })
    }

    fn exchange(&self, method: &str, peer: &Peer) -> Result<Box<dyn Exchange>, ConnectError> {
        let mechanism = Mechanism::from_name(method);
        let mechanism = mechanism.ok_or(ConnectError::BadAuthenticationMethod)?;
        Ok(Box::new(ScramExchange {
            identity: self.ctx.identity.clone(),
            mechanism,
            peer: peer.clone(),
            begun: None,
        }))
    }

    fn enter(&self, who: &Principal) -> Result<Share, Exceeded> {
        self.ctx.enter(&asker(who))
    }

    fn may_connect(&self, who: &Principal) -> bool {
        let client_id = Resource::ClientId(who.client.as_str());
        self.ctx.access.may(&asker(who), Verb::Connect, client_id)
    }

    fn may_publish(&self, who: &Principal, topic: &TopicName) -> bool {
        let topic = Resource::Topic(topic.as_str());
        self.ctx.access.may(&asker(who), Verb::Publish, topic)
    }

    fn may_subscribe(&self, who: &Principal, filter: &TopicFilter) -> bool {
        self.ctx.access.may_subscribe(&asker(who), filter.as_str())
    }

    fn may_receive(&self, who: &Principal, topic: &TopicName) -> bool {
        let topic = Resource::Topic(topic.as_str());
        self.ctx.access.may(&asker(who), Verb::Subscribe, topic)
    }
}

/// SCRAM as a method of enhanced authentication.
struct ScramExchange {
    identity: Identity,
    mechanism: Mechanism,
    peer: Peer,
    begun: Option<ScramLogin>,
}

impl ScramExchange {
    fn answer(&mut self, data: &[u8]) -> Result<Step, LoginError> {
        match self.begun.take() {
            // A client need not begin in CONNECT: it is asked to.
            None if data.is_empty() => Ok(Step::Continue(Bytes::new())),
            None => {
                let (begun, question) = self.identity.scram(self.mechanism, data, &self.peer)?;
                self.begun = Some(begun);
                Ok(Step::Continue(question.into()))
            }
            Some(begun) => {
                let (principal, last) = begun.finish(data)?;
                Ok(Step::Done {
                    admitted: admitted(principal),
                    data: last.into(),
                })
            }
        }
    }
}

impl Exchange for ScramExchange {
    fn step<'a>(&'a mut self, data: &'a [u8]) -> BoxFuture<'a, Result<Step, ConnectError>> {
        let step = self.answer(data).map_err(refusal);
        Box::pin(std::future::ready(step))
    }
}
