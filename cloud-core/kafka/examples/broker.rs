//! The Kafka front end alone over a kernel, to try clients against: `cargo run -p kafka --example broker -- DIR [PORT]`.

use std::time::Duration;

use kernel::{Kernel, KernelConfig, Ports};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: broker DIR [PORT]")?;
    let port: u16 = arguments.next().as_deref().unwrap_or("9092").parse()?;
    std::fs::create_dir_all(&dir)?;
    let kernel = Kernel::open(
        Ports::system(
            &dir,
            std::sync::Arc::new(kernel::ports::MemoryColdStore::default()),
        )?,
        KernelConfig::default(),
    )?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let ctx = frontend::Context::new(kernel.clone(), dir.as_ref())?;
            let listener = frontend::bind_tcp(([127, 0, 0, 1], port).into(), 128)?;
            println!("ready kafka={}", listener.local_addr()?);
            let front_end = kafka::start(ctx.clone(), listener);
            let maintenance = tokio::spawn({
                let kernel = kernel.clone();
                async move {
                    let mut tick = tokio::time::interval(Duration::from_secs(1));
                    loop {
                        tick.tick().await;
                        kernel.maintain().await;
                    }
                }
            });
            tokio::signal::ctrl_c().await?;
            ctx.shutdown.cancel();
            front_end.await?;
            maintenance.abort();
            kernel.shutdown().await;
            Ok(())
        })
}
