//! Retained messages in the ledger.

use super::*;

#[tokio::test]
async fn retained_messages_and_packet_ids_survive_with_and_without_the_ledger() {
    let (place, _, ledger) = Place::simulated();
    let store = place.open();
    let packet = |client: &str, packet_id| PacketRef {
        client: client.into(),
        packet_id,
    };
    for (key, value) in [("s/a", "1"), ("s/b", "2"), ("s/b", ""), ("s/a", "3")] {
        let mut retained = message("s", key, value);
        retained.retained = true;
        store.publish(retained).await.unwrap();
    }
    for id in [1, 2, 3] {
        let mut exactly_once = message("s", "s/x", "q");
        exactly_once.packet = Some(packet("c", id));
        store.publish(exactly_once).await.unwrap();
    }
    store.release(packet("c", 2)).await.unwrap();
    store.save_session("c", session(1, "")).await.unwrap();
    let check_retained = |store: &Store| {
        let mut retained = Vec::new();
        store
            .retained("s/", &mut |r| {
                retained.push((r.record.key.unwrap(), r.record.value.unwrap()));
                true
            })
            .unwrap();
        assert_eq!(retained, [(Bytes::from("s/a"), Bytes::from("3"))]);
    };
    let check = |store: &Store| {
        check_retained(store);
        assert_eq!(store.unreleased("c").unwrap(), [1, 3]);
        assert_eq!(store.unreleased("").unwrap(), []);
    };
    check(&store);
    drop(store);
    check(&place.open());
    // What is salvaged of a ledger has the session and no packet ids.
    let (table, key) = (Table::Session, b"c".to_vec());
    let value = ledger.get(table, &key).unwrap().unwrap().to_vec();
    ledger.lose();
    ledger
        .apply(vec![Change::Put { table, key, value }])
        .unwrap();
    let store = place.open();
    check(&store);
    drop(store);
    // Where the session is lost as well, nobody will release them.
    ledger.lose();
    let store = place.open();
    check_retained(&store);
    assert_eq!(store.unreleased("c").unwrap(), []);
}

#[tokio::test]
async fn packet_ids_of_clients_without_a_session_are_forgotten_at_start() {
    for place in Place::both() {
        let store = place.open();
        store.save_session("stored", session(1, "")).await.unwrap();
        for (client, packet_id) in [("clean", 1), ("stored", 2), ("store", 3), ("stored", 4)] {
            let mut exactly_once = message("s", "s/x", "q");
            let client = client.into();
            exactly_once.packet = Some(PacketRef { client, packet_id });
            store.publish(exactly_once).await.unwrap();
        }
        // Connected: its client will.
        assert_eq!(store.unreleased("clean").unwrap(), [1]);
        let store = again(&place, store);
        assert_eq!(store.unreleased("clean").unwrap(), []);
        assert_eq!(store.unreleased("store").unwrap(), []);
        assert_eq!(store.unreleased("stored").unwrap(), [2, 4]);
    }
}

#[tokio::test]
async fn a_retained_message_that_was_stamped_blind_has_its_time_when_that_is_known() {
    for place in Place::both() {
        let store = place.open();
        for (key, blind) in [("s/a", Some(7)), ("s/b", None), ("s/c", Some(8))] {
            let mut retained = message("s", key, key);
            retained.retained = true;
            retained.blind = blind;
            store.publish(retained).await.unwrap();
        }
        let times = |store: &Store| {
            let mut times = Vec::new();
            let visit = &mut |r: Retained| {
                times.push((r.record.timestamp, r.blind.is_some()));
                true
            };
            store.retained("s/", visit).unwrap();
            times
        };
        assert_eq!(times(&store), [(1, true), (1, false), (1, true)]);
        store.set_boot_offset(7, 1000).await.unwrap();
        assert_eq!(times(&store), [(1001, false), (1, false), (1, true)]);
        drop(store);
        let store = place.open();
        assert_eq!(times(&store), [(1001, false), (1, false), (1, true)]);
        store.set_boot_offset(8, 0).await.unwrap();
        assert_eq!(times(&store), [(1001, false), (1, false), (1, false)]);
    }
}
