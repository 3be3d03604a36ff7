//! Parts of `docs/reference/performance.md` that are made by a run: between `<!-- begin NAME -->` and `<!-- end NAME -->`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The page in the workspace.
pub fn path() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap_or(here);
    root.join("docs/reference/performance.md")
}

/// The part of that name; empty when the page has none.
pub fn part<'a>(text: &'a str, name: &str) -> &'a str {
    bounds(text, name).map_or("", |(from, to)| &text[from..to])
}

/// Replaces a part of a page.
pub fn replace(page: &Path, name: &str, new: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let (from, to) =
        bounds(&text, name).with_context(|| format!("{} has no part {name}", page.display()))?;
    let text = format!("{}\n{}\n{}", &text[..from], new.trim(), &text[to..]);
    fs::write(page, text).with_context(|| page.display().to_string())
}

fn bounds(text: &str, name: &str) -> Option<(usize, usize)> {
    let begin = format!("<!-- begin {name} -->");
    let from = text.find(&begin)? + begin.len();
    let to = from + text[from..].find(&format!("<!-- end {name} -->"))?;
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn a_part_is_what_stands_between_its_marks() {
        let text = "a <!-- begin x -->b<!-- end x --> c <!-- begin y -->d<!-- end y -->";
        assert_eq!(
            (part(text, "x"), part(text, "y"), part(text, "z")),
            ("b", "d", "")
        );
    }
}
