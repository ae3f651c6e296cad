//! Names as people compare them: case counts for nothing, and neither does the Greek final sigma, nor do invisible characters.

use crate::visible::{is_invisible, is_joiner};

/// A name's letters without their case. Each character is folded alone, so the fold of a prefix is a prefix of the fold.
pub(crate) fn fold(name: &str) -> String {
    let seen = name.chars().filter(|&c| !is_invisible(c) && !is_joiner(c)).collect::<String>();
    seen.trim().chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Whether two names mean the same person.
pub(crate) fn same(a: &str, b: &str) -> bool {
    fold(a) == fold(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_final_sigma_do_not_part_people() {
        for (a, b) in [
            ("Socrates", " SOCRATES "),
            ("Σωκράτης", "ΣΩΚΡΆΤΗΣ"),
            ("Straße", "STRASSE"),
            ("Soc\u{200b}rates", "\u{202e}Socrates\0 "),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        assert!(!same("Plato", "Platon"));
        assert!(fold("Σωσίας").starts_with(&fold("ΣΩΣ")));
    }
}
