//! The admin listener: HTTP and JSON as `admin-api` says, one file a resource.

mod acl;
mod edges;
mod health;
mod nodes;
mod partitions;
mod queues;
mod status;
mod storage;
mod streams;
mod tokens;
mod users;
mod verification;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use admin_api::{codes, paths};
use admin_http::{Guard, Refusal, SecretHash, require_secret};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post};
use cloud_sync::SyncFrontend;
use frontend::Context;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What every handler gets.
pub struct Admin {
    ctx: Context,
    secret: SecretHash,
    /// `None`: the sync listener is off.
    sync: Option<SyncFrontend>,
    mqtt: ::mqtt::Mqtt,
    listeners: BTreeMap<String, String>,
    started: Instant,
    started_ms: i64,
    verifications: verification::Verifications,
}

impl Admin {
    pub fn new(
        ctx: Context,
        secret: SecretHash,
        sync: Option<SyncFrontend>,
        mqtt: ::mqtt::Mqtt,
        listeners: BTreeMap<String, String>,
    ) -> Arc<Admin> {
        let started_ms = ctx.now_ms();
        Arc::new(Admin {
            ctx,
            secret,
            sync,
            mqtt,
            listeners,
            started: Instant::now(),
            started_ms,
            verifications: verification::Verifications::default(),
        })
    }

    /// Serves until the context is shut down and the requests under way are answered.
    pub fn start(self: Arc<Admin>, listener: TcpListener) -> JoinHandle<()> {
        let shutdown = self.ctx.shutdown.clone();
        let drain = self.ctx.limits.drain;
        let service = router(self);
        tokio::spawn(async move {
            let stop = shutdown.clone();
            let serving = axum::serve(listener, service)
                .with_graceful_shutdown(async move { stop.cancelled().await });
            let overdue = async {
                shutdown.cancelled().await;
                tokio::time::sleep(drain).await;
            };
            tokio::select! {
                result = serving.into_future() => if let Err(error) = result {
                    tracing::error!(%error, "the admin listener ended");
                },
                () = overdue => tracing::debug!("admin connections did not end in time at shutdown: cut"),
            }
        })
    }
}

fn router(admin: Arc<Admin>) -> Router {
    let guard = Guard {
        secret: admin.secret.clone(),
        of: "core",
    };
    let mqtt = admin.mqtt.clone();
    let protected = Router::new()
        .route(paths::STATUS, get(status::get))
        .route(paths::EDGES, get(edges::list))
        .route(&format!("{}/{{name}}", paths::EDGES), get(edges::get))
        .route(
            &format!("{}/{{name}}/gaps", paths::EDGES),
            get(queues::gaps),
        )
        .route(
            &format!("{}/{{name}}/gaps/all", paths::EDGES),
            get(queues::all_gaps),
        )
        .route(
            &format!("{}/{{name}}/queue", paths::EDGES),
            get(queues::queue),
        )
        .route(
            &format!("{}/{{name}}/queue/peek", paths::EDGES),
            get(queues::peek),
        )
        .merge(admin_http::mqtt::routes(move || mqtt.broker().cloned()))
        .route(paths::FLEET, get(queues::fleet))
        .route(paths::TOKENS, post(tokens::create))
        .route(paths::STREAMS, get(streams::list).post(streams::create))
        .route(
            &format!("{}/{{name}}", paths::STREAMS),
            get(streams::get)
                .patch(streams::alter)
                .delete(streams::delete),
        )
        .route(paths::PARTITIONS, get(partitions::list))
        .route(paths::NODES, get(nodes::list))
        .route(paths::USERS, get(users::list).post(users::create))
        .route(
            &format!("{}/{{name}}", paths::USERS),
            patch(users::alter).delete(users::delete),
        )
        .route(paths::ACL, get(acl::list).post(acl::create))
        .route(&format!("{}/{{id}}", paths::ACL), delete(acl::delete))
        .route(paths::ACL_CHECK, post(acl::check))
        .route(paths::STORAGE, get(storage::get))
        .route(paths::STORAGE_SEAL, post(storage::seal))
        .route(
            paths::STORAGE_VERIFY,
            get(verification::get)
                .post(verification::start)
                .delete(verification::cancel),
        )
        .route_layer(from_fn_with_state(guard, require_secret));
    Router::new()
        .route(paths::HEALTHZ, get(health::healthz))
        .route(paths::READYZ, get(health::readyz))
        .route(paths::METRICS, get(health::metrics))
        .merge(protected)
        .fallback(|| async {
            Refusal::new(
                StatusCode::NOT_FOUND,
                codes::NOT_FOUND,
                "there is no such path",
                "",
            )
        })
        .method_not_allowed_fallback(|| async {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                codes::METHOD_NOT_ALLOWED,
                "not with this verb",
                "",
            )
        })
        .with_state(admin)
}
