//! All front ends, in one place. A new protocol is one more line in [`start`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use cloud_sync::{SyncFrontend, Timing};
use frontend::Context;
use mqtt::{Mqtt, MqttOptions};
use tokio::task::JoinSet;

use crate::listeners::{Bound, Listeners};

/// What runs. The tasks end when the context is shut down; one that ends before has failed.
pub struct Running {
    pub tasks: JoinSet<&'static str>,
    /// `None` where the sync listener is off.
    pub sync: Option<SyncFrontend>,
    pub mqtt: Mqtt,
    /// In the order of the ready line; `None` where it is off, and shown all the same. Without `admin`, which is not a front end.
    pub addresses: Vec<(&'static str, Option<SocketAddr>)>,
}

/// Starts every front end that listens anywhere.
pub fn start(ctx: &Context, listeners: Listeners, mqtt_options: MqttOptions) -> Result<Running> {
    let Listeners {
        mqtt,
        kafka,
        amqp,
        admin: _,
        sync,
        sync_tls,
    } = listeners;
    let mut running = Running {
        tasks: JoinSet::new(),
        sync: None,
        mqtt: Mqtt::default(),
        addresses: Vec::new(),
    };
    let mut sync_address = None;
    if let Some(address) = sync {
        let (front_end, handle) = cloud_sync::start(ctx.clone(), address, sync_tls, Timing::core())
            .context("the sync front end cannot start")?;
        sync_address = Some(front_end.local_addr());
        running.sync = Some(front_end);
        running.watch("sync", handle);
    }
    let handle = running.mqtt.clone();
    running.serve(ctx, "mqtt", mqtt, |ctx, listeners| {
        mqtt::start(ctx, listeners, mqtt_options, handle)
    });
    running.serve(ctx, "kafka", kafka, kafka::start);
    running.serve(ctx, "amqp", amqp, amqp::start);
    running.addresses.push(("sync", sync_address));
    Ok(running)
}

impl Running {
    fn serve(
        &mut self,
        ctx: &Context,
        name: &'static str,
        bound: Bound,
        start: impl FnOnce(Context, frontend::Listeners) -> tokio::task::JoinHandle<()>,
    ) {
        let listens = bound.addresses.iter().any(|(_, address)| address.is_some());
        self.addresses.extend(bound.addresses);
        if listens {
            self.watch(name, start(ctx.clone(), bound.listeners));
        }
    }

    fn watch(&mut self, name: &'static str, handle: tokio::task::JoinHandle<()>) {
        self.tasks.spawn(async move {
            if let Err(error) = handle.await {
                tracing::error!(name, %error, "a front end ended by a bug in this program");
            }
            name
        });
    }

    /// The listeners that are open, by name.
    pub fn open(&self) -> BTreeMap<String, String> {
        let open = self
            .addresses
            .iter()
            .filter_map(|(name, address)| Some((name.to_string(), (*address)?.to_string())));
        open.collect()
    }
}
