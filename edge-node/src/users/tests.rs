use std::io::Write;

use clap::Parser;
use credentials::ScramKeys;
use mqtt_broker::access::Step;
use settings::Flags;

use super::*;
use crate::config::EdgeSettings;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags<EdgeSettings>,
}

const METHOD: &str = "SCRAM-SHA-256";

/// Knows ann, of whom there are keys, and old, of whom there is the hash alone.
fn guard(secret: [u8; 32]) -> Guard {
    let hash = PasswordHash::of_nobody();
    let keys = ScramKeys::of(Mechanism::Sha256, b"secret");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let users = format!(
        "data-dir = '/x'\n[[user]]\nname = 'ann'\npassword-hash = '{hash} {keys}'\n\
         [[user]]\nname = 'old'\npassword-hash = '{hash}'\n"
    );
    file.write_all(users.as_bytes()).unwrap();
    let args = ["x".as_ref(), "--config".as_ref(), file.path().as_os_str()];
    let loaded = Args::parse_from(args).flags.load_with(|_| None).unwrap();
    Guard::new(&loaded.settings.user, &loaded.settings.acl, false, secret).unwrap()
}

fn begin(guard: &Guard, method: &str) -> Result<Box<dyn Exchange>, ConnectError> {
    let client = ClientId::new("c");
    guard.exchange(
        method,
        &client,
        &Peer::at("10.0.0.1:40000".parse().unwrap()),
    )
}

async fn ask(exchange: &mut Box<dyn Exchange>, name: &str) -> String {
    let first = format!("n,,n={name},r=abc");
    match exchange.step(first.as_bytes()).await {
        Ok(Step::Continue(question)) => String::from_utf8(question.to_vec()).unwrap(),
        _ => panic!("no question"),
    }
}

/// What becomes of a proof that is none.
async fn guess(exchange: &mut Box<dyn Exchange>, question: &str) -> Option<ConnectError> {
    let nonce = question.split(',').next().unwrap();
    let last = format!("c=biws,{nonce},p={}=", "A".repeat(43));
    exchange.step(last.as_bytes()).await.err()
}

#[tokio::test]
async fn who_has_no_keys_of_scram_is_answered_as_nobody_is_and_as_who_has_them() {
    let guards = [guard([1; 32]), guard([1; 32])];
    for name in ["ann", "old", "nobody"] {
        let mut salts = Vec::new();
        for guard in &guards {
            let mut exchange = begin(guard, METHOD).unwrap();
            // A client need not begin in CONNECT.
            let asked = exchange.step(b"").await;
            assert!(matches!(asked, Ok(Step::Continue(nothing)) if nothing.is_empty()));
            let question = ask(&mut exchange, name).await;
            let wrong = guess(&mut exchange, &question).await;
            assert_eq!(wrong, Some(ConnectError::BadUserNameOrPassword), "{name}");
            salts.push(question.split_once(",s=").unwrap().1.to_owned());
        }
        assert_eq!(salts[0].len(), salts[1].len());
        // The keys of ann are made anew with each guard; all others are the same after a restart.
        assert_eq!(salts[0] == salts[1], name != "ann", "{name}");
    }
}

#[tokio::test]
async fn proofs_count_as_passwords_do_however_many_exchanges_have_begun() {
    let guard = guard([1; 32]);
    let mut begun = Vec::new();
    for _ in 0..7 {
        let mut exchange = begin(&guard, METHOD).unwrap();
        let question = ask(&mut exchange, "ann").await;
        begun.push((exchange, question));
    }
    for (n, (mut exchange, question)) in begun.into_iter().enumerate() {
        let expected = if n < 5 {
            ConnectError::BadUserNameOrPassword
        } else {
            ConnectError::RateExceeded
        };
        assert_eq!(guess(&mut exchange, &question).await, Some(expected), "{n}");
    }
}

#[test]
fn other_methods_are_not_offered() {
    let other = begin(&guard([1; 32]), "SCRAM-SHA-1").err();
    assert_eq!(other, Some(ConnectError::BadAuthenticationMethod));
}

#[test]
fn what_is_in_flight_for_another_user_may_not_be_received() {
    let rule = |user: &str, topic: &str| Rule {
        allow: true,
        verbs: Verbs::ALL,
        who: Who {
            user: Some(user.into()),
            ..Who::default()
        },
        resource: ResourcePattern::Topic(TopicPattern::new(topic).unwrap()),
    };
    let acl = Rules(vec![rule("ann", "site/#"), rule("bob", "site/open/#")]);
    let guard = Guard {
        acl: Some(acl),
        ..Guard::new(&[], &[], false, [0; 32]).unwrap()
    };
    let client = ClientId::new("panel");
    let who = |name: &str| Principal::new(client.clone(), Admitted::user(Some(name.into())));
    for (name, topic, expected) in [
        ("ann", "site/secret/x", true),
        ("bob", "site/secret/x", false),
        ("bob", "site/open/x", true),
    ] {
        let topic = TopicName::new(topic).unwrap();
        assert_eq!(
            guard.may_receive(&who(name), &topic),
            expected,
            "{name} {topic}"
        );
    }
    let open = Guard::new(&[], &[], true, [0; 32]).unwrap();
    assert!(open.may_receive(&who("bob"), &TopicName::new("site/secret/x").unwrap()));
}
