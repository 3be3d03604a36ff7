//! Puts the edge together, runs it, and takes it apart in order.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
use mqtt_broker::Broker;
use mqtt_broker::extra::RetainedRoom;
use mqtt_broker::sweeping::Sweeper;
use parking_lot::Mutex;
use quota::Quotas;
use settings::Listen;
use store::{Config, Store};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use transport::{Clients, Layers, Tls, TlsFiles, open_files};

use crate::backend::EdgeBackend;
use crate::clock::Clock;
use crate::config::EdgeSettings;
use crate::data_dir::DataDir;
use crate::identity::Found;
use crate::lineage::Lineage;
use crate::link::Link;
use crate::listener::Devices;
use crate::outbox::Outbox;
use crate::reducer::Reductions;
use crate::room::open_with_room;
use crate::rules::Rules;
use crate::uplink::{Dictionaries, Uplink};
use crate::users::Guard;
use crate::watchdog::Supervisor;
use crate::{admin, identity, lanes, limits, mqtt_options, outbox, query, set_aside, stopping};

/// Runs until SIGTERM or SIGINT, or until the disk fails.
pub async fn run(settings: EdgeSettings) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if settings.max_connections == 0 {
        bail!("--max-connections is 0: no device could connect");
    }
    // Some users may not; then the system's limit counts, and says so when it is reached.
    if let Err(error) = open_files::raise(settings.max_connections, limits::OTHER_FILES) {
        tracing::warn!(%error, "the limit of open files can not be raised");
    }

    let mqtt_options = mqtt_options::options(&settings)?;
    let websocket = settings.mqtt.websocket().map_err(Error::msg)?;
    let lanes = lanes::lanes(&settings.lane, settings.outbox_size)?;
    let anonymous = anonymous(&settings).await?;
    let quotas = Quotas::new(quota::quotas(&settings.quota)?);
    let tls = tls_files(&settings)?.map(Tls::open).transpose()?;
    // Before the store is opened, which may take long: until somebody waits for it, it ends the process.
    let hangup = tls.as_ref().map(|_| signal(SignalKind::hangup()));
    let hangup = hangup.transpose()?;
    let data_dir = DataDir::open(&settings.data_dir)?;
    let secret = credentials::scram_secret(&data_dir.path);
    let guard =
        Guard::new(&settings.user, &settings.acl, anonymous, secret)?.with_quotas(quotas.clone());
    // Before anything is set aside: a name that was given at a start before may be given again.
    set_aside::count(&data_dir.path);
    let enrolment = identity::load(&data_dir.path);
    let name = edge_name(&settings, &enrolment);
    let rules = Arc::new(Rules::new(&settings.rule, &lanes, &name)?);
    let dir = data_dir.path.clone();
    let config = Config {
        lanes: outbox::logs(&lanes, &rules, settings.session_backlog),
        session_bytes: settings.session_backlog.bytes(),
        ..Config::new(rand::random())
    };
    // A mistyped token is said at once; one that the core refuses is a state of the link.
    if let Some(token) = &settings.token
        && enrolment == Found::Nothing
    {
        sync_quic::Token::parse(token).context("the value of --token is not a token")?;
    }
    let open = move || {
        set_aside::count(&dir);
        let store = Store::open_in(&dir, config.clone())?;
        let set_aside = set_aside::count(&dir);
        let clock = Clock::open(&dir, &store).context("the clock's file can not be written")?;
        Ok((store, clock, set_aside))
    };
    let opened = open_with_room(data_dir.path.clone(), open);
    let (store, clock, set_aside) = tokio::select! {
        opened = opened => opened?,
        _ = terminate.recv() => return stop_opening(),
        _ = interrupt.recv() => return stop_opening(),
    };
    let (store, clock) = (Arc::new(store), Arc::new(clock));
    let found = store.stats();
    if found.set_aside > 0 {
        tracing::error!(
            set_aside = found.set_aside,
            "a part of the store could not be read"
        );
    }

    let mqtt = bind("listen-mqtt", &settings.listen_mqtt).await?;
    let mqtts = bind("listen-mqtts", &settings.listen_mqtts).await?;
    let admin_listener = bind("listen-admin", &settings.listen_admin).await?;
    let mut ready = format!("ready mqtt={}", shown(&mqtt)?);
    let ws = bind("listen-ws", &settings.listen_ws).await?;
    let wss = bind("listen-wss", &settings.listen_wss).await?;
    for (name, listener) in [("mqtts", &mqtts), ("ws", &ws), ("wss", &wss)] {
        if let Some(listener) = listener {
            ready += &format!(" {name}={}", listener.local_addr()?);
        }
    }
    if let Some(listener) = &admin_listener {
        ready += &format!(" admin={}", listener.local_addr()?);
    }

    // Connections end first, so that what they bring can still be stored and sent.
    let stop = CancellationToken::new();
    let stop_uplink = CancellationToken::new();
    let disk_failed = CancellationToken::new();
    let link = Arc::new(Link::default());
    let stop_clock = CancellationToken::new();
    let ages = lanes.iter().filter_map(|lane| lane.age);
    let timing = clock
        .clone()
        .run(store.clone(), ages.min(), stop_clock.clone());
    let timing = tokio::spawn(timing);
    let outbox = Outbox::new(
        store.clone(),
        rules.clone(),
        &lanes,
        link.clone(),
        clock.clone(),
    )?;
    let outbox = Arc::new(outbox);
    let reductions = match outbox.local() {
        Some(local) if rules.reduce() => {
            Some(Reductions::open(outbox.clone(), rules, local).await?)
        }
        _ => None,
    };
    let backend = Arc::new(EdgeBackend {
        store: store.clone(),
        outbox,
        disk_failed: disk_failed.clone(),
        shares: mqtt_broker::MemoryShares::default(),
        retained_room: RetainedRoom::new(mqtt_options.retained),
        sweeper: Sweeper::default(),
    });
    let broker = Broker::start_extended(
        backend.clone(),
        Arc::new(guard),
        mqtt_options.limits.of_server(&name),
        mqtt_options.extra,
        stop.clone(),
    )
    .await?;
    let stop_delayed = CancellationToken::new();
    let delaying = {
        let stop = stop_delayed.clone();
        tokio::spawn(async move {
            let delayed = backend.publish_delayed(stop.clone());
            let sweeping = backend.sweep_retained(stop.clone());
            tokio::join!(delayed, sweeping, backend.keep_shares(stop));
        })
    };
    let stop_reductions = CancellationToken::new();
    let reducing =
        reductions.map(|reductions| tokio::spawn(reductions.run(stop_reductions.clone())));
    if let Some(listener) = admin_listener {
        let state = admin::State {
            store: store.clone(),
            broker: broker.clone(),
            link: link.clone(),
            quotas,
        };
        // A full disk is no reason not to take part in everything else.
        let secret = admin_http::credentials::open(&data_dir.path, listener.local_addr()?)
            .inspect_err(|error| tracing::error!(%error, "`towline mqtt` is not answered"))
            .ok();
        tokio::spawn(admin::serve(listener, state, secret, stop.clone()));
    }
    let devices = Devices::new(broker.clone(), settings.max_connections, stop.clone());
    let mut serving = Vec::new();
    for (listener, tls, websocket) in [
        (mqtt, None, None),
        (mqtts, tls.clone(), None),
        (ws, None, Some(websocket.clone())),
        (wss, tls.clone(), Some(websocket)),
    ] {
        if let Some(listener) = listener {
            let layers = Layers {
                proxy: false,
                tls,
                websocket,
            };
            serving.push(tokio::spawn(devices.clone().serve(listener, layers)));
        }
    }
    if let (Some(tls), Some(hangup)) = (tls, hangup) {
        let watching = tls.watch(hangup, stop.clone());
        tokio::spawn(async move {
            if let Err(error) = watching.await {
                tracing::error!(%error, "the TLS files are not looked after any more");
            }
        });
    }
    let uplink = match &settings.core {
        Some(core) => {
            let (producer, nonce) = (store.producer(), rand::random());
            let lineage = Lineage::open(&data_dir.path, producer.id, (producer.epoch, nonce));
            let uplink = Uplink {
                cores: core.0.clone(),
                timing: sync_quic::Timing::edge(settings.keep_alive),
                token: settings.token.clone(),
                name,
                dir: data_dir.path.clone(),
                enrolment,
                store: store.clone(),
                link: link.clone(),
                clock: clock.clone(),
                lanes: lanes.clone(),
                link_rate: settings.link_rate.map(settings::Rate::bytes_per_second),
                dictionaries: Arc::new(Dictionaries::open(&data_dir.path)),
                nonce,
                lineage: Arc::new(Mutex::new(lineage)),
                sources: query::Sources {
                    store: store.clone(),
                    link: link.clone(),
                    started: Instant::now(),
                    clock: clock.clone(),
                    lanes: lanes.into(),
                    set_aside: Arc::new(set_aside),
                },
            };
            Some(tokio::spawn(uplink.run(stop_uplink.clone())))
        }
        None => {
            tracing::info!("no --core: working alone, everything is kept");
            None
        }
    };

    println!("{ready}");
    std::io::stdout()
        .flush()
        .context("cannot write to stdout")?;
    let supervisor = Supervisor::from_environment().context("NOTIFY_SOCKET can not be used")?;
    let supervisor = supervisor.map(Arc::new);
    if let Some(supervisor) = supervisor.clone() {
        let (store, stop) = (store.clone(), stop.clone());
        supervisor.ready();
        tokio::spawn(async move { supervisor.watch(store, stop).await });
    }

    let mut ledger_failed = store.failure();
    let mut result = Ok(());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = ledger_failed.wait_for(|failed| *failed) => {
            result = Err(anyhow::anyhow!("the ledger under {} failed: see the log; it is opened anew at the next start", data_dir.path.display()));
        }
        () = disk_failed.cancelled() => {
            result = Err(anyhow::anyhow!("the disk under {} failed: nothing can be stored; see the log", data_dir.path.display()));
        }
    }
    if let Some(supervisor) = &supervisor {
        supervisor.stopping();
    }
    stopping::begin(Some(&store));
    stop.cancel();
    for serving in serving {
        serving.await?;
    }
    stop_delayed.cancel();
    delaying.await?;
    // After the devices, so that what they brought is in it.
    stop_reductions.cancel();
    if let Some(reducing) = reducing {
        reducing.await?;
    }
    stop_uplink.cancel();
    if let Some(uplink) = uplink {
        uplink.await?;
    }
    stop_clock.cancel();
    timing.await?;
    tokio::task::spawn_blocking(move || store.close()).await?;
    drop(data_dir);
    result
}

/// Whoever opens the store is waited for by the runtime, and may wait for the disk.
fn stop_opening() -> Result<()> {
    stopping::begin(None);
    Ok(())
}

/// Whether clients without a user may connect. An edge that would let the whole network in, and was not told to, does not start.
async fn anonymous(settings: &EdgeSettings) -> Result<bool> {
    if let Some(told) = settings.allow_anonymous {
        if !told && settings.user.is_empty() && settings.tls_client_ca.is_none() {
            bail!("allow-anonymous is false and there is no [[user]]: no device could connect");
        }
        return Ok(told);
    }
    if !settings.user.is_empty() {
        return Ok(false);
    }
    let certified = settings.tls_client_ca.is_some();
    for (key, listen, open) in [
        ("listen-mqtt", &settings.listen_mqtt, true),
        ("listen-mqtts", &settings.listen_mqtts, !certified),
        ("listen-ws", &settings.listen_ws, true),
        ("listen-wss", &settings.listen_wss, !certified),
    ] {
        if let Some(address) = resolve(key, listen).await?
            && open
            && !address.ip().is_loopback()
        {
            bail!(
                "--{key} {address} is open to the network and there are no users: everybody could connect. Add a [[user]] to the configuration file \
                 (`towline-edge hash-password` makes the hash), or say --allow-anonymous=true, or listen on 127.0.0.1"
            );
        }
    }
    Ok(true)
}

/// The name that the core knows this edge by, or will.
fn edge_name(settings: &EdgeSettings, enrolment: &Found) -> String {
    match enrolment {
        Found::Enrolled(enrolled) => enrolled.identity.edge.clone(),
        // As at a first start: a name in a file that is damaged may be another by one bit.
        _ => settings.name.clone().unwrap_or_else(identity::default_name),
    }
}

fn tls_files(settings: &EdgeSettings) -> Result<Option<TlsFiles>> {
    let listens = [&settings.listen_mqtts, &settings.listen_wss]
        .iter()
        .any(|listen| listen.address().is_some());
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) if listens => Ok(Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            names: Vec::new(),
            clients: match &settings.tls_client_ca {
                Some(authorities) => Clients::Required(authorities.clone()),
                None => Clients::Unasked,
            },
        })),
        (None, None) if !listens && settings.tls_client_ca.is_none() => Ok(None),
        _ if listens => bail!("--listen-mqtts and --listen-wss need --tls-cert and --tls-key"),
        _ => {
            bail!(
                "--tls-cert, --tls-key and --tls-client-ca are for --listen-mqtts and --listen-wss, which are off"
            )
        }
    }
}

async fn resolve(key: &str, listen: &Listen) -> Result<Option<SocketAddr>> {
    let Some(address) = listen.address() else {
        return Ok(None);
    };
    let name = address.to_string();
    let mut found = tokio::net::lookup_host(&name)
        .await
        .with_context(|| format!("--{key}: cannot find the address of {name}"))?;
    let first = found.next();
    first
        .with_context(|| format!("--{key}: {name} has no address"))
        .map(Some)
}

async fn bind(key: &str, listen: &Listen) -> Result<Option<TcpListener>> {
    let Some(address) = resolve(key, listen).await? else {
        return Ok(None);
    };
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(limits::BACKLOG)
    };
    let listener = open().with_context(|| {
        format!("cannot listen on {address}: is another program listening there? Give another address with --{key}, or `off`")
    })?;
    Ok(Some(listener))
}

fn shown(listener: &Option<TcpListener>) -> Result<String> {
    Ok(match listener {
        Some(listener) => listener.local_addr()?.to_string(),
        None => "off".into(),
    })
}
