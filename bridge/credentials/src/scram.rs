//! SCRAM, the server's side (RFC 5802; SHA-256 by RFC 7677). Channel binding is not offered. Names and passwords are compared as the
//! bytes of their UTF-8 form: no SASLprep, which common clients do not apply either.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    Sha256,
    Sha512,
}

impl Mechanism {
    pub const ALL: [Mechanism; 2] = [Mechanism::Sha256, Mechanism::Sha512];

    /// The name in the registry of SASL mechanisms.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Sha256 => "SCRAM-SHA-256",
            Mechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    pub fn from_name(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|one| one.name() == name)
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Mechanism::Sha256 => hmac::HMAC_SHA256,
            Mechanism::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn hash(self) -> &'static digest::Algorithm {
        match self {
            Mechanism::Sha256 => &digest::SHA256,
            Mechanism::Sha512 => &digest::SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Mechanism::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Mechanism::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn sign(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), message)
            .as_ref()
            .to_vec()
    }
}

/// What a server keeps of a password: it can check the client's proof with it, and nobody can log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    mechanism: Mechanism,
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys({}, ..)", self.mechanism.name())
    }
}

impl ScramKeys {
    /// Keys of this password with a new salt. Takes some milliseconds.
    pub fn of(mechanism: Mechanism, password: &[u8]) -> ScramKeys {
        let iterations = NonZeroU32::new(limits::SCRAM_ITERATIONS).unwrap_or(NonZeroU32::MIN);
        let salt: [u8; 16] = rand::random();
        ScramKeys::derive(mechanism, password, &salt, iterations)
    }

    fn derive(
        mechanism: Mechanism,
        password: &[u8],
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> ScramKeys {
        let mut salted = vec![0; mechanism.hash().output_len()];
        pbkdf2::derive(mechanism.pbkdf2(), iterations, salt, password, &mut salted);
        let client_key = mechanism.sign(&salted, b"Client Key");
        ScramKeys {
            mechanism,
            iterations,
            salt: salt.to_vec(),
            stored_key: digest::digest(mechanism.hash(), &client_key)
                .as_ref()
                .to_vec(),
            server_key: mechanism.sign(&salted, b"Server Key"),
        }
    }

    /// Keys of no password, for a name that nobody has: always the same for one name under one secret, so that asking twice does not
    /// show that there is no such user.
    pub fn of_nobody(mechanism: Mechanism, name: &str, secret: &[u8; 32]) -> ScramKeys {
        let mut salt = mechanism.sign(secret, name.as_bytes());
        salt.truncate(16);
        ScramKeys {
            mechanism,
            iterations: NonZeroU32::new(limits::SCRAM_ITERATIONS).unwrap_or(NonZeroU32::MIN),
            salt,
            stored_key: rand::random::<[u8; 32]>().to_vec(),
            server_key: rand::random::<[u8; 32]>().to_vec(),
        }
    }

    /// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY` (the form of PostgreSQL and others).
    pub fn parse(text: &str) -> Option<ScramKeys> {
        let mut parts = text.split('$');
        let mechanism = Mechanism::from_name(parts.next()?)?;
        let (iterations, salt) = parts.next()?.split_once(':')?;
        let (stored, server) = parts.next()?.split_once(':')?;
        let keys = ScramKeys {
            mechanism,
            iterations: iterations.parse().ok()?,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: STANDARD.decode(stored).ok()?,
            server_key: STANDARD.decode(server).ok()?,
        };
        let length = mechanism.hash().output_len();
        let whole = parts.next().is_none()
            && keys.stored_key.len() == length
            && keys.server_key.len() == length;
        whole.then_some(keys)
    }

    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}${}:{}${}:{}",
            self.mechanism.name(),
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(&self.stored_key),
            STANDARD.encode(&self.server_key)
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("a message of the exchange is malformed")]
    Malformed,
    #[error("channel binding is not offered")]
    ChannelBinding,
    #[error("an extension that is not known is said to be mandatory")]
    Extension,
    #[error("acting for another user is not offered")]
    OtherUser,
    /// Also for a user that there is not.
    #[error("wrong user name or password")]
    Wrong,
    /// This attempt was not looked at.
    #[error("too many wrong passwords")]
    TooMany,
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFirst {
    pub user: String,
    /// `n,,` or `y,,`, with the authorisation identity where there is one.
    gs2_header: String,
    /// What stands behind it.
    bare: String,
    nonce: String,
}

impl ClientFirst {
    pub fn parse(message: &[u8]) -> Result<ClientFirst, ScramError> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (flag, authorisation) = (next(&mut parts)?, next(&mut parts)?);
        let bare = next(&mut parts)?;
        match flag {
            "n" | "y" => {}
            flag if flag.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        let mut attributes = bare.split(',');
        let first = next(&mut attributes)?;
        if first.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let user = first
            .strip_prefix("n=")
            .and_then(unescape)
            .ok_or(ScramError::Malformed)?;
        let nonce = next(&mut attributes)?
            .strip_prefix("r=")
            .filter(|nonce| is_nonce(nonce))
            .ok_or(ScramError::Malformed)?;
        if user.is_empty() || user.len() > limits::MAX_NAME {
            return Err(ScramError::Malformed);
        }
        match authorisation.strip_prefix("a=") {
            Some(other) if unescape(other).as_deref() != Some(&user) => {
                return Err(ScramError::OtherUser);
            }
            Some(_) => {}
            None if authorisation.is_empty() => {}
            None => return Err(ScramError::Malformed),
        }
        Ok(ClientFirst {
            gs2_header: format!("{flag},{authorisation},"),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
            user,
        })
    }
}

/// An exchange in which the client has still to prove that it knows the password.
#[derive(Debug)]
pub struct ScramServer {
    client: ClientFirst,
    keys: ScramKeys,
    server_first: String,
    nonce: String,
}

impl ScramServer {
    /// The exchange, with the message to send.
    pub fn begin(client: ClientFirst, keys: ScramKeys) -> (ScramServer, Vec<u8>) {
        let ours = STANDARD.encode(rand::random::<[u8; 18]>());
        ScramServer::begin_with(client, keys, &ours)
    }

    fn begin_with(client: ClientFirst, keys: ScramKeys, ours: &str) -> (ScramServer, Vec<u8>) {
        let nonce = format!("{}{ours}", client.nonce);
        let salt = STANDARD.encode(&keys.salt);
        let server_first = format!("r={nonce},s={salt},i={}", keys.iterations);
        let message = server_first.clone().into_bytes();
        let exchange = ScramServer {
            client,
            keys,
            server_first,
            nonce,
        };
        (exchange, message)
    }

    /// Checks the proof; the message that proves the server in turn.
    pub fn finish(self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let message = text(message)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = next(&mut attributes)?
            .strip_prefix("c=")
            .ok_or(ScramError::Malformed)?;
        let nonce = next(&mut attributes)?
            .strip_prefix("r=")
            .ok_or(ScramError::Malformed)?;
        if STANDARD.decode(binding).ok().as_deref() != Some(self.client.gs2_header.as_bytes()) {
            return Err(ScramError::ChannelBinding);
        }
        let mechanism = self.keys.mechanism;
        let signed = format!("{},{},{without_proof}", self.client.bare, self.server_first);
        let signature = mechanism.sign(&self.keys.stored_key, signed.as_bytes());
        // RFC 5802 section 5.1 asks for the same nonce. librdkafka before 2.6.1 puts its own in front of it once more, and Kafka's server
        // takes it, so it ends with what was sent: our random part is in it still, and the proof is over the text as it came.
        if !nonce.ends_with(&self.nonce) || proof.len() != signature.len() {
            return Err(ScramError::Wrong);
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let stored_key = digest::digest(mechanism.hash(), &client_key);
        if !bool::from(stored_key.as_ref().ct_eq(&self.keys.stored_key)) {
            return Err(ScramError::Wrong);
        }
        let verifier = mechanism.sign(&self.keys.server_key, signed.as_bytes());
        Ok(format!("v={}", STANDARD.encode(verifier)).into_bytes())
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > limits::MAX_SCRAM_MESSAGE {
        return Err(ScramError::Malformed);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}

fn next<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Result<&'a str, ScramError> {
    parts.next().ok_or(ScramError::Malformed)
}

/// Printable ASCII without commas.
fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `=2C` is a comma and `=3D` an equals sign; any other equals sign is an error.
fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('=') {
        out.push_str(rest.get(..at)?);
        let code = rest.get(at + 1..at + 3)?;
        out.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = rest.get(at + 3..)?;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677 section 3: user "user", password "pencil".
    #[test]
    fn the_exchange_of_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("salt");
        let iterations = NonZeroU32::new(4096).expect("not zero");
        let keys = ScramKeys::derive(Mechanism::Sha256, b"pencil", &salt, iterations);
        assert_eq!(ScramKeys::parse(&keys.to_string()), Some(keys.clone()));
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").expect("first");
        assert_eq!(first.user, "user");
        let ours = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let (exchange, message) = ScramServer::begin_with(first.clone(), keys.clone(), ours);
        assert_eq!(
            String::from_utf8_lossy(&message),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(
            exchange.finish(last).as_deref(),
            Ok(&b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="[..])
        );
        // Another password, a nonce that is not ours, a proof of another length, another binding.
        let other = ScramKeys::derive(Mechanism::Sha256, b"pencil2", &salt, iterations);
        let (exchange, _) = ScramServer::begin_with(first.clone(), other, ours);
        assert_eq!(exchange.finish(last), Err(ScramError::Wrong));
        let (exchange, _) = ScramServer::begin_with(first.clone(), keys.clone(), "another");
        assert_eq!(exchange.finish(last), Err(ScramError::Wrong));
        for (message, expected) in [
            (&b"c=biws,r=x,p=AAAA"[..], ScramError::Wrong),
            (b"c=eSws,r=x,p=AAAA", ScramError::ChannelBinding),
            (b"c=biws,r=x", ScramError::Malformed),
            (b"c=biws,r=x,p=*", ScramError::Malformed),
            (b"\xff", ScramError::Malformed),
        ] {
            let (exchange, _) = ScramServer::begin(first.clone(), keys.clone());
            assert_eq!(exchange.finish(message), Err(expected));
        }
    }

    /// What a client sends last that names this nonce and knows the password.
    fn last_message(exchange: &ScramServer, password: &[u8], nonce: &str) -> Vec<u8> {
        let ScramKeys {
            mechanism,
            iterations,
            salt,
            stored_key,
            ..
        } = &exchange.keys;
        let mut salted = vec![0; mechanism.hash().output_len()];
        pbkdf2::derive(mechanism.pbkdf2(), *iterations, salt, password, &mut salted);
        let without_proof = format!("c=biws,r={nonce}");
        let (bare, first) = (&exchange.client.bare, &exchange.server_first);
        let signed = format!("{bare},{first},{without_proof}");
        let signature = mechanism.sign(stored_key, signed.as_bytes());
        let client_key = mechanism.sign(&salted, b"Client Key");
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes()
    }

    /// librdkafka before 2.6.1: its own nonce, and then the whole one that it was sent.
    #[test]
    fn a_nonce_that_ends_with_the_one_that_was_sent() {
        for mechanism in Mechanism::ALL {
            let keys = ScramKeys::of(mechanism, b"pencil");
            let finish = |nonce: fn(&ScramServer) -> String, password: &[u8]| {
                let first = ClientFirst::parse(b"n,,n=user,r=abc").expect("first");
                let (exchange, _) = ScramServer::begin(first, keys.clone());
                let last = last_message(&exchange, password, &nonce(&exchange));
                exchange.finish(&last)
            };
            let same = |one: &ScramServer| one.nonce.clone();
            let twice = |one: &ScramServer| format!("abc{}", one.nonce);
            assert!(finish(same, b"pencil").is_ok_and(|last| last.starts_with(b"v=")));
            assert!(finish(twice, b"pencil").is_ok_and(|last| last.starts_with(b"v=")));
            assert_eq!(finish(twice, b"pencil2"), Err(ScramError::Wrong));
            // The right password, and not our part, or not at the end.
            let without: [fn(&ScramServer) -> String; 4] = [
                |_| "abc".to_owned(),
                |_| String::new(),
                |one| format!("{}abc", one.nonce),
                |one| one.nonce.replacen("abc", "abd", 1),
            ];
            for nonce in without {
                assert_eq!(finish(nonce, b"pencil"), Err(ScramError::Wrong));
            }
        }
    }

    #[test]
    fn first_messages() {
        for (message, expected) in [
            ("n,,n=user,r=abc", Ok("user")),
            ("y,,n=user,r=abc", Ok("user")),
            ("n,a=user,n=user,r=abc,t=ext", Ok("user")),
            ("n,,n=a=2Cb=3Dc,r=abc", Ok("a,b=c")),
            ("n,a=root,n=user,r=abc", Err(ScramError::OtherUser)),
            (
                "p=tls-unique,,n=user,r=abc",
                Err(ScramError::ChannelBinding),
            ),
            ("n,,m=x,n=user,r=abc", Err(ScramError::Extension)),
            ("n,,n=user", Err(ScramError::Malformed)),
            ("n,,n=,r=abc", Err(ScramError::Malformed)),
            ("n,,n=a=41,r=abc", Err(ScramError::Malformed)),
            ("n,,n=a=,r=abc", Err(ScramError::Malformed)),
            ("n,,r=abc,n=user", Err(ScramError::Malformed)),
            ("x,,n=user,r=abc", Err(ScramError::Malformed)),
            ("", Err(ScramError::Malformed)),
        ] {
            let found = ClientFirst::parse(message.as_bytes());
            assert_eq!(
                found
                    .as_ref()
                    .map(|first| first.user.as_str())
                    .map_err(|e| *e),
                expected,
                "{message}"
            );
        }
    }

    #[test]
    fn nobody_looks_like_somebody_and_never_gets_in() {
        let secret = [7; 32];
        let first = ClientFirst::parse(b"n,,n=ghost,r=abc").expect("first");
        for mechanism in Mechanism::ALL {
            let nobody = || ScramKeys::of_nobody(mechanism, "ghost", &secret);
            assert_eq!(nobody().salt, nobody().salt);
            let real = ScramKeys::of(mechanism, b"x");
            assert_eq!(nobody().salt.len(), real.salt.len());
            assert_eq!(nobody().iterations, real.iterations);
            assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
            let (exchange, _) = ScramServer::begin(first.clone(), nobody());
            let proof = STANDARD.encode(vec![0; mechanism.hash().output_len()]);
            let last = format!("c=biws,r={},p={proof}", exchange.nonce);
            assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Wrong));
        }
        assert!(!format!("{:?}", ScramKeys::of(Mechanism::Sha512, b"x")).contains(':'));
    }
}
