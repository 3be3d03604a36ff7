//! A proxy that stands between a store and its server, and breaks what it is told to break.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::http::{self, Message};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It waits that long.
    Delay(Duration),
    /// The connection ends before the server hears of it.
    Close,
    /// The server hears half of the body.
    CutRequest,
    /// The proxy answers with that status, the server hears nothing.
    Answer(u16),
    /// The server does it, nobody hears of it.
    DropAnswer,
    /// The server does it, and the body of its answer ends in the middle.
    CutAnswer,
}

type Plan = Box<dyn FnMut(&str) -> Fault + Send>;

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    /// A creation of what is there is answered as if it had been done.
    lies: Arc<AtomicBool>,
    /// Requests that came, first line each, with what was done to them.
    log: Arc<Mutex<Vec<(String, Fault)>>>,
}

impl Proxy {
    /// Listens, and asks `plan` about every request's first line.
    pub async fn start(
        server: SocketAddr,
        plan: impl FnMut(&str) -> Fault + Send + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            plan: Arc::new(Mutex::new(Box::new(plan))),
            lies: Arc::default(),
            log: Arc::default(),
        };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = serving.clone();
                tokio::spawn(async move {
                    // An error is a connection that ended: that is what this is for.
                    let _ = proxy.serve(client, server).await;
                });
            }
        });
        proxy
    }

    pub fn plan(&self, plan: impl FnMut(&str) -> Fault + Send + 'static) {
        *self.plan.lock().unwrap() = Box::new(plan);
    }

    /// From now on the store seems to know nothing of conditions.
    pub fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }

    pub fn log(&self) -> Vec<(String, Fault)> {
        self.log.lock().unwrap().clone()
    }

    async fn serve(&self, client: TcpStream, server: SocketAddr) -> std::io::Result<()> {
        let mut client = BufReader::new(client);
        let mut server = BufReader::new(TcpStream::connect(server).await?);
        while let Some(request) = http::read(&mut client, false).await? {
            let fault = (self.plan.lock().unwrap())(request.start());
            let line = (request.start().to_owned(), fault);
            self.log.lock().unwrap().push(line);
            match fault {
                Fault::None => {}
                Fault::Delay(time) => tokio::time::sleep(time).await,
                Fault::Close => return Ok(()),
                Fault::CutRequest => {
                    let wire = request.wire();
                    let half = request.head.len() + request.body.len() / 2;
                    server.write_all(&wire[..half]).await?;
                    return server.shutdown().await;
                }
                Fault::Answer(status) => {
                    let answer = format!("HTTP/1.1 {status} Broken\r\ncontent-length: 0\r\n\r\n");
                    client.write_all(answer.as_bytes()).await?;
                    continue;
                }
                Fault::DropAnswer | Fault::CutAnswer => {
                    let answer = exchange(&mut server, &request).await?;
                    if fault == Fault::CutAnswer {
                        let half = answer.head.len() + answer.body.len() / 2;
                        client.write_all(&answer.wire()[..half]).await?;
                        client.shutdown().await?;
                    }
                    return Ok(());
                }
            }
            let answer = exchange(&mut server, &request).await?;
            let refused = answer.start().contains(" 412 ");
            let wire = if refused && self.lies.load(Ordering::Relaxed) {
                b"HTTP/1.1 200 OK\r\netag: \"0\"\r\ncontent-length: 0\r\n\r\n".to_vec()
            } else {
                answer.wire()
            };
            client.write_all(&wire).await?;
        }
        Ok(())
    }
}

async fn exchange(
    server: &mut BufReader<TcpStream>,
    request: &Message,
) -> std::io::Result<Message> {
    server.write_all(&request.wire()).await?;
    let to_head = request.start().starts_with("HEAD ");
    let answer = http::read(server, to_head).await?;
    answer.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}
