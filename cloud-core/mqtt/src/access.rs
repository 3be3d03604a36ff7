//! The broker's [`Access`] on the users and rules that all front ends share.

use access_rules::{Resource, Verb};
use credentials::Mechanism;
use frontend::{Asker, Context, Identity, LoginError, ScramLogin};
use futures_util::future::BoxFuture;
use mqtt_broker::access::{
    Access, Admitted, Exceeded, Exchange, Login, Peer, Principal, Share, client_first,
};
use mqtt_broker::backend::{ClientId, ConnectError};
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

    fn exchange(
        &self,
        method: &str,
        _: &ClientId,
        peer: &Peer,
    ) -> Result<Box<dyn Exchange>, ConnectError> {
        let mechanism = Mechanism::from_name(method);
        let mechanism = mechanism.ok_or(ConnectError::BadAuthenticationMethod)?;
        let (identity, peer) = (self.ctx.identity.clone(), peer.clone());
        Ok(client_first(
            move |first| {
                let begun = identity.scram(mechanism, first, &peer);
                let (login, question) = begun.map_err(refusal)?;
                Ok((login, question.into()))
            },
            |login: ScramLogin, last| {
                let (principal, data) = login.finish(last).map_err(refusal)?;
                Ok((admitted(principal), data.into()))
            },
        ))
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
