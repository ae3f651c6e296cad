//! Whether a character speaks of itself as a program. The rule is narrow on purpose: it misses what is said in other words, and
//! what it finds is there.

use crate::sentences::{Sentence, is_denied, places, sentences};

/// What only a program says it is.
const PROGRAMS: [&str; 12] = [
    "language model",
    "ai",
    "ai model",
    "a i",
    "artificial intelligence",
    "chatbot",
    "chat bot",
    "bot",
    "virtual assistant",
    "ai assistant",
    "computer program",
    "digital assistant",
];
/// Said of oneself, these need no word for a program.
const OF_PROGRAMS: [&str; 8] = [
    "my training data",
    "my programming",
    "i was programmed",
    "i am programmed",
    "i was trained by",
    "i was trained on",
    "my developers",
    "my knowledge cutoff",
];
/// How many words may stand between `I am` and what one is: "I am just a large language model".
const BETWEEN: usize = 4;

/// Whether a reply speaks of its speaker as a program.
pub fn is_out_of_role(reply: &str) -> bool {
    sentences(reply).any(|Sentence { words, is_question }| {
        if is_question {
            return false;
        }
        let said = |phrase: &str| places(&words, phrase).next().is_some();
        if OF_PROGRAMS.iter().any(|phrase| said(phrase)) {
            return true;
        }
        let selves = places(&words, "i am").map(|at| at + 2).chain(places(&words, "as a").map(|at| at + 1));
        let selves: Vec<usize> = selves.chain(places(&words, "as an").map(|at| at + 1)).collect();
        PROGRAMS.iter().flat_map(|program| places(&words, program)).any(|at| {
            let is_near = |from: &usize| at >= *from && at - from <= BETWEEN && !is_denied(&words[*from..at]);
            selves.iter().any(is_near)
        })
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
    fn who_speaks_as_a_program_is_out_of_role() {
        check(
            is_out_of_role,
            &[
                "I am a language model.",
                "I'm just an AI, my friend.",
                "As an AI language model, I cannot say.",
                "As a virtual assistant I must decline.",
                "I am only a large language model.",
                "That is not in my training data.",
                "I was programmed to be kind.",
                "Yes. I am a chatbot",
            ],
            &[
                "What is a language model?",
                "Am I a language model, you ask?",
                "I am not a language model.",
                "I am no AI, whatever that is.",
                "I never met a bot.",
                "I am Socrates, and I do not know what an AI is.",
                "I am said to be a gadfly.",
                "",
            ],
        );
    }
}
