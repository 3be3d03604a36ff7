//! Who a client is: by what CONNECT says, or by an exchange of AUTH packets (MQTT 5 section 4.12).

use crate::access::{Access, Admitted, Exchange, Login, Peer, Step};
use crate::backend::{Backend, ClientId, ConnectError};
use crate::connection::{Connection, End};
use crate::fit::Fit;
use crate::incoming::{Incoming, NoPacket};
use crate::limits;
use bytes::{Bytes, BytesMut};
use mqtt_codec::{Auth, Connect, DecodeError, Packet, Properties, ReasonCode};
use mqtt_session::Close;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};

/// Why there is no connection.
pub(crate) enum Refused {
    /// The client is told in CONNACK.
    With(ReasonCode),
    /// It has left, or takes no packet as large as the next one.
    Gone,
}

impl From<ReasonCode> for Refused {
    fn from(reason_code: ReasonCode) -> Refused {
        Refused::With(reason_code)
    }
}

impl From<ConnectError> for Refused {
    fn from(error: ConnectError) -> Refused {
        Refused::With(reason_code(&error))
    }
}

fn reason_code(error: &ConnectError) -> ReasonCode {
    match error {
        ConnectError::BadUserNameOrPassword => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        ConnectError::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
        ConnectError::ServerUnavailable => ReasonCode::SERVER_UNAVAILABLE,
        ConnectError::RateExceeded => ReasonCode::CONNECTION_RATE_EXCEEDED,
        ConnectError::BadAuthenticationMethod => ReasonCode::BAD_AUTHENTICATION_METHOD,
        ConnectError::MalformedData => ReasonCode::PROTOCOL_ERROR,
    }
}

/// What a connection authenticated with by AUTH, so that it can do so again.
pub(crate) struct Enhanced {
    pub method: String,
    peer: Peer,
    /// An exchange that the client has begun again.
    exchange: Option<Box<dyn Exchange>>,
}

/// The connection before it is one.
pub(crate) struct Wire<'a, S> {
    pub incoming: &'a mut Incoming<S>,
    pub writer: &'a mut WriteHalf<S>,
    pub fit: &'a Fit,
}

/// Who the client is; with AUTH, also what CONNACK has to say of it.
pub(crate) async fn on_connect<S: AsyncRead + AsyncWrite>(
    access: &dyn Access,
    connect: &Connect,
    client: &ClientId,
    peer: &Peer,
    wire: &mut Wire<'_, S>,
) -> Result<(Admitted, Option<(Enhanced, Bytes)>), Refused> {
    let Some(method) = &connect.properties.authentication_method else {
        let login = Login {
            client,
            user_name: connect.user_name.as_deref(),
            password: connect.password.as_deref(),
            peer,
        };
        return Ok((access.authenticate(login).await?, None));
    };
    let exchange = access.exchange(method, client, peer)?;
    let data = connect.properties.authentication_data.clone();
    let exchanging = exchange_auth(exchange, method, data.unwrap_or_default(), wire);
    let (admitted, data) = tokio::time::timeout(limits::CONNECT_TIMEOUT, exchanging)
        .await
        .unwrap_or(Err(Refused::Gone))?;
    let enhanced = Enhanced {
        method: method.clone(),
        peer: peer.clone(),
        exchange: None,
    };
    Ok((admitted, Some((enhanced, data))))
}

/// AUTH to and fro until the client is known.
async fn exchange_auth<S: AsyncRead + AsyncWrite>(
    mut exchange: Box<dyn Exchange>,
    method: &str,
    mut data: Bytes,
    wire: &mut Wire<'_, S>,
) -> Result<(Admitted, Bytes), Refused> {
    loop {
        match exchange.step(&data).await? {
            Step::Done { admitted, data } => return Ok((admitted, data)),
            Step::Continue(question) => {
                let packet = auth(ReasonCode::CONTINUE_AUTHENTICATION, method, question);
                let mut output = BytesMut::new();
                if !wire.fit.encode(&packet, &mut output) {
                    // [MQTT-3.1.2-24]
                    return Err(Refused::Gone);
                }
                let sent = async {
                    wire.writer.write_all(&output).await?;
                    wire.writer.flush().await
                };
                sent.await.map_err(|_| Refused::Gone)?;
            }
        }
        data = answer(method, wire).await?;
    }
}

/// What CONNACK has to say of a packet that can not be read. It has no codes for a topic in it: such a packet has no place here anyway.
fn not_auth(error: &DecodeError) -> ReasonCode {
    match error {
        DecodeError::Malformed(_) | DecodeError::PacketTooLarge { .. } => error.reason_code(),
        _ => ReasonCode::PROTOCOL_ERROR,
    }
}

/// The client's next AUTH. It may send nothing else before CONNACK [MQTT-3.1.2-30], other than goodbye.
async fn answer<S: AsyncRead>(method: &str, wire: &mut Wire<'_, S>) -> Result<Bytes, Refused> {
    let packet = match wire.incoming.next().await {
        Ok(packet) => packet,
        Err(NoPacket::Gone) => return Err(Refused::Gone),
        Err(NoPacket::NoRoom) => return Err(ReasonCode::QUOTA_EXCEEDED.into()),
        Err(NoPacket::Wrong(error)) => return Err(not_auth(&error).into()),
    };
    match packet {
        Packet::Auth(packet) => {
            let same = packet.properties.authentication_method.as_deref() == Some(method);
            if packet.reason_code != ReasonCode::CONTINUE_AUTHENTICATION || !same {
                return Err(ReasonCode::PROTOCOL_ERROR.into());
            }
            Ok(packet.properties.authentication_data.unwrap_or_default())
        }
        Packet::Disconnect(_) => Err(Refused::Gone),
        _ => Err(ReasonCode::PROTOCOL_ERROR.into()),
    }
}

fn auth(reason_code: ReasonCode, method: &str, data: Bytes) -> Packet {
    Packet::Auth(Auth {
        reason_code,
        properties: Properties {
            authentication_method: Some(method.to_owned()),
            authentication_data: Some(data),
            ..Properties::default()
        },
    })
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    /// AUTH of a connected client: it proves once more who it is (section 4.12.1). What it has sent before stays as it is.
    pub(crate) async fn authenticate_again(&mut self, packet: Auth) -> Result<(), End> {
        self.shared.stop();
        let wrong = |what: &'static str| End::from(Close::new(ReasonCode::PROTOCOL_ERROR, what));
        let Some(enhanced) = &mut self.enhanced else {
            return Err(wrong("AUTH without an authentication method in CONNECT"));
        };
        let method = packet.properties.authentication_method.as_deref();
        if method != Some(&enhanced.method) {
            // [MQTT-4.12.1-1]
            return Err(wrong("AUTH with another method than CONNECT"));
        }
        let refused = |error: ConnectError| {
            // [MQTT-4.12.1-2]; DISCONNECT has no codes of its own for a wrong password and a server that is not available.
            let code = match error {
                ConnectError::BadUserNameOrPassword => ReasonCode::NOT_AUTHORIZED,
                ConnectError::ServerUnavailable => ReasonCode::SERVER_BUSY,
                _ => reason_code(&error),
            };
            End::from(Close::new(code, error.to_string()))
        };
        let mut exchange = match (packet.reason_code, enhanced.exchange.take()) {
            (ReasonCode::RE_AUTHENTICATE, None) => self
                .broker
                .access
                .exchange(&enhanced.method, &self.principal.client, &enhanced.peer)
                .map_err(refused)?,
            (ReasonCode::CONTINUE_AUTHENTICATION, Some(exchange)) => exchange,
            _ => return Err(wrong("AUTH with a reason code that is not its turn")),
        };
        let data = packet.properties.authentication_data.unwrap_or_default();
        let reply = match exchange.step(&data).await.map_err(refused)? {
            Step::Continue(question) => {
                enhanced.exchange = Some(exchange);
                auth(
                    ReasonCode::CONTINUE_AUTHENTICATION,
                    &enhanced.method,
                    question,
                )
            }
            Step::Done { admitted, data } => {
                if admitted.user != self.principal.user {
                    // The session is the user's: somebody else needs a connection of his own.
                    return Err(refused(ConnectError::NotAuthorized));
                }
                let reply = auth(ReasonCode::SUCCESS, &enhanced.method, data);
                self.principal.revoked = admitted.revoked;
                self.principal.expires = admitted.expires;
                reply
            }
        };
        self.write(&reply);
        Ok(())
    }
}
