//! `towline up`: a core and an edge joined to it, on this machine, until Ctrl-C.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use settings::{Flags, Listen, settings};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Admin;
use crate::contexts::{Contexts, Target};
use crate::daemon::{Daemon, Launch};
use crate::siblings::{self, Siblings};
use crate::status;

/// The context that `up` makes.
const CONTEXT: &str = "local";

settings! {
    pub struct UpSettings {
        /// Where both keep their data (in `core` and `edge` below it)
        pub data_dir: PathBuf = "./towline-data";
        /// MQTT listener of the edge: devices publish here
        pub edge_listen_mqtt: Listen = "127.0.0.1:1883";
        /// MQTT listener of the core: dashboards and applications
        pub listen_mqtt: Listen = "127.0.0.1:1884";
        /// Kafka listener of the core
        pub listen_kafka: Listen = "127.0.0.1:9092";
        /// AMQP 0-9-1 listener of the core
        pub listen_amqp: Listen = "127.0.0.1:5672";
        /// Sync listener of the core (UDP): edges connect here
        pub listen_sync: Listen = "127.0.0.1:4884";
        /// Admin listener of the core: this command line, /healthz, /readyz, /metrics
        pub listen_admin: Listen = "127.0.0.1:8484";
        /// The host name that Kafka clients are told to connect to
        pub advertise: Option<String>;
    }
}

/// Start a core and an edge that is joined to it, and show what flows. Ctrl-C stops both.
#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    flags: Flags<UpSettings>,
}

impl Up {
    pub async fn run(self) -> Result<()> {
        self.flags.load()?.settings.run().await
    }
}

impl UpSettings {
    async fn run(self) -> Result<()> {
        // From here on these two end the program in order, not at once.
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let siblings = siblings::find()?;
        std::fs::create_dir_all(&self.data_dir).with_context(|| {
            format!(
                "can not create the data directory {}",
                self.data_dir.display()
            )
        })?;

        let mut core = self.start_core(&siblings).await?;
        let mut edge = match self.start_edge(&siblings, &core).await {
            Ok(edge) => edge,
            Err(error) => {
                core.stop().await?;
                return Err(error);
            }
        };
        print!("{}", endpoints(&core, &edge)?);
        let edge_admin = edge.address("admin")?.to_owned();
        let died = tokio::select! {
            _ = interrupted.recv() => None,
            _ = terminated.recv() => None,
            status = edge.stopped() => Some(("towline-edge", status?, "edge.log")),
            status = core.stopped() => Some(("towline-core", status?, "core.log")),
            () = status::show(edge_admin) => None,
        };
        println!("\n  stopping: the edge first, then the core ...");
        // Whichever died has nothing left to stop; the other one is stopped in order.
        if !matches!(died, Some(("towline-edge", ..))) {
            edge.stop().await?;
        }
        if !matches!(died, Some(("towline-core", ..))) {
            core.stop().await?;
        }
        if let Some((program, status, log)) = died {
            bail!(
                "{program} stopped by itself ({status}); its log is {}",
                self.data_dir.join(log).display()
            );
        }
        println!(
            "  stopped. All data is in {}; `towline up` continues from there.",
            self.data_dir.display()
        );
        Ok(())
    }

    async fn start_core(&self, siblings: &Siblings) -> Result<Daemon> {
        let mut arguments = vec!["--data-dir".into(), display(&self.data_dir.join("core"))];
        for (flag, address) in [
            ("--listen-mqtt", &self.listen_mqtt),
            ("--listen-kafka", &self.listen_kafka),
            ("--listen-amqp", &self.listen_amqp),
            ("--listen-sync", &self.listen_sync),
            ("--listen-admin", &self.listen_admin),
        ] {
            arguments.extend([flag.into(), address.to_string()]);
        }
        if let Some(host) = &self.advertise {
            arguments.extend(["--advertise".into(), host.clone()]);
        }
        Daemon::start(Launch {
            program: &siblings.core,
            arguments,
            token: None,
            log: self.data_dir.join("core.log"),
        })
        .await
    }

    /// Starts the edge with a token made for it, which it uses only if it has no certificate yet.
    async fn start_edge(&self, siblings: &Siblings, core: &Daemon) -> Result<Daemon> {
        let mut arguments = vec![
            "--data-dir".into(),
            display(&self.data_dir.join("edge")),
            "--listen-mqtt".into(),
            self.edge_listen_mqtt.to_string(),
            // For trying out: who opens it to the network with --edge-listen-mqtt means it.
            "--allow-anonymous=true".into(),
            "--listen-admin".into(),
            "127.0.0.1:0".into(),
        ];
        if let Some(sync) = core.open("sync") {
            arguments.extend(["--core".into(), sync.replace("0.0.0.0:", "127.0.0.1:")]);
        }
        let mut token = None;
        let credentials =
            std::path::absolute(self.data_dir.join("core").join("admin.credentials"))?;
        if let Some(admin) = core.open("admin") {
            let url = format!("http://{admin}");
            remember(&url, &credentials)?;
            let admin = Admin::from_file(Some(&url), &credentials)?;
            token = Some(admin.create_token(None, &[]).await?);
        }
        Daemon::start(Launch {
            program: &siblings.edge,
            arguments,
            token,
            log: self.data_dir.join("edge.log"),
        })
        .await
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// Makes the context `local`, so that `towline get edges` works in another terminal.
fn remember(core: &str, credentials: &Path) -> Result<()> {
    let path = Contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    let target = Target {
        core: Some(core.to_owned()),
        credentials: credentials.to_owned(),
    };
    contexts.add(CONTEXT, target);
    contexts.save(&path)
}

/// What can be pasted into another terminal, for each listener that is open.
fn endpoints(core: &Daemon, edge: &Daemon) -> Result<String> {
    let mut text = String::from("\n  Towline is up.\n\n");
    let mut line = |what: &str, address: &str| text.push_str(&format!("  {what:<28}{address}\n"));
    let devices = edge.address("mqtt")?.to_owned();
    line("edge, MQTT for devices", &devices);
    for (what, listener) in [
        ("core, MQTT", "mqtt"),
        ("core, Kafka", "kafka"),
        ("core, AMQP 0-9-1", "amqp"),
        ("core, sync (QUIC over UDP)", "sync"),
        ("core, admin", "admin"),
    ] {
        line(what, core.open(listener).unwrap_or("off"));
    }
    text.push_str("\n  Try it, in other terminals. MQTT and AMQP readers get what comes after them, so they go first:\n\n");
    if let Some((host, port)) = core.open("mqtt").and_then(|a| a.rsplit_once(':')) {
        text.push_str(&format!(
            "  mosquitto_sub -h {host} -p {port} -v -t 'sensors/#'\n\n"
        ));
    }
    if let Some((host, port)) = core.open("amqp").and_then(|a| a.rsplit_once(':')) {
        text.push_str(&format!(
            "  python3 -c \"import pika; c = pika.BlockingConnection(pika.ConnectionParameters('{host}', {port})).channel()\n\
             q = c.queue_declare('', exclusive=True).method.queue; c.queue_bind(q, 'amq.topic', 'sensors.#')\n\
             for m, p, body in c.consume(q, auto_ack=True): print(m.routing_key, body)\"\n\n"
        ));
    }
    if let Some((host, port)) = devices.rsplit_once(':') {
        text.push_str(&format!(
            "  mosquitto_pub -h {host} -p {port} -q 1 -t sensors/line1/temp -m 21.5\n\n"
        ));
    }
    if let Some(kafka) = core.open("kafka") {
        text.push_str(&format!(
            "  kcat -b {kafka} -t sensors -C -f '%k %s\\n'\n\n"
        ));
    }
    Ok(text)
}
