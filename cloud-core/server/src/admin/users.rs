use std::sync::Arc;

use admin_api::{AlterUser, CreateUser, User, Users, codes};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use frontend::identity::{self, ChangeError};

use super::Admin;
use admin_http::Refusal;

pub async fn list(State(admin): State<Arc<Admin>>) -> Json<Users> {
    let users = admin.ctx.identity.users();
    Json(Users {
        users: users.iter().map(|user| reply(user)).collect(),
    })
}

pub async fn create(
    State(admin): State<Arc<Admin>>,
    body: Result<Json<CreateUser>, JsonRejection>,
) -> Result<(StatusCode, Json<User>), Refusal> {
    let Json(request) = body?;
    let groups = request.groups.into_iter().collect();
    let identity = &admin.ctx.identity;
    let user = identity
        .add_user(&request.name, request.password, groups, admin.ctx.now_ms())
        .await
        .map_err(refused)?;
    Ok((StatusCode::CREATED, Json(reply(&user))))
}

pub async fn alter(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Result<Json<AlterUser>, JsonRejection>,
) -> Result<Json<User>, Refusal> {
    let Json(request) = body?;
    let (identity, now) = (&admin.ctx.identity, admin.ctx.now_ms());
    let mut user = identity
        .user(&name)
        .ok_or_else(|| refused(ChangeError::Unknown(name.clone())))?;
    if !request.add_groups.is_empty() || !request.remove_groups.is_empty() {
        let add = request.add_groups.into_iter().collect();
        let remove = request.remove_groups.into_iter().collect();
        let changed = identity.set_groups(&name, add, &remove, now).await;
        user = changed.map_err(refused)?;
    }
    if let Some(password) = request.password {
        let changed = identity.set_password(&name, password, now).await;
        user = changed.map_err(refused)?;
    }
    Ok(Json(reply(&user)))
}

pub async fn delete(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let deleted = admin.ctx.identity.delete_user(&name).await;
    deleted.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

fn refused(error: ChangeError) -> Refusal {
    match error {
        ChangeError::Exists(_) => Refusal::new(
            StatusCode::CONFLICT,
            codes::ALREADY_EXISTS,
            error.to_string(),
            "`towline user passwd` gives it another password",
        ),
        ChangeError::Unknown(_) => {
            Refusal::not_found(error.to_string(), "`towline user list` lists them")
        }
        ChangeError::Invalid(_) => Refusal::invalid(error.to_string(), ""),
        ChangeError::Write(error) => Refusal::not_written(error),
    }
}

fn reply(user: &identity::User) -> User {
    User {
        name: user.name.to_string(),
        groups: user.groups.iter().map(|group| group.to_string()).collect(),
        created_ms: user.created_ms,
        changed_ms: user.changed_ms,
    }
}
