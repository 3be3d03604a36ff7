//! The layers, each alone and over real sockets.

mod certificates;
mod proxy;
mod tls;
mod websocket;
