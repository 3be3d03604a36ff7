//! Methods on channel 0 of an open connection.

use crate::{
    connection::Session,
    error::{Exception, code},
    method::Method,
    reply,
};

impl Session {
    pub fn handle_connection_method(&mut self, method: Method) -> Result<(), Exception> {
        match method {
            Method::ConnectionClose { code, text } => {
                tracing::debug!(code, text, "connection closed by the client");
                reply::plain(&mut self.out, 0, reply::CONNECTION_CLOSE_OK);
                self.ended = true;
                Ok(())
            }
            other => Err(Exception::connection(
                code::COMMAND_INVALID,
                format_args!("unexpected on channel 0: {}", name(&other)),
            )),
        }
    }
}

/// The variant's name, without what it carries.
fn name(method: &Method) -> String {
    let text = format!("{method:?}");
    text.split(['(', ' ', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}
