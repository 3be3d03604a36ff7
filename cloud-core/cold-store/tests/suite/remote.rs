//! Stores over a network with everything between them and us that can go wrong: a real S3 server, and the stand-in for Google's. Each is
//! skipped unless the environment has what it needs.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support;
use crate::support::pattern;
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers;
use bytes::Bytes;
use cold_store::{Checked, Patience, check, open};
use kernel::ports::cold::{ColdError, MIN_PART_BYTES};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Breaks the first `times` requests whose first line has `what` in it.
fn first(what: &'static str, times: usize, fault: Fault) -> impl FnMut(&str) -> Fault + Send {
    let mut left = times;
    move |line| {
        if left > 0 && line.contains(what) {
            left -= 1;
            fault
        } else {
            Fault::None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_survives_each_fault() {
    for server in servers() {
        let proxy = Proxy::start(server.address(), |_| Fault::None).await;
        let faults = [
            Fault::Close,
            Fault::CutRequest,
            Fault::Answer(500),
            Fault::Answer(503),
            Fault::Answer(429),
            Fault::DropAnswer,
            Fault::CutAnswer,
            Fault::Delay(Duration::from_millis(50)),
        ];
        // Begin, part, finish, create, read, look up, list, delete: by what is in the first line of the request.
        let requests = [
            "POST /cold/p",
            "partNumber=1",
            "partNumber=2",
            "?uploadId=",
            "epochs",
            "GET /cold/p",
            "HEAD /cold/p",
            "list-type",
            "DELETE ",
        ];
        for (round, what) in requests.iter().enumerate() {
            for (turn, fault) in faults.iter().enumerate() {
                let prefix = format!("p{round}x{turn}");
                let store = open(&server.url(proxy.address, &prefix), support::patience()).unwrap();
                proxy.plan(first(what, 2, *fault));
                let case = format!("{what} with {fault:?}");

                store
                    .create("log/epochs/1", Bytes::from_static(b"nonce"))
                    .await
                    .expect(&case);
                let parts = match what.starts_with("partNumber") {
                    true => vec![pattern(MIN_PART_BYTES, 1), pattern(3000, turn as u64)],
                    false => vec![pattern(3000, turn as u64)],
                };
                let mut upload = store.upload("log/segments/1").await.expect(&case);
                for part in &parts {
                    upload
                        .part(vec![Bytes::from(part.clone())])
                        .await
                        .expect(&case);
                }
                upload.finish().await.expect(&case);
                let whole = parts.concat();
                let size = store.size("log/segments/1").await.expect(&case);
                assert_eq!(size, whole.len() as u64, "{case}");
                let read = store.get("log/segments/1", 100..size).await.expect(&case);
                assert!(read == whole[100..], "{case}");
                let listed = store.list("log/segments/").await.expect(&case);
                assert_eq!(listed.len(), 1, "{case}");
                store.delete("log/segments/1").await.expect(&case);
                let listed = store.list("log/segments/").await.expect(&case);
                assert_eq!(listed, [], "{case}");
            }
            let broken = proxy
                .log()
                .iter()
                .filter(|(_, fault)| *fault != Fault::None)
                .count();
            assert!(broken > round, "no request had {what} in it");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_created_by_another_is_not_taken_for_ours_when_an_answer_is_lost() {
    for server in servers() {
        let direct = open(&server.url(server.address(), "p"), support::patience()).unwrap();
        direct
            .create("log/epochs/1", Bytes::from_static(b"theirs"))
            .await
            .unwrap();
        let proxy = Proxy::start(server.address(), first("epochs/1", 1, Fault::DropAnswer)).await;
        let store = open(&server.url(proxy.address, "p"), support::patience()).unwrap();
        let made = store
            .create("log/epochs/1", Bytes::from_static(b"ours!!"))
            .await;
        assert_eq!(made, Err(ColdError::Exists("log/epochs/1".to_owned())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_that_failed_for_long_can_be_asked_for_again() {
    for server in servers() {
        let proxy = Proxy::start(server.address(), |_| Fault::None).await;
        let store = open(&server.url(proxy.address, "p"), support::patience()).unwrap();
        let mut upload = store.upload("log/segments/1").await.unwrap();
        upload
            .part(vec![Bytes::from(pattern(1000, 1))])
            .await
            .unwrap();
        // The server does it at the first attempt, and nobody hears of it before patience ends.
        proxy.plan(|line| match line {
            line if line.starts_with("POST") => Fault::DropAnswer,
            _ => Fault::Close,
        });
        assert!(matches!(
            upload.finish().await,
            Err(ColdError::Unavailable(_))
        ));
        proxy.plan(|_| Fault::None);
        upload.finish().await.unwrap();
        assert_eq!(store.size("log/segments/1").await, Ok(1000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_upload_may_take_longer_than_other_requests() {
    for server in servers() {
        let proxy = Proxy::start(server.address(), |line| {
            match line.starts_with("POST") && line.contains("?uploadId=") {
                true => Fault::Delay(Duration::from_millis(2500)),
                false => Fault::None,
            }
        })
        .await;
        let patience = Patience {
            attempt: Duration::from_secs(1),
            finish: Duration::from_secs(60),
            ..support::patience()
        };
        let store = open(&server.url(proxy.address, "p"), patience).unwrap();
        let mut upload = store.upload("log/segments/1").await.unwrap();
        upload
            .part(vec![Bytes::from(pattern(1000, 1))])
            .await
            .unwrap();
        upload.finish().await.unwrap();
        let ends = proxy.log();
        let ends = ends.iter().filter(|(_, fault)| *fault != Fault::None);
        assert_eq!(ends.count(), 1, "it is asked for once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_failed_for_long_can_be_given_again() {
    for server in servers() {
        let proxy = Proxy::start(server.address(), |_| Fault::None).await;
        let store = open(&server.url(proxy.address, "p"), support::patience()).unwrap();
        let mut upload = store.upload("log/segments/1").await.unwrap();
        let parts = [
            pattern(MIN_PART_BYTES, 1),
            pattern(MIN_PART_BYTES, 2),
            pattern(10, 3),
        ];
        for part in &parts {
            let part = vec![Bytes::from(part.clone())];
            proxy.plan(|_| Fault::CutRequest);
            assert!(matches!(
                upload.part(part.clone()).await,
                Err(ColdError::Unavailable(_))
            ));
            proxy.plan(|_| Fault::None);
            upload.part(part).await.unwrap();
        }
        upload.finish().await.unwrap();
        let whole = parts.concat();
        let read = store
            .get("log/segments/1", 0..whole.len() as u64)
            .await
            .unwrap();
        assert!(read == whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_faults_changes_no_byte() {
    for server in servers() {
        let seed = support::seed();
        eprintln!("TOWLINE_SEED={seed}");
        let mut chance = StdRng::seed_from_u64(seed);
        // Never more in a row than patience bears.
        let mut in_a_row = 0;
        let proxy = Proxy::start(server.address(), move |_| {
            let fault = match chance.random_range(0..16) {
                0 => Fault::Close,
                1 => Fault::CutRequest,
                2 => Fault::Answer(500),
                3 => Fault::Answer(503),
                4 => Fault::DropAnswer,
                5 => Fault::CutAnswer,
                6 => Fault::Delay(Duration::from_millis(20)),
                _ => Fault::None,
            };
            in_a_row = if fault == Fault::None {
                0
            } else {
                in_a_row + 1
            };
            if in_a_row >= 4 { Fault::None } else { fault }
        })
        .await;
        let store = open(&server.url(proxy.address, "p"), support::patience()).unwrap();
        for number in 0..12_u64 {
            let key = format!("log/segments/{number}");
            let last = (number as usize * 7919) % MIN_PART_BYTES + 1;
            let parts = [
                pattern(MIN_PART_BYTES, seed ^ number),
                pattern(last, number),
            ];
            let mut upload = store.upload(&key).await.unwrap();
            for part in &parts {
                upload.part(vec![Bytes::from(part.clone())]).await.unwrap();
            }
            upload.finish().await.unwrap();
            let whole = parts.concat();
            for from in (0..whole.len()).step_by(1 << 20) {
                let to = whole.len().min(from + (1 << 20));
                let read = store.get(&key, from as u64..to as u64).await.unwrap();
                assert!(read == whole[from..to], "{key} {from}..{to}");
            }
        }
        assert_eq!(store.list("log/segments/").await.unwrap().len(), 12);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_to_do_and_hide_the_secret() {
    for server in servers() {
        let message = |error: ColdError| {
            let text = error.to_string();
            for secret in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
                let secret = std::env::var(secret);
                assert!(!secret.is_ok_and(|s| text.contains(&s)), "{text}");
            }
            text
        };
        let missing = server
            .url(server.address(), "")
            .replace("://cold/", "://nobucket/");
        let store = open(&missing, support::patience()).unwrap();
        let error = store
            .create("log/epochs/1", Bytes::new())
            .await
            .unwrap_err();
        assert!(matches!(error, ColdError::Refused(_)), "{error:?}");
        let text = message(error);
        assert!(
            text.contains("nobucket") && text.contains("Create it, or correct its name"),
            "{text}"
        );

        // A proxy that turns every request away as if the key were wrong.
        let proxy = Proxy::start(server.address(), |_| Fault::Answer(403)).await;
        let store = open(&server.url(proxy.address, ""), support::patience()).unwrap();
        let error = store.get("log/epochs/1", 0..1).await.unwrap_err();
        assert!(matches!(error, ColdError::Refused(_)), "{error:?}");
        assert!(message(error).contains("Check the credentials"));
        assert_eq!(proxy.log().len(), 1, "what is refused is not tried again");

        let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let store = open(&server.url(nobody, ""), support::patience()).unwrap();
        let error = store.size("log/epochs/1").await.unwrap_err();
        assert!(matches!(error, ColdError::Unavailable(_)), "{error:?}");
        let text = message(error);
        assert!(
            text.contains("127.0.0.1:9") && text.contains("can it be reached"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_creates_over_what_is_there_is_found_out() {
    for server in servers() {
        let store = open(&server.url(server.address(), ""), support::patience()).unwrap();
        assert_eq!(check(&*store).await, Ok(Checked { exclusive: true }));
        assert_eq!(store.list("towline-probe/").await, Ok(Vec::new()));

        let proxy = Proxy::start(server.address(), |_| Fault::None).await;
        proxy.lie();
        let store = open(&server.url(proxy.address, ""), support::patience()).unwrap();
        assert_eq!(check(&*store).await, Ok(Checked { exclusive: false }));
    }
}
