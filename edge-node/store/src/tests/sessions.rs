//! Sessions that can not be read.

use super::*;

#[tokio::test]
async fn one_that_can_not_be_read_is_there_and_can_be_replaced_or_deleted() {
    for place in Place::both() {
        for damaged in [&b""[..], b"\x02\0", b"\x03 of a later version"] {
            (place.ledger)()
                .apply(vec![Change::Put {
                    table: Table::Session,
                    key: b"c".to_vec(),
                    value: damaged.to_vec(),
                }])
                .unwrap();
            let store = place.open();
            assert_eq!(store.load_session("c").unwrap(), Some(Session::default()));
            store.delete_session("c").await.unwrap();
            assert_eq!(store.load_session("c").unwrap(), None);
        }
    }
}
