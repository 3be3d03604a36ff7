use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

fn matching(dialect: Dialect, pattern: &str, name: &str) -> bool {
    let router = Router::new(dialect);
    router.insert(pattern, ()).unwrap();
    let found = router.matches(name).len();
    assert!(found <= 1, "{pattern} matched {name} {found} times");
    found == 1
}

#[test]
fn the_slashed_dialect() {
    let yes = |pattern, name| {
        assert!(
            matching(Dialect::SLASHED, pattern, name),
            "{pattern} {name}"
        )
    };
    let no = |pattern, name| {
        assert!(
            !matching(Dialect::SLASHED, pattern, name),
            "{pattern} {name}"
        )
    };
    yes("a/b", "a/b");
    no("a/b", "a/B");
    no("a", "a/");
    yes("a/+", "a/");
    no("a/+", "a");
    no("a/+", "a/b/c");
    yes("+/+", "/x");
    yes("a/#", "a");
    yes("a/#", "a/b/c");
    no("a/#", "ab");
    yes("#", "a");
    yes("#", "/");
    yes("+/b/#", "a/b");
    yes("a/+/c", "a//c");
    no("#", "$sys/x");
    no("+/x", "$sys/x");
    yes("$sys/#", "$sys/x");
    yes("$sys/+", "$sys/x");
    yes("a/+", "a/$x");
    for wrong in ["a/#/b", "#/b"] {
        assert_eq!(
            Router::new(Dialect::SLASHED).insert(wrong, ()),
            Err(PatternError::ManyNotLast)
        );
    }
    for wrong in ["a#", "a+/b", "a/+b"] {
        assert_eq!(
            Router::new(Dialect::SLASHED).insert(wrong, ()),
            Err(PatternError::PartialWildcard)
        );
    }
}

#[test]
fn the_dotted_dialect() {
    let yes = |pattern, name| assert!(matching(Dialect::DOTTED, pattern, name), "{pattern} {name}");
    let no = |pattern, name| {
        assert!(
            !matching(Dialect::DOTTED, pattern, name),
            "{pattern} {name}"
        )
    };
    yes("#", "");
    yes("#", "a.b.c");
    yes("a.#", "a");
    yes("#.a", "a");
    yes("#.a", "x.y.a");
    no("#.a", "x.y.a.b");
    yes("a.#.b", "a.b");
    yes("a.#.b", "a.x.y.b");
    yes("a.#.b", "a.b.b");
    no("a.#.b", "a.x");
    yes("#.a.#", "x.a.y");
    yes("#.a.#", "a.a.a");
    yes("#.#", "x");
    yes("*.#.*", "a.b");
    no("*.#.*", "a");
    yes("*", "$x");
    yes("a*", "a*");
    no("a*", "ab");
}

#[test]
fn the_same_as_a_plain_matcher_for_random_patterns() {
    fn plain(pattern: &[&str], name: &[&str], one: &str) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => (0..=name.len()).any(|n| plain(rest, &name[n..], one)),
            (Some((p, rest)), Some((n, names))) => (*p == one || p == n) && plain(rest, names, one),
            _ => false,
        }
    }
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let router = Router::new(Dialect::DOTTED);
    let mut patterns: Vec<(String, u32)> = Vec::new();
    for step in 0..3000u32 {
        let words = ["a", "b", "", "*", "#"];
        let mut spell = |words: &[&str]| {
            let levels: Vec<_> = (0..rng.random_range(1..6))
                .map(|_| words[rng.random_range(0..words.len())])
                .collect();
            levels.join(".")
        };
        let (pattern, name) = (spell(&words), spell(&words[..3]));
        if rng.random_bool(0.6) || patterns.is_empty() {
            router.insert(&pattern, step).unwrap();
            patterns.push((pattern, step));
        } else {
            let (pattern, target) = patterns.swap_remove(rng.random_range(0..patterns.len()));
            assert!(router.remove(&pattern, &target));
            assert!(!router.remove(&pattern, &target));
        }
        let name_levels: Vec<_> = name.split('.').collect();
        let fits =
            |pattern: &str| plain(&pattern.split('.').collect::<Vec<_>>(), &name_levels, "*");
        let mut expected: Vec<_> = patterns
            .iter()
            .filter(|(p, _)| fits(p))
            .map(|(_, t)| *t)
            .collect();
        let mut found = router.matches(&name);
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "seed {seed} name {name}");
    }
}

#[test]
fn a_snapshot_does_not_change_and_the_generation_moves() {
    let router = Router::new(Dialect::SLASHED);
    let first = router.insert("a/#", 1).unwrap();
    let before = router.snapshot();
    assert_eq!(router.insert("a/#", 1).unwrap(), first);
    let second = router.insert("a/b", 2).unwrap();
    assert!(second > first && router.generation() == second);
    assert_eq!(before.matches("a/b"), [1]);
    assert_eq!(router.matches("a/b"), [2, 1]);
    assert!(router.remove("a/#", &1) && !router.remove("a/#", &1));
    assert_eq!(router.matches("a/b"), [2]);
    assert!(router.generation() > second);
}

#[test]
fn the_cache_follows_the_router() {
    let router = Router::new(Dialect::SLASHED);
    let mut cache = MatchCache::new(2, 100);
    router.insert("a/#", 1).unwrap();
    for name in ["a/b", "a/c", "x", "a/b"] {
        assert_eq!(*cache.matches(&router, name), *router.matches(name));
    }
    router.insert("a/b", 2).unwrap();
    assert_eq!(*cache.matches(&router, "a/b"), [2, 1]);
    router.remove("a/#", &1);
    assert_eq!(*cache.matches(&router, "a/b"), [2]);
}

#[test]
fn a_pattern_with_many_targets_keeps_them_apart() {
    let router = Router::new(Dialect::DOTTED);
    for pattern in ["a.*", "a.b"] {
        (0..1000).for_each(|n| {
            router.insert(pattern, n).unwrap();
        });
        assert!(router.remove(pattern, &7) && !router.remove(pattern, &7));
    }
    let mut found = router.matches("a.b");
    found.sort_unstable();
    let expected: Vec<_> = (0..1000).filter(|n| *n != 7).flat_map(|n| [n, n]).collect();
    assert_eq!(found, expected);
    (0..1000).for_each(|n| {
        router.remove("a.*", &n);
        router.remove("a.b", &n);
    });
    assert!(router.matches("a.b").is_empty());
}
