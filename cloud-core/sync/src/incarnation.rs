//! Who wrote: whether a hello goes on where the newest start of its edge was, or comes from a copy or an old backup of its data
//! directory. From what is stored and the hello alone; the table is in `docs/reference/sync-protocol.md`.

use serde::{Deserialize, Serialize};
use sync_quic::Hello;

use crate::limits;

/// The newest start of an edge, and the producer ids that it has left for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    #[serde(default)]
    pub producer_id: Option<i64>,
    #[serde(default)]
    pub incarnation: Option<i16>,
    #[serde(default)]
    pub nonce: Option<u64>,
    /// Newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<i64>,
}

/// What the core says to a hello, as far as the data directory is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The newest start once more.
    Reconnect,
    /// A newer start; this is what is known from now on.
    Newer(Newest),
    /// A copy or an old backup; says how that shows.
    Fenced(String),
}

/// Judges a hello whose producer ids are no other edge's.
pub(crate) fn judge(known: &Newest, hello: &Hello) -> Verdict {
    let retired = |id: &i64| known.retired.contains(id);
    if known.producer_id == Some(hello.producer_id) {
        return judge_same_id(known, hello);
    }
    if retired(&hello.producer_id) {
        return Verdict::Fenced(format!(
            "producer id {} was left for another one: this is an old copy of the data directory",
            hello.producer_id
        ));
    }
    // A successor of the newest id goes on; one of an id that somebody has left already went on from a copy.
    if let Some(previous) = hello.previous_producer_id.filter(retired) {
        return Verdict::Fenced(format!(
            "producer id {previous} was left for {} already: two copies of the data directory went on",
            known.producer_id.unwrap_or(-1)
        ));
    }
    let mut retired = known.retired.clone();
    retired.extend(known.producer_id);
    let over = retired.len().saturating_sub(limits::MAX_RETIRED_IDS);
    retired.drain(..over);
    Verdict::Newer(Newest {
        retired,
        ..newest(hello)
    })
}

fn judge_same_id(known: &Newest, hello: &Hello) -> Verdict {
    let Some(newest_number) = known.incarnation else {
        return newer(known, hello);
    };
    if hello.incarnation < newest_number {
        return Verdict::Fenced(format!(
            "incarnation {} comes after {newest_number} has connected: this is a copy or an old backup of the data directory",
            hello.incarnation
        ));
    }
    if hello.incarnation == newest_number {
        return match known.nonce {
            Some(nonce) if nonce != hello.nonce => Verdict::Fenced(format!(
                "another process is incarnation {newest_number} already: the data directory was copied and both were started"
            )),
            Some(_) => Verdict::Reconnect,
            None => newer(known, hello),
        };
    }
    // A copy that was started often enough has a higher number, but does not know the start that was welcome last.
    let head = known.nonce.map(|nonce| (newest_number, nonce));
    if let Some(head) = head
        && !hello.earlier.is_empty()
        && !hello.earlier.contains(&head)
    {
        return Verdict::Fenced(format!(
            "incarnation {} does not come from incarnation {newest_number}, which has connected: two copies of the data directory went on",
            hello.incarnation
        ));
    }
    newer(known, hello)
}

fn newer(known: &Newest, hello: &Hello) -> Verdict {
    Verdict::Newer(Newest {
        retired: known.retired.clone(),
        ..newest(hello)
    })
}

fn newest(hello: &Hello) -> Newest {
    Newest {
        producer_id: Some(hello.producer_id),
        incarnation: Some(hello.incarnation),
        nonce: Some(hello.nonce),
        retired: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i64 = 1 << 62;
    const OTHER: i64 = ID + 256;
    const NEXT: i64 = ID + 512;

    fn hello(producer_id: i64, previous: Option<i64>, incarnation: i16, nonce: u64) -> Hello {
        Hello {
            producer_id,
            previous_producer_id: previous,
            incarnation,
            nonce,
            ..Hello::default()
        }
    }

    /// The table of the reference, and what copies can do beside it.
    #[test]
    fn who_is_let_in() {
        let known = Newest {
            producer_id: Some(ID),
            incarnation: Some(5),
            nonce: Some(55),
            retired: vec![OTHER],
        };
        let came_from = |earlier: &[(i16, u64)], hello: Hello| Hello {
            earlier: earlier.to_vec(),
            ..hello
        };
        let table = [
            ("higher", hello(ID, None, 6, 66), "newer"),
            (
                "higher, and knows the head",
                came_from(&[(4, 44), (5, 55)], hello(ID, None, 7, 77)),
                "newer",
            ),
            (
                "higher, of another branch",
                came_from(&[(4, 44), (5, 56)], hello(ID, None, 7, 77)),
                "fenced",
            ),
            ("a reconnect", hello(ID, None, 5, 55), "reconnect"),
            ("same, other process", hello(ID, None, 5, 56), "fenced"),
            ("lower", hello(ID, None, 4, 44), "fenced"),
            (
                "lower, nonce of the newest",
                hello(ID, None, 4, 55),
                "fenced",
            ),
            ("retired", hello(OTHER, None, 9, 1), "fenced"),
            ("successor", hello(NEXT, Some(ID), 0, 1), "newer"),
            (
                "successor of a retired one",
                hello(NEXT, Some(OTHER), 0, 1),
                "fenced",
            ),
            ("nobody's", hello(NEXT, None, 0, 1), "newer"),
        ];
        for (what, hello, expected) in table {
            let verdict = judge(&known, &hello);
            let got = match &verdict {
                Verdict::Reconnect => "reconnect",
                Verdict::Newer(_) => "newer",
                Verdict::Fenced(_) => "fenced",
            };
            assert_eq!(got, expected, "{what}: {verdict:?}");
            if let Verdict::Newer(now) = verdict {
                assert_eq!(judge(&now, &hello), Verdict::Reconnect, "{what}, once more");
                assert_eq!(
                    now.retired.contains(&ID),
                    hello.producer_id != ID,
                    "{what}: the id that was left is retired"
                );
            }
        }
    }

    #[test]
    fn the_list_of_retired_ids_is_bounded() {
        let mut known = Newest::default();
        for n in 0..2 * limits::MAX_RETIRED_IDS as i64 {
            match judge(&known, &hello(n << 8, None, 0, 0)) {
                Verdict::Newer(now) => known = now,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(known.retired.len(), limits::MAX_RETIRED_IDS);
    }
}
