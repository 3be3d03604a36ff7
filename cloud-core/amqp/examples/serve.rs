//! A kernel with this front end alone, to try clients against: `cargo run -p amqp --example serve -- DATA-DIR 127.0.0.1:5672`.

use anyhow::Context as _;
use kernel::{Kernel, KernelConfig, Ports};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = std::path::PathBuf::from(arguments.next().context("which data directory?")?);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:5672".to_owned());
    std::fs::create_dir_all(&directory)?;
    let kernel = Kernel::open(
        Ports::system(
            &directory,
            std::sync::Arc::new(kernel::ports::MemoryColdStore::default()),
        )?,
        KernelConfig::default(),
    )?;
    let context = frontend::Context::new(kernel.clone(), &directory)?;
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("ready amqp={}", listener.local_addr()?);
    let served = amqp::start(context.clone(), listener);
    tokio::signal::ctrl_c().await?;
    context.shutdown.cancel();
    served.await?;
    kernel.shutdown().await;
    Ok(())
}
