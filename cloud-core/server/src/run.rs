//! The life of the process: open, listen, say ready, wait, stop in order.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use frontend::identity::{Jwt, JwtRules};
use frontend::{Advertise, Anonymous, Context, Limits, StreamDefaults};
use kernel::ports::ColdStore;
use kernel::{Kernel, KernelConfig, Ports};
use quota::Quotas;
use tokio::signal::unix::{Signal, SignalKind, signal};
use transport::Tls;
use uuid::Uuid;

use crate::admin::Admin;
use crate::cold;
use crate::config::{AnonymousSetting, ClientAuth, CoreSettings};
use crate::data_dir::DataDir;
use crate::frontends::{self, Running};
use crate::jwt_keys;
use crate::kernel_metrics;
use crate::listeners::Listeners;
use crate::mqtt_options;
use crate::tls;
use crate::upkeep;
use settings::logging;
use transport::open_files;

/// Open files other than connections: the log and its segments, listeners, the admin interface.
const OTHER_FILES: usize = 1_024;

/// Returns when the process was asked to stop and has stopped in order; an error is why it could not start or go on.
pub fn run(settings: CoreSettings) -> Result<()> {
    logging::start(settings.log, settings.log_format);
    open_files::raise(settings.max_connections, OTHER_FILES)
        .context("cannot raise the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    // Before the log is opened, which may take long: until somebody waits for SIGHUP, it ends the process.
    let tls = runtime.block_on(async { tls::open(&settings) })?;
    let data_dir = DataDir::open(&settings.data_dir)?;
    let cold = cold::open(&settings, &data_dir)?;
    let kernel = open_kernel(&settings, &data_dir, cold.clone())?;
    let result = runtime.block_on(serve(settings, &data_dir, kernel.clone(), cold, tls));
    // Last, and also after an error: everything that was acknowledged is durable already, this makes the next start fast.
    runtime.block_on(kernel.shutdown());
    result
}

fn open_kernel(
    settings: &CoreSettings,
    data_dir: &DataDir,
    cold: Arc<dyn ColdStore>,
) -> Result<Kernel> {
    let ports = Ports::system(&data_dir.path, cold)
        .with_context(|| format!("cannot open the data directory {}", data_dir.path.display()))?;
    let config = KernelConfig {
        wal_file_bytes: settings.wal_file_size.bytes(),
        wal_bytes: settings.wal_size.bytes(),
        wal_stall_ms: u64::try_from(settings.wal_stall_timeout.as_millis())
            .context("wal-stall-timeout")?,
        segment_bytes: settings.segment_size.bytes(),
        seal_age_ms: i64::try_from(settings.seal_after.as_millis()).context("seal-after")?,
        cold_cache_memory_bytes: usize::try_from(settings.cold_cache_memory.bytes())
            .context("cold-cache-memory")?,
        cold_cache_disk_bytes: settings.cold_cache_disk.bytes(),
        cold_readahead_bytes: usize::try_from(settings.cold_readahead.bytes())
            .context("cold-readahead")?,
        orphan_grace_ms: i64::try_from(settings.orphan_grace.as_millis())
            .context("orphan-grace")?,
        compaction_bytes: usize::try_from(settings.compaction_memory.bytes())
            .context("compaction-memory")?,
        tail_bytes: usize::try_from(settings.tail_memory.bytes()).context("tail-memory")?,
        default_partitions: settings.default_partitions,
        ..KernelConfig::default()
    };
    Kernel::open(ports, config).with_context(|| {
        format!(
            "cannot open the log in the data directory {}",
            data_dir.path.display()
        )
    })
}

async fn serve(
    settings: CoreSettings,
    data_dir: &DataDir,
    kernel: Kernel,
    cold: Arc<dyn ColdStore>,
    tls: Option<(Arc<Tls>, Signal)>,
) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let jwt = settings.jwt_keys.as_ref().map(|_| {
        Arc::new(Jwt::new(JwtRules {
            issuer: settings.jwt_issuer.clone(),
            audience: settings.jwt_audience.clone(),
            user_claim: settings.jwt_user_claim.clone(),
            groups_claim: settings.jwt_groups_claim.clone(),
        }))
    });
    let ctx = context(&settings, data_dir, kernel, jwt.clone())?;
    if let (Some(jwt), Some(keys)) = (jwt, &settings.jwt_keys) {
        jwt_keys::start(jwt, keys, settings.jwt_refresh, ctx.shutdown.clone()).await?;
    }
    let certificates = tls.as_ref().map(|(tls, _)| tls);
    let mut listeners = Listeners::bind(&settings, ctx.limits.backlog, certificates).await?;
    let certified =
        settings.tls_client_ca.is_some() && settings.tls_client_auth != Some(ClientAuth::Optional);
    listeners.check_who_may_come(&ctx.identity, certified)?;
    let admin_listener = listeners.admin.take();
    let admin_address = admin_listener
        .as_ref()
        .map(|listener| listener.local_addr())
        .transpose()?;
    let mqtt_options = mqtt_options::options(&settings)?;
    let mut running = frontends::start(&ctx, listeners, mqtt_options)?;
    running.addresses.push(("admin", admin_address));
    if let (Some(listener), Some(address)) = (admin_listener, admin_address) {
        let secret = admin_http::credentials::open(&data_dir.path, address)?;
        let admin = Admin::new(
            ctx.clone(),
            secret,
            running.sync.clone(),
            running.mqtt.clone(),
            running.open(),
        );
        let handle = admin.start(listener);
        running.tasks.spawn(async move {
            let _ = handle.await;
            "admin"
        });
    }
    if let Some((tls, hangup)) = tls {
        let watching = tls.watch(hangup, ctx.shutdown.clone());
        tokio::spawn(async move {
            if let Err(error) = watching.await {
                tracing::error!(%error, "the TLS files are not looked after any more");
            }
        });
    }
    upkeep::start(&ctx);
    tokio::spawn(cold::check(cold, ctx.shutdown.clone()));
    say_ready(&running.addresses)?;

    let ended = tokio::select! {
        _ = terminated.recv() => Ok("SIGTERM"),
        _ = interrupted.recv() => Ok("SIGINT"),
        reason = upkeep::maintain(&ctx.kernel) => Err(anyhow!("the log failed and accepts no more writes: {reason}. Look after the disk, then start again")),
        Some(name) = running.tasks.join_next() => Err(anyhow!("the {} front end ended; its reason is in the log on stderr", name.unwrap_or("unknown"))),
    };
    if let Ok(signal) = ended {
        tracing::info!(signal, "stopping");
    }
    ctx.shutdown.cancel();
    tokio::select! {
        () = drain(&mut running) => ended.map(drop),
        _ = terminated.recv() => bail!("a second SIGTERM came before the connections had ended: stopped at once"),
        _ = interrupted.recv() => bail!("a second SIGINT came before the connections had ended: stopped at once"),
    }
}

async fn drain(running: &mut Running) {
    while running.tasks.join_next().await.is_some() {}
}

fn context(
    settings: &CoreSettings,
    data_dir: &DataDir,
    kernel: Kernel,
    jwt: Option<Arc<Jwt>>,
) -> Result<Context> {
    let anonymous = match settings.anonymous {
        AnonymousSetting::Allow => Anonymous::Allow,
        AnonymousSetting::Deny => Anonymous::Deny,
        AnonymousSetting::Loopback => Anonymous::Loopback,
    };
    let mut ctx = Context::with(kernel.clone(), &data_dir.path, anonymous, jwt)?;
    kernel_metrics::register(&ctx.registry, kernel)?;
    ctx.quotas = Quotas::new(quota::quotas(&settings.quota)?);
    frontend::quotas::register(&ctx.registry, ctx.quotas.clone())?;
    ctx.cluster_id = data_dir.cluster_id.as_str().into();
    ctx.start_id = Uuid::new_v4();
    ctx.advertise = Arc::new(Advertise {
        host: settings.advertise.as_deref().map(Into::into),
    });
    ctx.streams = StreamDefaults {
        auto_create: settings.auto_create_streams,
        partitions: settings.default_partitions,
    };
    ctx.limits = Arc::new(Limits {
        connections_per_listener: settings.max_connections,
        message_bytes: usize::try_from(settings.max_message_size.bytes())
            .context("max-message-size")?,
        drain: settings.shutdown_timeout,
        ..Limits::default()
    });
    Ok(ctx)
}

/// One line on stdout, for whoever started this: all listeners answer from now on.
fn say_ready(addresses: &[(&'static str, Option<SocketAddr>)]) -> Result<()> {
    let mut line = String::from("ready");
    for (name, address) in addresses {
        match address {
            Some(address) => write!(line, " {name}={address}")?,
            None => write!(line, " {name}=off")?,
        }
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write the ready line to stdout")
}
