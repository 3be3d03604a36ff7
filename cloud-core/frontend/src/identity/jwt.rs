//! JSON Web Tokens (RFC 7519) as passwords: signed by keys of a set (RFC 7517) that somebody else keeps.

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::limits;

/// What tokens must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRules {
    /// `iss`; none: anybody who has a key.
    pub issuer: Option<String>,
    /// Has to be (in) `aud`; none: it is not looked at.
    pub audience: Option<String>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim with a list of groups, or one as a string.
    pub groups_claim: String,
}

/// Whom a token that was verified is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub user: String,
    pub groups: Vec<String>,
    /// Milliseconds since the epoch.
    pub expires_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("not a token of three parts")]
    Malformed,
    #[error("no key of the set fits algorithm {algorithm:?} and key id {key_id:?}")]
    NoKey {
        algorithm: String,
        key_id: Option<String>,
    },
    #[error("the signature is wrong")]
    Signature,
    #[error("a critical header is not understood")]
    Critical,
    #[error("the token has no time at which it expires (exp)")]
    NoExpiry,
    #[error("claim {0} is not a time: a number of seconds since 1970")]
    NoTime(&'static str),
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet (nbf)")]
    NotYet,
    #[error("the token is of another issuer (iss), or for another audience (aud)")]
    OtherPurpose,
    #[error("claim {0:?} names no user")]
    NoUser(String),
    #[error("claim {0:?} is not a list of groups, or one: strings")]
    NoGroups(String),
    #[error("the token names {0} groups, more than {most}", most = limits::MAX_JWT_GROUPS)]
    TooManyGroups(usize),
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("not a set of keys (RFC 7517): {0}")]
    Malformed(String),
    #[error("none of the keys is an RSA or EC key, or a secret of at least 32 bytes")]
    NoneUsable,
}

/// Verifies tokens with the keys of now.
pub struct Jwt {
    rules: JwtRules,
    keys: ArcSwap<Vec<Key>>,
    unknown: Notify,
}

struct Key {
    id: Option<String>,
    /// The one algorithm it is for, where the set says so.
    algorithm: Option<String>,
    material: Material,
}

enum Material {
    Secret(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point, of P-256 or P-384.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
struct KeyEntry {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// `None`: of a kind that is not used here, or too weak. A set may have such keys for others.
fn material(entry: &KeyEntry) -> Option<Material> {
    let field = |value: &Option<String>| value.as_deref().and_then(decode);
    match entry.kty.as_str() {
        // RFC 7518 section 3.2: at least as long as the hash.
        "oct" => field(&entry.k)
            .filter(|secret| secret.len() >= 32)
            .map(Material::Secret),
        "RSA" => Some(Material::Rsa {
            n: field(&entry.n)?,
            e: field(&entry.e)?,
        }),
        "EC" => {
            let (x, y) = (field(&entry.x)?, field(&entry.y)?);
            let point: Vec<u8> = [&[4][..], &x, &y].concat();
            match (entry.crv.as_deref()?, x.len(), y.len()) {
                ("P-256", 32, 32) => Some(Material::P256(point)),
                ("P-384", 48, 48) => Some(Material::P384(point)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `None`: the key is not for this algorithm.
fn verify(material: &Material, algorithm: &str, signed: &[u8], signature: &[u8]) -> Option<bool> {
    let rsa = |n: &Vec<u8>, e: &Vec<u8>, parameters: &'static signature::RsaParameters| {
        RsaPublicKeyComponents { n, e }
            .verify(parameters, signed, signature)
            .is_ok()
    };
    let shared = |secret: &[u8], algorithm| {
        hmac::verify(&hmac::Key::new(algorithm, secret), signed, signature).is_ok()
    };
    let curve = |point: &[u8], algorithm: &'static signature::EcdsaVerificationAlgorithm| {
        UnparsedPublicKey::new(algorithm, point)
            .verify(signed, signature)
            .is_ok()
    };
    Some(match (material, algorithm) {
        (Material::Secret(secret), "HS256") => shared(secret, hmac::HMAC_SHA256),
        (Material::Secret(secret), "HS384") => shared(secret, hmac::HMAC_SHA384),
        (Material::Secret(secret), "HS512") => shared(secret, hmac::HMAC_SHA512),
        (Material::Rsa { n, e }, "RS256") => rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA256),
        (Material::Rsa { n, e }, "RS384") => rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA384),
        (Material::Rsa { n, e }, "RS512") => rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA512),
        (Material::Rsa { n, e }, "PS256") => rsa(n, e, &signature::RSA_PSS_2048_8192_SHA256),
        (Material::Rsa { n, e }, "PS384") => rsa(n, e, &signature::RSA_PSS_2048_8192_SHA384),
        (Material::Rsa { n, e }, "PS512") => rsa(n, e, &signature::RSA_PSS_2048_8192_SHA512),
        (Material::P256(point), "ES256") => curve(point, &signature::ECDSA_P256_SHA256_FIXED),
        (Material::P384(point), "ES384") => curve(point, &signature::ECDSA_P384_SHA384_FIXED),
        _ => return None,
    })
}

impl Jwt {
    /// Knows no keys yet.
    pub fn new(rules: JwtRules) -> Jwt {
        Jwt {
            rules,
            keys: ArcSwap::default(),
            unknown: Notify::new(),
        }
    }

    /// Replaces the keys by those of a set; how many of them can be used. Where none can, those from before hold.
    pub fn set_keys(&self, set: &[u8]) -> Result<usize, KeysError> {
        let set: KeySet =
            serde_json::from_slice(set).map_err(|e| KeysError::Malformed(e.to_string()))?;
        let signing = set.keys.into_iter().filter(|entry| {
            entry
                .purpose
                .as_deref()
                .is_none_or(|purpose| purpose == "sig")
        });
        let keys: Vec<Key> = signing
            .filter_map(|entry| {
                Some(Key {
                    material: material(&entry)?,
                    id: entry.kid,
                    algorithm: entry.alg,
                })
            })
            .take(limits::MAX_JWT_KEYS)
            .collect();
        let usable = keys.len();
        if usable == 0 {
            return Err(KeysError::NoneUsable);
        }
        self.keys.store(keys.into());
        Ok(usable)
    }

    /// Resolves when a token has named a key that is not known: the set may have changed.
    pub async fn unknown_key(&self) {
        self.unknown.notified().await;
    }

    /// Could this password be a token?
    pub fn looks_like(password: &[u8]) -> bool {
        password.starts_with(b"eyJ") && password.iter().filter(|byte| **byte == b'.').count() == 2
    }

    pub fn verify(&self, token: &[u8], now_ms: i64) -> Result<Claims, JwtError> {
        let token = std::str::from_utf8(token).map_err(|_| JwtError::Malformed)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let part = |text: &str| decode(text).ok_or(JwtError::Malformed);
        let header: Header =
            serde_json::from_slice(&part(header)?).map_err(|_| JwtError::Malformed)?;
        if header.crit.is_some() {
            return Err(JwtError::Critical);
        }
        self.check_signature(&header, signed.as_bytes(), &part(signature)?)?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&part(payload)?).map_err(|_| JwtError::Malformed)?;
        self.check_claims(&claims, now_ms)
    }

    fn check_signature(
        &self,
        header: &Header,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), JwtError> {
        let keys = self.keys.load();
        let mut fits = false;
        for key in keys.iter() {
            let named = header.kid.is_none() || key.id.is_none() || key.id == header.kid;
            let meant = key
                .algorithm
                .as_ref()
                .is_none_or(|only| *only == header.alg);
            if !named || !meant {
                continue;
            }
            match verify(&key.material, &header.alg, signed, signature) {
                Some(true) => return Ok(()),
                Some(false) => fits = true,
                None => {}
            }
        }
        if fits {
            return Err(JwtError::Signature);
        }
        self.unknown.notify_one();
        Err(JwtError::NoKey {
            algorithm: header.alg.clone(),
            key_id: header.kid.clone(),
        })
    }

    fn check_claims(&self, claims: &Map<String, Value>, now_ms: i64) -> Result<Claims, JwtError> {
        // Seconds, perhaps with a fraction.
        let time = |name: &'static str| match claims.get(name).map(Value::as_f64) {
            None => Ok(None),
            // To be taken for absent would be to ignore what it says.
            Some(None) => Err(JwtError::NoTime(name)),
            Some(Some(seconds)) => Ok(Some((seconds * 1000.0) as i64)),
        };
        let expires_ms = time("exp")?.ok_or(JwtError::NoExpiry)?;
        if expires_ms <= now_ms {
            return Err(JwtError::Expired);
        }
        if time("nbf")?.is_some_and(|from| from > now_ms.saturating_add(limits::JWT_LEEWAY_MS)) {
            return Err(JwtError::NotYet);
        }
        let has = |name: &str, wanted: &str| match claims.get(name) {
            Some(Value::String(one)) => one == wanted,
            Some(Value::Array(all)) => all.iter().any(|one| one == wanted),
            _ => false,
        };
        let issued = self.rules.issuer.as_deref();
        let meant = self.rules.audience.as_deref();
        if issued.is_some_and(|issuer| !has("iss", issuer))
            || meant.is_some_and(|audience| !has("aud", audience))
        {
            return Err(JwtError::OtherPurpose);
        }
        let user = claims.get(&self.rules.user_claim).and_then(Value::as_str);
        let user = user
            .filter(|user| super::check_name("user", user).is_ok())
            .ok_or_else(|| JwtError::NoUser(self.rules.user_claim.clone()))?;
        let groups = match claims.get(&self.rules.groups_claim) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::String(one)) => Some(vec![one.clone()]),
            Some(Value::Array(all)) => {
                let all = all.iter().map(|one| one.as_str().map(str::to_owned));
                all.collect()
            }
            Some(_) => None,
        };
        // What is left out could be what a rule denies.
        let groups = groups.ok_or_else(|| JwtError::NoGroups(self.rules.groups_claim.clone()))?;
        if groups.len() > limits::MAX_JWT_GROUPS {
            return Err(JwtError::TooManyGroups(groups.len()));
        }
        Ok(Claims {
            user: user.to_owned(),
            groups,
            expires_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    const NOW: i64 = 1_800_000_000_000;
    const SECRET: &[u8] = b"a secret of forty bytes, more than enough";

    fn jwt(issuer: Option<&str>, audience: Option<&str>) -> Jwt {
        Jwt::new(JwtRules {
            issuer: issuer.map(Into::into),
            audience: audience.map(Into::into),
            user_claim: "sub".into(),
            groups_claim: "groups".into(),
        })
    }

    fn secret_set() -> String {
        let k = URL_SAFE_NO_PAD.encode(SECRET);
        format!(
            r#"{{"keys":[{{"kty":"oct","kid":"one","k":"{k}"}},{{"kty":"OKP"}},{{"kty":"oct","k":"c2hvcnQ"}}]}}"#
        )
    }

    fn unsigned(header: &str, payload: &str) -> String {
        format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        )
    }

    fn signed(header: &str, payload: &str) -> String {
        let text = unsigned(header, payload);
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    const HEADER: &str = r#"{"alg":"HS256","kid":"one"}"#;
    const GOOD: &str =
        r#"{"sub":"ann","exp":1800000060,"groups":["a","b"],"iss":"me","aud":["x","core"]}"#;

    /// RFC 7515 appendix A.1: its key, token and claims.
    #[test]
    fn the_hmac_example_of_rfc_7515() {
        let jwt = Jwt::new(JwtRules {
            user_claim: "iss".into(),
            issuer: Some("joe".into()),
            audience: None,
            groups_claim: "groups".into(),
        });
        let set = br#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]}"#;
        assert_eq!(jwt.set_keys(set).unwrap(), 1);
        let token = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(Jwt::looks_like(token));
        let claims = jwt.verify(token, 1_300_819_379_999).unwrap();
        assert_eq!(
            (claims.user.as_str(), claims.expires_ms),
            ("joe", 1_300_819_380_000)
        );
        assert_eq!(jwt.verify(token, 1_300_819_380_000), Err(JwtError::Expired));
    }

    /// RFC 7515 appendix A.2 and A.3: RSA and ECDSA.
    #[test]
    fn the_rsa_and_ec_examples_of_rfc_7515() {
        let jwt = Jwt::new(JwtRules {
            user_claim: "iss".into(),
            issuer: None,
            audience: None,
            groups_claim: "groups".into(),
        });
        let set = br#"{"keys":[
            {"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"},
            {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        assert_eq!(jwt.set_keys(set).unwrap(), 2);
        let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        for (header, signature) in [
            (
                "eyJhbGciOiJSUzI1NiJ9",
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                "eyJhbGciOiJFUzI1NiJ9",
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
        ] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(jwt.verify(token.as_bytes(), 0).unwrap().user, "joe");
            let forged = token.replace(".eyJpc3Mi", ".eyJpc3Mj");
            assert!(jwt.verify(forged.as_bytes(), 0).is_err());
        }
    }

    #[test]
    fn what_a_token_must_say() {
        let jwt = jwt(Some("me"), Some("core"));
        assert_eq!(jwt.set_keys(secret_set().as_bytes()).unwrap(), 1);
        let claims = jwt.verify(signed(HEADER, GOOD).as_bytes(), NOW).unwrap();
        assert_eq!((claims.user.as_str(), claims.groups.len()), ("ann", 2));
        let no_key = |algorithm: &str, id: Option<&str>| JwtError::NoKey {
            algorithm: algorithm.into(),
            key_id: id.map(Into::into),
        };
        for (header, payload, expected) in [
            (
                r#"{"alg":"HS256","kid":"two"}"#,
                GOOD,
                no_key("HS256", Some("two")),
            ),
            (r#"{"alg":"none"}"#, GOOD, no_key("none", None)),
            (r#"{"alg":"RS256"}"#, GOOD, no_key("RS256", None)),
            (r#"{"alg":"HS512"}"#, GOOD, JwtError::Signature),
            (r#"{"alg":"HS256","crit":["x"]}"#, GOOD, JwtError::Critical),
            ("{", GOOD, JwtError::Malformed),
            (HEADER, "[]", JwtError::Malformed),
            (HEADER, r#"{"sub":"ann"}"#, JwtError::NoExpiry),
            (
                HEADER,
                r#"{"sub":"ann","exp":1800000000}"#,
                JwtError::Expired,
            ),
            (
                HEADER,
                r#"{"sub":"ann","exp":1800000060,"nbf":1800000090}"#,
                JwtError::NotYet,
            ),
            (
                HEADER,
                r#"{"sub":"ann","exp":1800000060,"nbf":"1800000090"}"#,
                JwtError::NoTime("nbf"),
            ),
            (
                HEADER,
                r#"{"sub":"ann","exp":"1800000060"}"#,
                JwtError::NoTime("exp"),
            ),
            (
                HEADER,
                r#"{"sub":"ann","exp":1800000060,"iss":"you","aud":"core"}"#,
                JwtError::OtherPurpose,
            ),
            (
                HEADER,
                r#"{"sub":"ann","exp":1800000060,"iss":"me"}"#,
                JwtError::OtherPurpose,
            ),
            (
                HEADER,
                r#"{"sub":"","exp":1800000060,"iss":"me","aud":"core"}"#,
                JwtError::NoUser("sub".into()),
            ),
            (
                HEADER,
                r#"{"sub":7,"exp":1800000060,"iss":"me","aud":"core"}"#,
                JwtError::NoUser("sub".into()),
            ),
        ] {
            let found = jwt.verify(signed(header, payload).as_bytes(), NOW);
            assert_eq!(found, Err(expected), "{header} {payload}");
        }
        for token in ["", "a", "a.b", "a.b.c", "eyJ.eyJ.\u{fc}"] {
            assert!(jwt.verify(token.as_bytes(), NOW).is_err(), "{token}");
        }
    }

    /// None is left out: a rule that denies could be about it.
    #[test]
    fn a_token_with_more_groups_than_are_taken_is_refused() {
        let jwt = jwt(None, None);
        jwt.set_keys(secret_set().as_bytes()).unwrap();
        let verify = |count: usize| {
            let groups: Vec<String> = (0..count).map(|n| format!("group-{n}")).collect();
            let groups = serde_json::to_string(&groups).unwrap();
            let payload = format!(r#"{{"sub":"ann","exp":1800000060,"groups":{groups}}}"#);
            jwt.verify(signed(HEADER, &payload).as_bytes(), NOW)
        };
        let all = verify(limits::MAX_JWT_GROUPS).unwrap().groups;
        assert_eq!(all.len(), limits::MAX_JWT_GROUPS);
        assert_eq!(all.last().unwrap(), "group-1023");
        let refused = JwtError::TooManyGroups(limits::MAX_JWT_GROUPS + 1);
        assert_eq!(verify(limits::MAX_JWT_GROUPS + 1), Err(refused));
    }

    #[test]
    fn groups_are_strings_and_a_token_with_others_is_refused() {
        let jwt = jwt(None, None);
        jwt.set_keys(secret_set().as_bytes()).unwrap();
        let verify = |groups: &str| {
            let payload = format!(r#"{{"sub":"ann","exp":1800000060{groups}}}"#);
            let claims = jwt.verify(signed(HEADER, &payload).as_bytes(), NOW)?;
            Ok(claims.groups.join(","))
        };
        for (groups, expected) in [
            ("", ""),
            (r#","groups":null"#, ""),
            (r#","groups":[]"#, ""),
            (r#","groups":"a""#, "a"),
            (r#","groups":["a","b"]"#, "a,b"),
        ] {
            assert_eq!(verify(groups).unwrap(), expected, "{groups}");
        }
        for groups in ["42", r#"["a",42]"#, "[null]", "true", r#"{"a":true}"#] {
            let refused = Err(JwtError::NoGroups("groups".into()));
            assert_eq!(verify(&format!(r#","groups":{groups}"#)), refused);
        }
    }

    /// The public key of an asymmetric pair must not do as a shared secret.
    #[test]
    fn a_key_is_for_its_kind_only() {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.as_ref(), &random)
                .unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (
            URL_SAFE_NO_PAD.encode(&point[1..33]),
            URL_SAFE_NO_PAD.encode(&point[33..]),
        );
        let jwt = jwt(None, None);
        let set = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}]}}"#);
        assert_eq!(jwt.set_keys(set.as_bytes()).unwrap(), 1);
        let text = unsigned(r#"{"alg":"HS256"}"#, GOOD);
        let forged = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, point), text.as_bytes());
        let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(forged));
        assert!(matches!(
            jwt.verify(forged.as_bytes(), NOW),
            Err(JwtError::NoKey { .. })
        ));
        let text = unsigned(r#"{"alg":"ES256"}"#, GOOD);
        let good = pair.sign(&random, text.as_bytes()).unwrap();
        let good = format!("{text}.{}", URL_SAFE_NO_PAD.encode(good));
        assert_eq!(jwt.verify(good.as_bytes(), NOW).unwrap().user, "ann");
        // What is no set, or has nothing for us, takes nothing away.
        assert!(matches!(jwt.set_keys(b"{}"), Err(KeysError::Malformed(_))));
        for set in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"OKP"}]}"#] {
            let refused = jwt.set_keys(set.as_bytes());
            assert!(matches!(refused, Err(KeysError::NoneUsable)), "{set}");
        }
        assert_eq!(jwt.verify(good.as_bytes(), NOW).unwrap().user, "ann");
    }
}
