//! Quotas as a front end sees them.

use std::time::Duration;

use access_rules::{Subject, Who};
use quota::{Each, Quota, Quotas};
use tokio::time::Instant;

fn quota(each: Each, user: Option<&str>) -> Quota {
    Quota {
        who: Who {
            user: user.map(Into::into),
            ..Who::default()
        },
        each,
        connections: None,
        messages: None,
        bytes: None,
    }
}

fn who<'a>(user: Option<&'a str>, client: &'a str) -> Subject<'a> {
    Subject {
        user,
        client,
        ..Subject::default()
    }
}

#[tokio::test(start_paused = true)]
async fn connections_count_for_each_user_and_come_back() {
    let two = Quota {
        connections: Some(2),
        ..quota(Each::User, None)
    };
    let quotas = Quotas::new(vec![two]);
    let ada = who(Some("ada"), "a");
    let first = quotas.enter(&ada).unwrap();
    let _second = quotas.enter(&who(Some("ada"), "b")).unwrap();
    let refused = quotas.enter(&ada).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "user ada has 2 connections and may have no more"
    );
    let _other = quotas.enter(&who(Some("bob"), "a")).unwrap();
    drop(first);
    let _again = quotas.enter(&ada).unwrap();
    // Two strangers are two.
    let stranger = who(None, "x");
    let _strangers = [
        quotas.enter(&stranger).unwrap(),
        quotas.enter(&stranger).unwrap(),
    ];
    assert!(quotas.enter(&stranger).is_err());
    assert!(quotas.enter(&who(None, "y")).is_ok());
    assert_eq!(quotas.counts().refused, 2);
}

#[tokio::test(start_paused = true)]
async fn the_connections_of_a_user_share_a_rate_and_a_new_connection_does_not_fill_it() {
    let ten = Quota {
        messages: Some(10),
        ..quota(Each::User, None)
    };
    let quotas = Quotas::new(vec![ten]);
    let ada = who(Some("ada"), "a");
    let (mut one, mut other) = (quotas.enter(&ada).unwrap(), quotas.enter(&ada).unwrap());
    let start = Instant::now();
    one.take(10, 0, start);
    assert_eq!(one.until(start), None, "a second's worth at once");
    other.take(5, 0, start);
    let half = start + Duration::from_millis(500);
    assert_eq!(other.until(start), Some(half));
    assert_eq!(other.until(half), None);
    drop((one, other));
    let mut again = quotas.enter(&ada).unwrap();
    assert_eq!(again.begin(start), Some(half), "before anything was taken");
    again.take(1, 0, start);
    assert_eq!(again.until(start), Some(start + Duration::from_millis(600)));
    assert_eq!(quotas.counts().delayed, 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_that_fits_counts_and_both_kinds_do() {
    let batch = Quota {
        bytes: Some(1_000_000),
        ..quota(Each::User, Some("batch"))
    };
    let all = Quota {
        bytes: Some(100),
        ..quota(Each::User, None)
    };
    let clients = Quota {
        messages: Some(1),
        ..quota(Each::Client, None)
    };
    let quotas = Quotas::new(vec![batch, all, clients]);
    let now = Instant::now();
    let mut share = quotas.enter(&who(Some("batch"), "a")).unwrap();
    share.take(1, 1_000, now);
    assert_eq!(share.until(now), None);
    let mut share = quotas.enter(&who(Some("ada"), "a")).unwrap();
    share.take(1, 200, now);
    assert_eq!(share.until(now), Some(now + Duration::from_secs(1)));
    share.take(3, 0, now);
    assert_eq!(share.until(now), Some(now + Duration::from_secs(3)));
}
