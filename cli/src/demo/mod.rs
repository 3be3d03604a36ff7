//! `towline demo`: a plant, a cut link, a dead edge, a dead core, and a balance that must close.

mod balance;
mod link;
mod plant;
mod readers;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::client::Admin;
use crate::daemon::{Daemon, Launch};
use crate::siblings::{self, Siblings};
use balance::Account;
use link::Link;
use plant::Plant;
use readers::Faces;

/// How long the edge may take to hand over its backlog at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// Show in a minute that nothing is lost: a plant of devices, a link that is cut, two kills, and the balance.
#[derive(Args)]
pub struct Demo {
    /// How many devices publish.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    devices: u32,
    /// Milliseconds between two readings of one device.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pause: u64,
    /// How long each act of the story lasts, in seconds (there are five).
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    act: u64,
    /// Keep the data and the logs here instead of in a temporary folder; must be empty or absent.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Demo {
    pub async fn run(self) -> Result<()> {
        let temporary;
        let folder = match &self.data_dir {
            Some(folder) => folder.clone(),
            None => {
                temporary = tempfile::tempdir().context("no temporary folder for the demo")?;
                temporary.path().to_owned()
            }
        };
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("can not create {}", folder.display()))?;
        let mut stage = Stage::set(siblings::find()?, &folder).await?;
        let told = stage.story(&self).await;
        stage.clear().await;
        told
    }
}

/// The two daemons, the link between them, and what is needed to start each again where it was.
struct Stage {
    siblings: Siblings,
    folder: PathBuf,
    core_arguments: Vec<String>,
    edge_arguments: Vec<String>,
    core: Option<Daemon>,
    edge: Option<Daemon>,
    link: Link,
    faces: Faces,
    edge_mqtt: String,
    admin: Admin,
    began: Instant,
}

impl Stage {
    async fn set(siblings: Siblings, folder: &Path) -> Result<Stage> {
        let began = Instant::now();
        let arguments = |listeners: &[(&str, &str)], data: &str| -> Vec<String> {
            let mut arguments = vec!["--data-dir".into(), folder.join(data).display().to_string()];
            for (listener, address) in listeners {
                arguments.extend([format!("--listen-{listener}"), (*address).to_owned()]);
            }
            arguments
        };
        // The first start takes free ports, later starts take the same ones again.
        let free = "127.0.0.1:0";
        let names = ["mqtt", "kafka", "amqp", "sync", "admin"];
        let any: Vec<(&str, &str)> = names.iter().map(|n| (*n, free)).collect();
        let core = start(&siblings.core, &arguments(&any, "core"), None, folder).await?;
        let mut fixed = Vec::new();
        for name in names {
            fixed.push((name, core.address(name)?));
        }
        let core_arguments = arguments(&fixed, "core");
        let faces = Faces {
            mqtt: core.address("mqtt")?.to_owned(),
            kafka: core.address("kafka")?.to_owned(),
            amqp: core.address("amqp")?.to_owned(),
        };
        let link = Link::open(core.address("sync")?.parse()?).await?;
        let credentials = folder.join("core").join("admin.credentials");
        let admin = Admin::from_file(None, &credentials)?;
        let token = admin.create_token(None, &[]).await?;

        let edge_start = |mqtt: &str, admin: &str| {
            let mut all = arguments(&[("mqtt", mqtt), ("admin", admin)], "edge");
            all.extend(["--core".into(), link.address().to_string()]);
            all.extend(["--name".into(), "plant-gateway".into()]);
            all
        };
        let edge = start(&siblings.edge, &edge_start(free, free), Some(token), folder).await?;
        let edge_mqtt = edge.address("mqtt")?.to_owned();
        let edge_arguments = edge_start(&edge_mqtt, edge.address("admin")?);
        Ok(Stage {
            siblings,
            folder: folder.to_owned(),
            core_arguments,
            edge_arguments,
            core: Some(core),
            edge: Some(edge),
            link,
            faces,
            edge_mqtt,
            admin,
            began,
        })
    }

    async fn story(&mut self, demo: &Demo) -> Result<()> {
        let act = Duration::from_secs(demo.act);
        self.say("an edge and a core are up; a durable AMQP queue and a persistent MQTT session are waiting");
        self.faces.prepare().await?;
        let plant = Plant::start(
            &self.edge_mqtt,
            demo.devices,
            Duration::from_millis(demo.pause),
        )?;
        let edge_connected = self.wait_for_edge().await;
        self.say(&format!(
            "{} devices publish through the edge",
            demo.devices
        ));
        edge_connected?;
        self.watch(&plant, act).await;

        self.link.cut();
        self.say("the link is CUT: the edge goes on acknowledging, from its own disk");
        self.watch(&plant, act).await;

        self.take_edge()?.kill().await?;
        self.say("the edge is KILLED (kill -9), with its outbox full");
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.edge = Some(
            start(
                &self.siblings.edge,
                &self.edge_arguments,
                None,
                &self.folder,
            )
            .await?,
        );
        self.say("the edge is back; the devices reconnect and go on");
        self.watch(&plant, act).await;

        let before = self.readable().await?;
        self.link.restore();
        self.say("the link is back: the backlog drains beside the live readings");
        self.wait_for_backlog(before).await?;
        let core = self.core.take().context("the core is not running")?;
        core.kill().await?;
        self.say("the core is KILLED (kill -9) while it takes in the backlog");
        self.watch(&plant, act).await;
        self.core = Some(
            start(
                &self.siblings.core,
                &self.core_arguments,
                None,
                &self.folder,
            )
            .await?,
        );
        self.say("the core is back");
        self.watch(&plant, act).await;

        self.say("the plant stops; the last readings are acknowledged and drain");
        let counters = plant.counters.clone();
        let sent = plant.finish().await?;
        let acknowledged = counters.acknowledged.load(Ordering::Relaxed);
        self.drain(acknowledged).await?;
        self.balance(acknowledged, &sent).await
    }

    /// Reads everything back through the three protocols and prints the balance.
    async fn balance(&self, acknowledged: u64, sent: &HashMap<u32, u64>) -> Result<()> {
        self.say("reading everything back with rdkafka, lapin and rumqttc");
        let (kafka, amqp, mqtt) = tokio::try_join!(
            self.faces.read_kafka(),
            self.faces.read_amqp(),
            self.faces.read_mqtt()
        )?;
        let accounts = [
            ("readable from Kafka", Account::of(&kafka, sent)),
            ("readable from AMQP", Account::of(&amqp, sent)),
            ("delivered over MQTT", Account::of(&mqtt, sent)),
        ];
        println!();
        println!("  {:<24}{acknowledged:>10}", "acknowledged by the edge");
        for (face, account) in &accounts {
            println!(
                "  {face:<24}{:>10}    lost {}   duplicated {}   out of order {}",
                account.read, account.lost, account.duplicated, account.out_of_order
            );
        }
        println!();
        if accounts
            .iter()
            .all(|(_, account)| account.closes() && account.read == acknowledged)
        {
            println!("  The balance closes: 0 lost, 0 duplicated, 0 out of order.");
            return Ok(());
        }
        bail!("the balance does not close (the figures are above)")
    }

    async fn wait_for_edge(&self) -> Result<()> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        while Instant::now() < deadline {
            if self
                .admin
                .edges()
                .await?
                .iter()
                .any(|edge| edge.state == admin_api::EdgeState::Connected)
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!(
            "the edge did not connect to the core within {DRAIN_WITHIN:?}; see the logs in {}",
            self.folder.display()
        )
    }

    /// Waits until the first part of the backlog has reached the core.
    async fn wait_for_backlog(&self, before: u64) -> Result<()> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        while Instant::now() < deadline {
            if self.readable().await? > before {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!(
            "nothing of the backlog reached the core within {DRAIN_WITHIN:?} of the link's return"
        )
    }

    /// Waits until the core holds as many readings as were acknowledged.
    async fn drain(&self, acknowledged: u64) -> Result<()> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        let mut readable = 0;
        while Instant::now() < deadline {
            readable = self.readable().await.unwrap_or(readable);
            if readable >= acknowledged {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!(
            "after {DRAIN_WITHIN:?} the core has {readable} of {acknowledged} acknowledged readings"
        )
    }

    /// Readings in the core's log.
    async fn readable(&self) -> Result<u64> {
        let streams = self.admin.streams().await?;
        Ok(streams
            .iter()
            .filter(|stream| stream.name == plant::STREAM)
            .map(|stream| stream.records)
            .sum())
    }

    /// Prints the counters once a second while an act is played.
    async fn watch(&self, plant: &Plant, act: Duration) {
        let end = Instant::now() + act;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let readable = match &self.core {
                Some(_) => self
                    .readable()
                    .await
                    .map_or("?".into(), |count| count.to_string()),
                None => "dead".into(),
            };
            println!(
                "          published {:>7}   acknowledged {:>7}   in the core {readable:>7}",
                plant.counters.published.load(Ordering::Relaxed),
                plant.counters.acknowledged.load(Ordering::Relaxed),
            );
        }
    }

    fn take_edge(&mut self) -> Result<Daemon> {
        self.edge.take().context("the edge is not running")
    }

    fn say(&self, what: &str) {
        println!("  {:>4.0} s  {what}", self.began.elapsed().as_secs_f32());
    }

    /// Stops what still runs, in the order in which data flows.
    async fn clear(mut self) {
        for daemon in [self.edge.take(), self.core.take()].into_iter().flatten() {
            if let Err(error) = daemon.stop().await {
                eprintln!("{error:#}");
            }
        }
    }
}

async fn start(
    program: &Path,
    arguments: &[String],
    token: Option<String>,
    folder: &Path,
) -> Result<Daemon> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    Daemon::start(Launch {
        program,
        arguments: arguments.to_vec(),
        token,
        log: folder.join(format!("{name}.log")),
    })
    .await
}
