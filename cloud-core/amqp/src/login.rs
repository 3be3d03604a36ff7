//! Who a client is: SASL mechanisms of `connection.start-ok`.

use bytes::Bytes;
use frontend::{Identity, LoginError, Peer, Principal};

use crate::{
    broker::Broker,
    error::{Exception, code},
    method::StartOk,
    wire::{Table, Value},
};

/// Refusals read as RabbitMQ's, by which clients tell a wrong password from a broken connection.
pub async fn login(broker: &Broker, peer: &Peer, start: &StartOk) -> Result<Principal, Exception> {
    let identity = &broker.context.identity;
    let (user, password) = match start.mechanism.as_str() {
        "PLAIN" => plain(&start.response),
        "AMQPLAIN" => amqplain(&start.response),
        "EXTERNAL" => {
            let certificate = peer.certificate.as_ref();
            let name = certificate.and_then(|one| Identity::name_of(one));
            return name
                .ok_or(LoginError::NoName)
                .and_then(|name| identity.certificate(name))
                .map_err(|error| refused(&start.mechanism, error));
        }
        other => {
            return Err(access_refused(format_args!(
                "mechanism '{other}' is not offered: use PLAIN"
            )));
        }
    }
    .ok_or_else(|| {
        access_refused(format_args!(
            "the {} response is malformed",
            start.mechanism
        ))
    })?;
    let checked = identity.password(&user, &password, peer).await;
    checked.map_err(|error| refused(&start.mechanism, error))
}

fn access_refused(text: impl std::fmt::Display) -> Exception {
    Exception::connection(code::ACCESS_REFUSED, text)
}

fn refused(mechanism: &str, error: LoginError) -> Exception {
    match error {
        LoginError::TooMany | LoginError::Busy => access_refused(error),
        _ => access_refused(format_args!(
            "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
        )),
    }
}

/// RFC 4616: authorisation identity, user name and password, separated by zero bytes.
fn plain(response: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut parts = response.split(|byte| *byte == 0);
    let (for_whom, user) = (parts.next()?, parts.next()?);
    let password = parts.next()?;
    // Acting for somebody else is not offered.
    let itself = for_whom.is_empty() || for_whom == user;
    let user = std::str::from_utf8(user).ok()?;
    (itself && parts.next().is_none()).then(|| (user.to_owned(), password.to_vec()))
}

/// A table without its length, with LOGIN and PASSWORD (AMQP 0-8's own mechanism, which RabbitMQ keeps).
fn amqplain(response: &Bytes) -> Option<(String, Vec<u8>)> {
    let table = Table::parse_fields(response.clone()).ok()?;
    let user = table.get("LOGIN")?.as_text()?;
    let password = match table.get("PASSWORD")? {
        Value::LongString(bytes) | Value::Bytes(bytes) => bytes.to_vec(),
        _ => return None,
    };
    Some((user.to_owned(), password))
}

/// `connection_name` of the client's properties.
pub fn client_name(start: &StartOk) -> String {
    const LONGEST: usize = 256;
    let name = start.client_properties.get("connection_name");
    let name = name.and_then(Value::as_text).unwrap_or_default();
    name.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_responses() {
        let ann = Some(("ann".to_owned(), b"secret".to_vec()));
        for (response, expected) in [
            (&b"\0ann\0secret"[..], ann.clone()),
            (b"ann\0ann\0secret", ann),
            (b"root\0ann\0secret", None),
            (b"\0ann", None),
            (b"\0ann\0a\0b", None),
            (b"\0\xff\0x", None),
            (b"", None),
        ] {
            assert_eq!(plain(response), expected, "{response:?}");
        }
    }

    #[test]
    fn amqplain_responses() {
        let response = b"\x05LOGINS\0\0\0\x03ann\x08PASSWORDS\0\0\0\x06secret";
        assert_eq!(
            amqplain(&Bytes::from_static(response)),
            Some(("ann".to_owned(), b"secret".to_vec()))
        );
        for cut in 0..response.len() {
            assert_eq!(
                amqplain(&Bytes::from_static(&response[..cut])),
                None,
                "{cut}"
            );
        }
    }
}
