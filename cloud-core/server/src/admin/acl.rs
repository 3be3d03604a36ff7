use std::sync::Arc;

use access_rules::{Resource, Rule, Verb, Who};
use admin_api::{AclRule, AclRules, AclVerdict, CheckAcl, CreateAclRule};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use frontend::Asker;
use frontend::access::{Listed, Reason, RulesError};

use super::Admin;
use admin_http::Refusal;

pub async fn list(State(admin): State<Arc<Admin>>) -> Json<AclRules> {
    let rules = admin.ctx.access.rules();
    Json(AclRules {
        rules: rules.into_iter().map(reply).collect(),
    })
}

pub async fn create(
    State(admin): State<Arc<Admin>>,
    body: Result<Json<CreateAclRule>, JsonRejection>,
) -> Result<(StatusCode, Json<AclRule>), Refusal> {
    let Json(request) = body?;
    let rule = Rule {
        allow: request.allow,
        verbs: request.verbs.parse().map_err(wrong)?,
        who: Who {
            user: request.user,
            group: request.group,
            client: request.client_id,
            certificate: request.certificate,
        },
        resource: request.resource.parse().map_err(wrong)?,
    };
    let added = admin.ctx.access.add_rule(rule, request.before).await;
    let added = added.map_err(refused)?;
    Ok((StatusCode::CREATED, Json(reply(added))))
}

pub async fn delete(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<u64>,
) -> Result<StatusCode, Refusal> {
    let deleted = admin.ctx.access.delete_rule(id).await;
    deleted.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn check(
    State(admin): State<Arc<Admin>>,
    body: Result<Json<CheckAcl>, JsonRejection>,
) -> Result<Json<AclVerdict>, Refusal> {
    let Json(request) = body?;
    let verb: Verb = request.verb.parse().map_err(wrong)?;
    let resource = match Resource::parse(&request.resource).map_err(wrong)? {
        Resource::Topic(filter) if verb == Verb::Subscribe => Resource::Topic(behind(filter)),
        resource => resource,
    };
    let who = Asker {
        user: request.user.as_deref(),
        groups: &[],
        certificate: request.certificate.as_deref(),
        client: &request.client_id,
    };
    let (allowed, reason) = admin.ctx.access.explain(&who, verb, resource);
    Ok(Json(match reason {
        Reason::NoStrangers => verdict(allowed, "clients without a user are not let in", None),
        Reason::NoRules if verb == Verb::Connect => verdict(
            allowed,
            "no rule has the verb connect: whoever is let in may have every client id",
            None,
        ),
        Reason::NoRules => verdict(
            allowed,
            "there are no rules: whoever is let in may do everything",
            None,
        ),
        Reason::NoneFits => verdict(allowed, "no rule fits", None),
        Reason::Rule(listed) => {
            let reason = format!("rule {} decides", listed.id);
            verdict(allowed, reason, Some(reply(listed)))
        }
    }))
}

/// The rules are asked about the filter behind the name of a group or `$exclusive`.
fn behind(filter: &str) -> &str {
    let shared = filter.strip_prefix("$share/");
    let shared = shared.and_then(|rest| rest.split_once('/'));
    match shared {
        Some((_group, filter)) => filter,
        None => filter.strip_prefix("$exclusive/").unwrap_or(filter),
    }
}

fn verdict(allowed: bool, reason: impl Into<String>, rule: Option<AclRule>) -> AclVerdict {
    AclVerdict {
        allowed,
        reason: reason.into(),
        rule,
    }
}

fn wrong(error: impl ToString) -> Refusal {
    Refusal::invalid(error.to_string(), "")
}

fn refused(error: RulesError) -> Refusal {
    match error {
        RulesError::Unknown(_) => {
            Refusal::not_found(error.to_string(), "`towline acl list` lists them")
        }
        RulesError::Invalid(_) => Refusal::invalid(error.to_string(), ""),
        RulesError::Write(error) => Refusal::not_written(error),
    }
}

fn reply(Listed { id, rule }: Listed) -> AclRule {
    AclRule {
        id,
        allow: rule.allow,
        verbs: rule.verbs.to_string(),
        resource: rule.resource.to_string(),
        user: rule.who.user,
        group: rule.who.group,
        client_id: rule.who.client,
        certificate: rule.who.certificate,
    }
}
