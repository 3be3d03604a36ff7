//! Binding what is to be listened on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use cloud_sync::TlsListen;
use settings::Listen;
use tokio::net::TcpListener;

use crate::config::CoreSettings;

/// A bound TCP listener, or `None` where it is off.
pub struct Listeners {
    pub mqtt: Option<TcpListener>,
    pub kafka: Option<TcpListener>,
    pub amqp: Option<TcpListener>,
    pub admin: Option<TcpListener>,
    /// Where to bind; the sync front end does it.
    pub sync: Option<SocketAddr>,
    pub sync_tls: TlsListen,
}

impl Listeners {
    pub async fn bind(settings: &CoreSettings, backlog: i32) -> Result<Listeners> {
        Ok(Listeners {
            mqtt: bind("listen-mqtt", &settings.listen_mqtt, backlog).await?,
            kafka: bind("listen-kafka", &settings.listen_kafka, backlog).await?,
            amqp: bind("listen-amqp", &settings.listen_amqp, backlog).await?,
            admin: bind("listen-admin", &settings.listen_admin, backlog).await?,
            sync: resolve("listen-sync", &settings.listen_sync).await?,
            sync_tls: match &settings.listen_sync_tls {
                None => TlsListen::Same,
                Some(listen) => match resolve("listen-sync-tls", listen).await? {
                    Some(address) => TlsListen::On(address),
                    None => TlsListen::Off,
                },
            },
        })
    }
}

async fn bind(key: &str, listen: &Listen, backlog: i32) -> Result<Option<TcpListener>> {
    let Some(address) = resolve(key, listen).await? else {
        return Ok(None);
    };
    let listener = frontend::bind_tcp(address, backlog).with_context(|| {
        format!("cannot listen on {address}: is another program listening there? Give another address with --{key}, or `off`")
    })?;
    Ok(Some(listener))
}

async fn resolve(key: &str, listen: &Listen) -> Result<Option<SocketAddr>> {
    let Some(address) = listen.address() else {
        return Ok(None);
    };
    let name = address.to_string();
    let mut found = tokio::net::lookup_host(&name)
        .await
        .with_context(|| format!("--{key}: cannot find the address of {name}"))?;
    let first = found
        .next()
        .with_context(|| format!("--{key}: {name} has no address"))?;
    Ok(Some(first))
}

/// The address by which this machine reaches one of its own listeners.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}
