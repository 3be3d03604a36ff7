//! What the four exchange types compare: routing keys, topic patterns and header tables (clause 3.1.3).

use crate::wire::{Table, Value};

/// A topic pattern: words separated by `.`; `*` is one word, `#` any number of words, anywhere in the pattern.
pub fn topic(pattern: &str, key: &str) -> bool {
    // Two-pointer matching with one resume point: linear in practice, and no pattern can make it exponential. The position
    // after the last `#` is enough to come back to, because words matched before it never need to be matched otherwise.
    let pattern: Vec<&str> = words(pattern);
    let key: Vec<&str> = words(key);
    let (mut p, mut k) = (0, 0);
    let mut resume: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), key.get(k)) {
            (Some(&"#"), _) => {
                p += 1;
                resume = Some((p, k));
            }
            (Some(&word), Some(&k_word)) if word == "*" || word == k_word => {
                p += 1;
                k += 1;
            }
            (None, None) => return true,
            _ => match resume {
                Some((rp, rk)) if rk < key.len() => {
                    p = rp;
                    k = rk + 1;
                    resume = Some((rp, rk + 1));
                }
                _ => return false,
            },
        }
    }
}

fn words(text: &str) -> Vec<&str> {
    // The empty key has no words, so that `#` matches it and `*` does not.
    if text.is_empty() {
        Vec::new()
    } else {
        text.split('.').collect()
    }
}

/// `x-match` of a headers binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XMatch {
    All,
    Any,
    AllWithX,
    AnyWithX,
}

impl XMatch {
    /// Nothing said is `all`; anything unknown is an error of the bind.
    pub fn of(arguments: &Table) -> Option<XMatch> {
        match arguments.get("x-match") {
            None => Some(XMatch::All),
            Some(value) => match value.as_text()? {
                "all" => Some(XMatch::All),
                "any" => Some(XMatch::Any),
                "all-with-x" => Some(XMatch::AllWithX),
                "any-with-x" => Some(XMatch::AnyWithX),
                _ => None,
            },
        }
    }
}

/// A headers binding: without `-with-x`, names that start with `x-` take no part; a void value asks only for presence.
pub fn headers(arguments: &Table, message: &Table) -> bool {
    let Some(rule) = XMatch::of(arguments) else {
        return false;
    };
    let with_x = matches!(rule, XMatch::AllWithX | XMatch::AnyWithX);
    let mut considered = arguments
        .0
        .iter()
        .filter(|(name, _)| name.as_ref() != b"x-match" && (with_x || !name.starts_with(b"x-")));
    let holds = |(name, wanted): &(bytes::Bytes, Value)| {
        message
            .0
            .iter()
            .any(|(n, value)| n == name && (*wanted == Value::Void || wanted.same(value)))
    };
    match rule {
        XMatch::All | XMatch::AllWithX => considered.all(holds),
        XMatch::Any | XMatch::AnyWithX => considered.any(holds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table of clause 3.1.3.3 and RabbitMQ's own test suite.
    #[test]
    fn topic_patterns() {
        for (pattern, key, expected) in [
            ("a.b.c", "a.b.c", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("a.#.c", "a.c", true),
            ("a.#.c", "a.x.y.c", true),
            ("a.#.c", "a.x.y", false),
            ("#", "", true),
            ("#", "a.b", true),
            ("*", "", false),
            ("*", "a", true),
            ("*.#", "", false),
            ("#.#", "", true),
            ("#.a.#", "x.a.y.a", true),
            ("#.a", "a.b", false),
            ("*.*.#.x", "a.b.x", true),
            ("", "", true),
            ("a", "", false),
            ("*", ".", false),
            ("*.*", ".", true),
            ("#.b.#.d", "a.b.c.b.d", true),
        ] {
            assert_eq!(topic(pattern, key), expected, "{pattern:?} {key:?}");
        }
    }

    fn by_definition(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), None) => by_definition(rest, key),
            (Some((&"#", rest)), Some((_, key_rest))) => {
                by_definition(rest, key) || by_definition(pattern, key_rest)
            }
            (Some((p, rest)), Some((k, key_rest))) => {
                (*p == "*" || p == k) && by_definition(rest, key_rest)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn topic_patterns_match_by_definition(
            pattern in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*"), Just("#")], 1..6),
            key in proptest::collection::vec(prop_oneof![Just("a"), Just("b")], 1..6),
        ) {
            prop_assert_eq!(topic(&pattern.join("."), &key.join(".")), by_definition(&pattern, &key));
        }
    }

    #[test]
    fn header_rules() {
        let t = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .fold(Table::default(), |t, (n, v)| t.with(n, Value::text(v)))
        };
        for (arguments, message, expected) in [
            (
                t(&[("x-match", "all"), ("a", "1"), ("b", "2")]),
                t(&[("a", "1"), ("b", "2"), ("c", "3")]),
                true,
            ),
            (
                t(&[("x-match", "all"), ("a", "1"), ("b", "2")]),
                t(&[("a", "1")]),
                false,
            ),
            (
                t(&[("x-match", "any"), ("a", "1"), ("b", "2")]),
                t(&[("b", "2")]),
                true,
            ),
            (
                t(&[("x-match", "any"), ("a", "1")]),
                t(&[("a", "2")]),
                false,
            ),
            (t(&[("a", "1")]), t(&[("a", "1")]), true),
            (t(&[("x-match", "all"), ("x-a", "1")]), t(&[]), true),
            (t(&[("x-match", "all-with-x"), ("x-a", "1")]), t(&[]), false),
            (
                t(&[("x-match", "any-with-x"), ("x-a", "1")]),
                t(&[("x-a", "1")]),
                true,
            ),
            (t(&[("x-match", "any")]), t(&[("a", "1")]), false),
            (t(&[]), t(&[("a", "1")]), true),
        ] {
            assert_eq!(
                headers(&arguments, &message),
                expected,
                "{arguments:?} {message:?}"
            );
        }
        assert!(headers(
            &Table::default().with("a", Value::Void),
            &t(&[("a", "anything")])
        ));
        assert!(headers(
            &Table::default().with("n", Value::Int(b'I', 3)),
            &Table::default().with("n", Value::Int(b'b', 3))
        ));
    }
}
