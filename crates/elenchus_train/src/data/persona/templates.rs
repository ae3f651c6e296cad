//! Templates become lines: slots, made-up names, and how players type.

use rand::Rng;
use rand_pcg::Pcg64Mcg;

use super::words::{ENDINGS, NAMES, ONSETS, TOWN_ENDINGS, TOWNS, VOWELS};

pub(super) fn pick<T: Copy>(from: &[T], rng: &mut Pcg64Mcg) -> T {
    from[rng.random_range(0..from.len())]
}

/// Puts words into a template's `{slots}`; sentences begin with a capital.
pub(super) fn fill(template: &str, slots: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (slot, words) in slots {
        text = text.replace(&format!("{{{slot}}}"), words);
    }
    let mut result = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins && c.is_alphabetic() {
            result.extend(c.to_uppercase());
            begins = false;
        } else {
            begins = matches!(c, '.' | '?' | '!') || (begins && (c.is_whitespace() || c == '"'));
            result.push(c);
        }
    }
    result
}

/// A line as players type it: sometimes in lower case, sometimes without its last mark.
pub(super) fn typed(line: String, rng: &mut Pcg64Mcg) -> String {
    let line = if rng.random_bool(0.25) { line.to_lowercase() } else { line };
    match line.strip_suffix(['?', '.']) {
        Some(bare) if rng.random_bool(0.2) => bare.to_owned(),
        _ => line,
    }
}

/// A name nobody has: known ones would be learned by heart.
pub(super) fn name(rng: &mut Pcg64Mcg) -> String {
    if rng.random_bool(0.3) {
        return pick(NAMES, rng).to_owned();
    }
    let mut name = String::new();
    for _ in 0..rng.random_range(1..=2) {
        name.push_str(pick(ONSETS, rng));
        name.push_str(pick(VOWELS, rng));
    }
    name.push_str(pick(ENDINGS, rng));
    fill(&name, &[])
}

pub(super) fn town(rng: &mut Pcg64Mcg) -> String {
    if rng.random_bool(0.3) { pick(TOWNS, rng).to_owned() } else { format!("{}{}", name(rng), pick(TOWN_ENDINGS, rng)) }
}

/// What follows "you said that".
pub(super) fn uncapitalised(text: &str) -> String {
    for article in ["You ", "The ", "A "] {
        if let Some(rest) = text.strip_prefix(article) {
            return format!("{}{rest}", article.to_lowercase());
        }
    }
    text.to_owned()
}
