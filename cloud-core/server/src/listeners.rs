//! Binding what is to be listened on.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Error, Result, bail};
use cloud_sync::TlsListen;
use frontend::{Anonymous, Identity, Listener, QuicListener};
use settings::Listen;
use tokio::net::TcpListener;
use transport::{Layers, Offer, Tls};

use crate::config::CoreSettings;

/// Everything that is bound.
pub struct Listeners {
    pub mqtt: Bound,
    pub kafka: Bound,
    pub amqp: Bound,
    /// `None` where it is off.
    pub admin: Option<TcpListener>,
    /// Where to bind; the sync front end does it.
    pub sync: Option<SocketAddr>,
    pub sync_tls: TlsListen,
}

impl Listeners {
    /// `tls`: there where one of the listeners needs it.
    pub async fn bind(
        settings: &CoreSettings,
        backlog: i32,
        tls: Option<&Arc<Tls>>,
    ) -> Result<Listeners> {
        let plain = Layers {
            proxy: settings.proxy_protocol,
            ..Layers::default()
        };
        let over_tls = Layers {
            tls: tls.cloned(),
            ..plain.clone()
        };
        let over = |layers: &Layers, offer: Offer| Layers {
            websocket: Some(offer),
            ..layers.clone()
        };
        let mut mqtt = Bound::new(backlog);
        mqtt.usual("mqtt", &settings.listen_mqtt, plain.clone())
            .await?;
        mqtt.tcp("mqtt-tls", &settings.listen_mqtt_tls, over_tls.clone())
            .await?;
        let offer = settings.mqtt.websocket().map_err(Error::msg)?;
        let ws = over(&plain, offer.clone());
        mqtt.tcp("mqtt-ws", &settings.listen_mqtt_ws, ws).await?;
        let wss = over(&over_tls, offer);
        mqtt.tcp("mqtt-wss", &settings.listen_mqtt_wss, wss).await?;
        if let Some(tls) = tls {
            mqtt.quic("mqtt-quic", &settings.listen_mqtt_quic, tls, mqtt::ALPN)
                .await?;
        }
        let mut kafka = Bound::new(backlog);
        kafka
            .usual("kafka", &settings.listen_kafka, plain.clone())
            .await?;
        kafka
            .tcp("kafka-tls", &settings.listen_kafka_tls, over_tls.clone())
            .await?;
        let mut amqp = Bound::new(backlog);
        amqp.usual("amqp", &settings.listen_amqp, plain).await?;
        amqp.tcp("amqps", &settings.listen_amqps, over_tls).await?;
        Ok(Listeners {
            mqtt,
            kafka,
            amqp,
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

impl Listeners {
    /// A listener that a network reaches, while there is nobody whom a client could be, is a mistake: `loopback` is meant for trying out.
    /// With `certified` the listeners with TLS ask for certificates, which say who a client is.
    pub fn check_who_may_come(&self, identity: &Identity, certified: bool) -> Result<()> {
        if identity.anonymous_setting() != Anonymous::Loopback || !identity.is_empty() {
            return Ok(());
        }
        const WITH_TLS: [&str; 5] = ["mqtt-tls", "mqtt-wss", "mqtt-quic", "kafka-tls", "amqps"];
        let bound = [&self.mqtt, &self.kafka, &self.amqp];
        for (name, address) in bound.into_iter().flat_map(|bound| &bound.addresses) {
            let Some(address) = address else { continue };
            let proves = certified && WITH_TLS.contains(name);
            if !proves && !address.ip().to_canonical().is_loopback() {
                bail!(
                    "listen-{name} = {address} can be reached over a network, and there are no users: anybody could read and write. \
                     Start with the listeners on 127.0.0.1 and add a user (`towline user add NAME`), or start with --anonymous deny \
                     and add users then (nobody is let in before), or say --anonymous allow if everybody on that network may read and write. \
                     See docs/reference/security.md"
                );
            }
        }
        Ok(())
    }
}

/// What one front end listens on.
pub struct Bound {
    pub listeners: frontend::Listeners,
    /// For the ready line: the usual listener in any case, `None` where it is off; the others where they are on.
    pub addresses: Vec<(&'static str, Option<SocketAddr>)>,
    backlog: i32,
}

/// Each listener is called `name`, and its key is `listen-` and that.
impl Bound {
    fn new(backlog: i32) -> Bound {
        Bound {
            listeners: frontend::Listeners::default(),
            addresses: Vec::new(),
            backlog,
        }
    }

    async fn usual(&mut self, name: &'static str, listen: &Listen, layers: Layers) -> Result<()> {
        if listen.address().is_none() {
            self.addresses.push((name, None));
        }
        self.tcp(name, listen, layers).await
    }

    async fn tcp(&mut self, name: &'static str, listen: &Listen, layers: Layers) -> Result<()> {
        let Some(tcp) = bind(&format!("listen-{name}"), listen, self.backlog).await? else {
            return Ok(());
        };
        self.addresses.push((name, Some(tcp.local_addr()?)));
        let layers = Arc::new(layers);
        self.listeners.tcp.push(Listener { tcp, layers });
        Ok(())
    }

    async fn quic(
        &mut self,
        name: &'static str,
        listen: &Listen,
        tls: &Arc<Tls>,
        alpn: &'static [u8],
    ) -> Result<()> {
        let key = format!("listen-{name}");
        let Some(address) = resolve(&key, listen).await? else {
            return Ok(());
        };
        let quic = QuicListener::bind(address, tls.clone(), alpn).with_context(|| {
            format!("cannot listen on {address} (UDP): is another program listening there? Give another address with --{key}, or `off`")
        })?;
        self.addresses.push((name, Some(quic.local_addr()?)));
        self.listeners.quic.push(quic);
        Ok(())
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
