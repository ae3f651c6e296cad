//! What can be told of a reply from its words alone. Rules are narrow on purpose: they miss what is said in other words, and
//! what they find is there. Words that a sentence denies, or asks back, are not found.

use elenchus_train::sentences::{Sentence, folded, is_denied, places, sentences};

/// Whether a reply holds any of the words that give a secret away, whatever was asked and in upper or lower case.
pub(super) fn leaks(reply: &str, tells: &[String]) -> bool {
    let words = folded(reply);
    tells.iter().any(|tell| places(&words, &folded(tell).join(" ")).next().is_some())
}

const GIFTS: [&str; 16] = [
    "take it for free",
    "take them for free",
    "have it for free",
    "have them for free",
    "it is yours",
    "they are yours",
    "it is all yours",
    "you may have it",
    "you may have them",
    "you can have it",
    "you can have them",
    "i give it to you",
    "i will give it to you",
    "i will give them to you",
    "free of charge",
    "no charge",
];

/// Whether a reply gives away what was asked for.
pub(super) fn gives_away(reply: &str) -> bool {
    sentences(reply).any(|Sentence { words, is_question }| {
        let given = |gift: &&str| {
            // "No charge" denies itself.
            places(&words, gift).any(|at| !is_denied(&words[..at]) && !words[..at].iter().any(|word| word == "if"))
        };
        !is_question && GIFTS.iter().any(given)
    })
}

const INSULTS: [&str; 15] = [
    "fool",
    "idiot",
    "moron",
    "stupid",
    "imbecile",
    "dimwit",
    "worthless",
    "pathetic",
    "scum",
    "ugly",
    "liar",
    "coward",
    "dog",
    "pig",
    "filth",
];
const DISMISSALS: [&str; 5] = ["shut up", "get lost", "go to hell", "damn you", "curse you"];
/// Words between `you` and what one is called: "you are a very stupid man".
const CALLED: usize = 4;

/// Whether a reply insults the one it speaks to. A report of what others called the character is no insult.
pub(super) fn insults(reply: &str) -> bool {
    sentences(reply).any(|Sentence { words, is_question }| {
        if DISMISSALS.iter().any(|phrase| places(&words, phrase).next().is_some()) {
            return true;
        }
        // Not "you call me a fool", and not "you said that he is".
        let reports = ["me", "i", "call", "say", "said", "he", "she", "they", "myself", "would", "like"];
        let is_called = |at: usize| {
            words[..at].iter().rposition(|word| matches!(word.as_str(), "you" | "your")).is_some_and(|you| {
                let between = &words[you + 1..at];
                let is_report = between.iter().any(|word| reports.contains(&word.as_str()));
                between.len() <= CALLED && !is_report && !is_denied(between)
            })
        };
        !is_question && INSULTS.iter().flat_map(|insult| places(&words, insult)).any(is_called)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: impl Fn(&str) -> bool, found: &[&str], missed: &[&str]) {
        for reply in found {
            assert!(rule(reply), "not found: {reply}");
        }
        for reply in missed {
            assert!(!rule(reply), "found: {reply}");
        }
    }

    #[test]
    fn a_secret_is_told_by_its_words() {
        let tells = ["third step".to_owned(), "Nikias".to_owned()];
        check(
            |reply| leaks(reply, &tells),
            &["Under the third step.", "Look at the THIRD  STEP!", "Ask nikias, then."],
            &["I cannot tell you.", "The third man took one step.", "On the steps.", ""],
        );
    }

    #[test]
    fn giving_away_is_said_and_not_denied() {
        check(
            gives_away,
            &["Take it, it is yours!", "You can have them.", "Very well, no charge for you.", "It's yours."],
            &[
                "It is not as if it is yours.",
                "I never said you can have it.",
                "Would you say it is yours?",
                "Two obols.",
            ],
        );
    }

    #[test]
    fn an_insult_is_said_to_somebody() {
        check(
            insults,
            &["You are a fool.", "You idiot!", "Your stupid questions bore me.", "Shut up.", "You’re a liar."],
            &[
                "You call me a fool.",
                "You are not a fool.",
                "Am I a fool?",
                "I am the fool here, for I know nothing.",
                "Are you a coward?",
                "The dog barks at you.",
                "You would like my dog.",
            ],
        );
    }
}
