//! Users and rules over a real kernel: logins, changes that act at once, and a restart that forgets nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;

use access_rules::{Resource, Rule, Verb, Who};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use credentials::Mechanism;
use frontend::access::Reason;
use frontend::identity::{ChangeError, Jwt, JwtRules};
use frontend::{Anonymous, Certificate, Context, LoginError, Peer, Principal, ScramLogin};
use kernel::{Kernel, KernelConfig, Ports};

fn context(dir: &std::path::Path, anonymous: Anonymous) -> Context {
    let cold = Arc::new(kernel::ports::MemoryColdStore::default());
    let kernel = Kernel::open(Ports::system(dir, cold).unwrap(), KernelConfig::default()).unwrap();
    Context::with(kernel, dir, anonymous, None).unwrap()
}

fn here() -> Peer {
    Peer::at("127.0.0.1:40000".parse().unwrap())
}

fn there() -> Peer {
    Peer::at("192.0.2.7:40000".parse().unwrap())
}

fn groups(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn rule(allow: bool, user: Option<&str>, group: Option<&str>, resource: &str) -> Rule {
    Rule {
        allow,
        verbs: "all".parse().unwrap(),
        who: Who {
            user: user.map(Into::into),
            group: group.map(Into::into),
            ..Who::default()
        },
        resource: resource.parse().unwrap(),
    }
}

#[tokio::test]
async fn a_core_is_open_to_its_own_machine_until_there_is_a_user() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path(), Anonymous::Loopback);
    let identity = &ctx.identity;
    let guest = identity.password("guest", b"guest", &here()).await.unwrap();
    assert_eq!((&*guest.name, guest.user.clone()), ("guest", None));
    assert!(
        ctx.access
            .may(&guest.asker("c"), Verb::Publish, Resource::Topic("a"))
    );
    assert_eq!(
        identity.anonymous(there().address).unwrap_err(),
        LoginError::Anonymous
    );
    assert_eq!(
        identity
            .password("guest", b"guest", &there())
            .await
            .unwrap_err(),
        LoginError::Wrong
    );

    identity
        .add_user("ann", "secret".into(), groups(&[]), 1)
        .await
        .unwrap();
    assert_eq!(
        identity.anonymous(here().address).unwrap_err(),
        LoginError::Anonymous
    );
    assert_eq!(
        identity
            .password("guest", b"guest", &here())
            .await
            .unwrap_err(),
        LoginError::Wrong
    );
    // Who came before may do nothing any more.
    assert!(
        !ctx.access
            .may(&guest.asker("c"), Verb::Publish, Resource::Topic("a"))
    );
    assert!(!ctx.access.may_subscribe(&guest.asker("c"), "a/#"));
    let ann = identity.password("ann", b"secret", &there()).await.unwrap();
    assert!(
        ctx.access
            .may(&ann.asker("c"), Verb::Publish, Resource::Topic("a"))
    );
}

#[tokio::test]
async fn users_change_while_they_are_connected_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let ctx = context(dir.path(), Anonymous::Deny);
        let identity = &ctx.identity;
        identity
            .add_user("ann", "secret".into(), groups(&["team"]), 1)
            .await
            .unwrap();
        let again = identity.add_user("ann", "x".into(), groups(&[]), 1).await;
        assert!(matches!(again, Err(ChangeError::Exists(_))));
        for name in ["", " x", "a\u{7}", "anonymous"] {
            let wrong = identity.add_user(name, "x".into(), groups(&[]), 1).await;
            assert!(matches!(wrong, Err(ChangeError::Invalid(_))), "{name:?}");
        }
        let ann = identity.password("ann", b"secret", &here()).await.unwrap();
        identity
            .set_password("ann", "changed".into(), 2)
            .await
            .unwrap();
        assert!(ann.revoked.as_ref().unwrap().is_cancelled());
        assert_eq!(
            identity
                .password("ann", b"secret", &here())
                .await
                .unwrap_err(),
            LoginError::Wrong
        );
        ctx.kernel.shutdown().await;
    }
    let ctx = context(dir.path(), Anonymous::Deny);
    let identity = &ctx.identity;
    let ann = identity.password("ann", b"changed", &here()).await.unwrap();
    assert_eq!(
        identity
            .groups_of("ann")
            .iter()
            .map(|g| &**g)
            .collect::<Vec<_>>(),
        ["team"]
    );
    identity.delete_user("ann").await.unwrap();
    ann.revoked().await;
    assert_eq!(
        identity
            .password("ann", b"changed", &here())
            .await
            .unwrap_err(),
        LoginError::Wrong
    );
    assert!(matches!(
        identity.delete_user("ann").await,
        Err(ChangeError::Unknown(_))
    ));
}

#[tokio::test]
async fn rules_act_at_once_say_why_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let orders = Resource::Stream("orders");
    let may =
        |ctx: &Context, who: &Principal| ctx.access.may(&who.asker("c"), Verb::Subscribe, orders);
    {
        let ctx = context(dir.path(), Anonymous::Deny);
        ctx.identity
            .add_user("ann", "secret".into(), groups(&[]), 1)
            .await
            .unwrap();
        let ann = ctx
            .identity
            .password("ann", b"secret", &here())
            .await
            .unwrap();
        assert!(may(&ctx, &ann));
        assert_eq!(
            ctx.access.explain(&ann.asker("c"), Verb::Subscribe, orders),
            (true, Reason::NoRules)
        );
        let first = ctx
            .access
            .add_rule(rule(true, None, Some("team"), "stream:orders"), None)
            .await
            .unwrap();
        assert!(!may(&ctx, &ann));
        assert_eq!(
            ctx.access.explain(&ann.asker("c"), Verb::Subscribe, orders),
            (false, Reason::NoneFits)
        );
        ctx.identity
            .set_groups("ann", groups(&["team"]), &groups(&[]), 2)
            .await
            .unwrap();
        assert!(may(&ctx, &ann));
        let deny = ctx
            .access
            .add_rule(rule(false, Some("ann"), None, "*"), Some(first.id))
            .await
            .unwrap();
        assert_eq!((first.id, deny.id), (1, 2));
        assert_eq!(
            ctx.access.explain(&ann.asker("c"), Verb::Subscribe, orders),
            (false, Reason::Rule(deny.clone()))
        );
        ctx.access.delete_rule(deny.id).await.unwrap();
        assert!(may(&ctx, &ann));
        assert!(ctx.access.delete_rule(deny.id).await.is_err());
        ctx.kernel.shutdown().await;
    }
    let ctx = context(dir.path(), Anonymous::Deny);
    let ann = ctx
        .identity
        .password("ann", b"secret", &here())
        .await
        .unwrap();
    assert!(may(&ctx, &ann));
    // A number is not given twice.
    let third = ctx
        .access
        .add_rule(rule(true, None, None, "*"), None)
        .await
        .unwrap();
    assert_eq!(third.id, 3);
}

const SECRET: [u8; 32] = [7; 32];

/// Takes tokens of [`token`].
fn context_with_tokens(dir: &std::path::Path) -> Context {
    let jwt = Arc::new(Jwt::new(JwtRules {
        issuer: None,
        audience: None,
        user_claim: "sub".into(),
        groups_claim: "groups".into(),
    }));
    let key = BASE64.encode(SECRET);
    let set = format!(r#"{{"keys":[{{"kty":"oct","k":"{key}"}}]}}"#);
    assert_eq!(jwt.set_keys(set.as_bytes()).unwrap(), 1);
    let cold = Arc::new(kernel::ports::MemoryColdStore::default());
    let kernel = Kernel::open(Ports::system(dir, cold).unwrap(), KernelConfig::default()).unwrap();
    Context::with(kernel, dir, Anonymous::Loopback, Some(jwt)).unwrap()
}

fn token(claims: &str) -> String {
    let header = BASE64.encode(r#"{"alg":"HS256"}"#);
    let text = format!("{header}.{}", BASE64.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &SECRET);
    let signature = ring::hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", BASE64.encode(signature))
}

#[tokio::test]
async fn a_token_is_a_password_until_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = context_with_tokens(dir.path());
    // Somebody can prove who he is, so nobody need not be let in.
    assert!(ctx.identity.anonymous(here().address).is_err());
    let soon = ctx.now_ms() as f64 / 1000.0 + 3.0;
    let good = token(&format!(
        r#"{{"sub":"ann","groups":["team"],"exp":{soon}}}"#
    ));
    for name in ["", "ann"] {
        let ann = ctx
            .identity
            .password(name, good.as_bytes(), &here())
            .await
            .unwrap();
        assert_eq!((ann.user.as_deref(), ann.groups.len()), (Some("ann"), 1));
    }
    assert_eq!(
        ctx.identity
            .password("bob", good.as_bytes(), &here())
            .await
            .unwrap_err(),
        LoginError::Wrong
    );
    let ann = ctx
        .identity
        .password("ann", good.as_bytes(), &here())
        .await
        .unwrap();
    ctx.access
        .add_rule(rule(true, None, Some("team"), "stream:orders"), None)
        .await
        .unwrap();
    assert!(
        ctx.access
            .may(&ann.asker("c"), Verb::Publish, Resource::Stream("orders"))
    );
    ann.revoked().await;
    assert_eq!(
        ctx.identity
            .password("ann", good.as_bytes(), &here())
            .await
            .unwrap_err(),
        LoginError::Wrong
    );
}

/// [`here`], with a certificate of this name.
fn showing(name: &str) -> Peer {
    let certificate = Certificate {
        common_name: Some(name.into()),
        ..Certificate::default()
    };
    Peer {
        certificate: Some(Arc::new(certificate)),
        ..here()
    }
}

/// A login with SCRAM-SHA-256 from the client's side (RFC 5802 section 3).
fn scram(ctx: &Context, name: &str, password: &str, peer: &Peer) -> Principal {
    let (login, question) = scram_first(ctx, name, peer);
    let last = scram_last(&question, name, password);
    login.finish(last.as_bytes()).unwrap().0
}

fn scram_first(ctx: &Context, name: &str, peer: &Peer) -> (ScramLogin, String) {
    let first = format!("n,,n={name},r=abc");
    let begun = ctx
        .identity
        .scram(Mechanism::Sha256, first.as_bytes(), peer);
    let (login, question) = begun.unwrap();
    (login, String::from_utf8(question).unwrap())
}

fn scram_last(question: &str, name: &str, password: &str) -> String {
    use base64::engine::general_purpose::STANDARD;
    use ring::{digest, hmac, pbkdf2};
    let bare = format!("n={name},r=abc");
    let value = |key: &str| {
        let mut parts = question.split(',');
        parts.find_map(|part| part.strip_prefix(key)).unwrap()
    };
    let mut salted = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        value("i=").parse().unwrap(),
        &STANDARD.decode(value("s=")).unwrap(),
        password.as_bytes(),
        &mut salted,
    );
    let sign = |key: &[u8], text: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text).as_ref().to_vec()
    };
    let client_key = sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, &client_key);
    let last = format!("c=biws,r={}", value("r="));
    let signed = format!("{bare},{question},{last}");
    let signature = sign(stored_key.as_ref(), signed.as_bytes());
    let proof: Vec<u8> = client_key
        .iter()
        .zip(signature)
        .map(|(a, b)| a ^ b)
        .collect();
    format!("{last},p={}", STANDARD.encode(proof))
}

/// The password that a login began with is not that of the user any more when it ends: a connection that stays would outlive the change.
#[tokio::test]
async fn a_login_under_way_while_the_password_changes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path(), Anonymous::Deny);
    let identity = &ctx.identity;
    let add = async || {
        let added = identity.add_user("ann", "secret".into(), groups(&[]), 1);
        added.await.unwrap();
    };
    add().await;
    for delete in [true, false] {
        let (proving, question) = scram_first(&ctx, "ann", &here());
        let peer = here();
        let mut checking = std::pin::pin!(identity.password("ann", b"secret", &peer));
        // Begins it; what comes of it is not looked at before the change is over.
        let begun = std::future::poll_fn(|cx| Poll::Ready(checking.as_mut().poll(cx)));
        assert!(begun.await.is_pending());
        if delete {
            identity.delete_user("ann").await.unwrap();
            add().await;
        } else {
            let changed = identity.set_password("ann", "changed".into(), 2);
            changed.await.unwrap();
        }
        assert_eq!(checking.await.unwrap_err(), LoginError::Wrong);
        let proof = scram_last(&question, "ann", "secret");
        let proved = proving.finish(proof.as_bytes());
        assert_eq!(proved.unwrap_err(), LoginError::Wrong);
    }
    // The user of now gets in.
    let ann = identity.password("ann", b"changed", &here()).await.unwrap();
    let proved = scram(&ctx, "ann", "changed", &here());
    for principal in [ann, proved] {
        assert!(!principal.revoked.unwrap().is_cancelled());
    }
}

/// Salts of users stay over a restart; so do those that others are shown.
#[tokio::test]
async fn a_restart_does_not_tell_who_is_a_user() {
    let dir = tempfile::tempdir().unwrap();
    let questions = async || {
        let ctx = context(dir.path(), Anonymous::Deny);
        if ctx.identity.users().is_empty() {
            let added = ctx
                .identity
                .add_user("ann", "secret".into(), groups(&[]), 1);
            added.await.unwrap();
        }
        let salts = ["ann", "ghost"].map(|name| {
            let (_, question) = scram_first(&ctx, name, &here());
            let (_, salt) = question.split_once(",s=").unwrap();
            salt.to_owned()
        });
        ctx.kernel.shutdown().await;
        salts
    };
    assert_eq!(questions().await, questions().await);
}

/// As on a full disk.
#[tokio::test]
async fn a_core_that_can_not_keep_the_secret_for_salts_starts() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("scram.secret")).unwrap();
    let ctx = context(dir.path(), Anonymous::Deny);
    let salt = || scram_first(&ctx, "ghost", &here()).1;
    assert!(salt().contains(",s="));
}

#[tokio::test]
async fn addresses_of_one_ipv6_network_have_their_tries_together() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path(), Anonymous::Deny);
    let login = async |address: &str| {
        let peer = Peer::at(address.parse().unwrap());
        let login = ctx.identity.password("ann", b"guess", &peer).await;
        login.unwrap_err()
    };
    for n in 0..5 {
        let address = format!("[2001:db8::{n}:1]:40000");
        assert_eq!(login(&address).await, LoginError::Wrong);
    }
    assert_eq!(login("[2001:db8::77]:40000").await, LoginError::TooMany);
    assert_eq!(login("[2001:db8:0:1::1]:40000").await, LoginError::Wrong);
}

#[tokio::test]
async fn a_rule_about_a_certificate_is_about_everybody_who_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = context_with_tokens(dir.path());
    let identity = &ctx.identity;
    identity
        .add_user("ann", "secret".into(), groups(&[]), 1)
        .await
        .unwrap();
    let soon = ctx.now_ms() / 1000 + 600;
    let ann_token = token(&format!(r#"{{"sub":"ann","exp":{soon}}}"#));
    let anns_ways = async |peer: &Peer| {
        let password = identity.password("ann", b"secret", peer).await.unwrap();
        let by_token = identity.password("ann", ann_token.as_bytes(), peer).await;
        let proved = scram(&ctx, "ann", "secret", peer);
        [password, by_token.unwrap(), proved]
    };
    let with = anns_ways(&showing("press-7")).await;
    let without = anns_ways(&here()).await;
    let other = anns_ways(&showing("press-8")).await;
    let press: Arc<str> = "press-7".into();
    let itself = identity.certificate(&press).unwrap();

    // Denied is the certificate, whatever else its owner has.
    let mut deny = rule(false, None, None, "*");
    deny.who.certificate = Some("press-7".into());
    let orders = Resource::Topic("orders");
    let may = |who: &Principal| ctx.access.may(&who.asker("c"), Verb::Publish, orders);
    let denied = ctx.access.add_rule(deny, None).await.unwrap();
    let all = ctx.access.add_rule(rule(true, None, None, "*"), None).await;
    assert!(!with.iter().any(may) && !may(&itself));
    assert!(without.iter().all(may) && other.iter().all(may));

    // Both are asked for: the user, and the certificate.
    for id in [denied.id, all.unwrap().id] {
        ctx.access.delete_rule(id).await.unwrap();
    }
    let mut both = rule(true, Some("ann"), None, "*");
    both.who.certificate = Some("press-7".into());
    ctx.access.add_rule(both, None).await.unwrap();
    assert!(with.iter().all(may) && !may(&itself));
    assert!(!without.iter().any(may) && !other.iter().any(may));
}

#[tokio::test]
async fn refused_tokens_are_counted_like_wrong_passwords_and_lock_no_good_one_out() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = context_with_tokens(dir.path());
    let identity = &ctx.identity;
    identity
        .add_user("ann", "secret".into(), groups(&[]), 1)
        .await
        .unwrap();
    let soon = ctx.now_ms() / 1000 + 600;
    let good = token(&format!(r#"{{"sub":"ann","exp":{soon}}}"#));
    let expired = token(r#"{"sub":"ann","exp":1}"#);
    let of_bob = token(&format!(r#"{{"sub":"bob","exp":{soon}}}"#));
    let mut forged = good.clone();
    forged.truncate(good.len() - 8);
    forged.push_str("AAAAAAAA");
    let login = async |name: &str, password: &str, peer: &Peer| {
        let login = identity.password(name, password.as_bytes(), peer).await;
        login.map(|who| who.user)
    };
    let refused = [&expired, &of_bob, &forged];
    for wrong in refused.into_iter().cycle().take(5) {
        let answer = login("ann", wrong, &there()).await;
        assert_eq!(answer, Err(LoginError::Wrong));
    }
    for wrong in refused {
        let answer = login("ann", wrong, &there()).await;
        assert_eq!(answer, Err(LoginError::TooMany));
    }
    // A password counts with them, from that address only.
    let too_many = Err(LoginError::TooMany);
    assert_eq!(login("ann", "secret", &there()).await, too_many);
    assert!(login("ann", "secret", &here()).await.is_ok());
    // From everywhere, until nobody's guesses at this name are looked at.
    for n in 0..200 {
        let peer = Peer::at(format!("10.0.0.{n}:40000").parse().unwrap());
        assert!(login("ann", &forged, &peer).await.is_err());
    }
    let far = Peer::at("192.0.2.99:40000".parse().unwrap());
    assert_eq!(login("ann", &forged, &far).await, too_many);
    assert_eq!(login("ann", "guess", &far).await, too_many);
    // Who has a good token, or was known before, gets in.
    for peer in [here(), there(), far] {
        assert!(login("ann", &good, &peer).await.is_ok());
        assert!(login("", &good, &peer).await.is_ok());
        assert!(login("ann", "secret", &peer).await.is_ok());
    }
    // Without a name beside it.
    for n in 0..6 {
        let answer = login("", &expired, &here()).await;
        let expected = if n < 5 {
            LoginError::Wrong
        } else {
            LoginError::TooMany
        };
        assert_eq!(answer, Err(expected));
    }
}
