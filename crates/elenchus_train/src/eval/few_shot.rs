//! The baseline without training: a prompt in which the character has answered twice.

use elenchus_dialogue::Turn;

use crate::{
    Error, Result,
    data::{Pair, words},
};

/// Two exchanges, each what was said last and the reply: the two training pairs in the middle when ordered by their words.
///
/// # Errors
/// Fewer than two pairs.
pub fn example_turns(train: &[Pair], name: &str) -> Result<Vec<Turn>> {
    if train.len() < 2 {
        let reason = format!("{} training pairs are too few for two example turns (hint: hold out less)", train.len());
        return Err(Error::Split(reason));
    }
    let mut pairs: Vec<&Pair> = train.iter().collect();
    pairs.sort_by_key(|pair| words(&pair.reply) + pair.context.last().map_or(0, |turn| words(&turn.text)));
    let middle = pairs.len() / 2;
    let exchange = |pair: &&Pair| {
        let reply = Turn { speaker: name.to_owned(), text: pair.reply.clone() };
        pair.context.last().cloned().into_iter().chain([reply])
    };
    Ok(pairs[middle - 1..=middle].iter().flat_map(exchange).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(question: &str, reply: &str) -> Pair {
        let context = vec![Turn { speaker: "A".into(), text: question.into() }];
        Pair { work: "w".into(), context, facts: Vec::new(), notes: Vec::new(), reply: reply.into(), confidence: 1.0 }
    }

    #[test]
    fn example_turns_are_the_two_of_median_length() {
        let check = |lengths: &[usize], expected: &[&str]| {
            let pairs: Vec<Pair> = lengths.iter().map(|&words| pair("why", &vec!["b"; words].join(" "))).collect();
            let turns = example_turns(&pairs, "B").unwrap();
            let shown: Vec<String> = turns.iter().map(|turn| format!("{}: {}", turn.speaker, turn.text)).collect();
            assert_eq!(shown, expected);
        };
        check(&[1, 2], &["A: why", "B: b", "A: why", "B: b b"]);
        check(&[9, 3, 1, 2, 9], &["A: why", "B: b b", "A: why", "B: b b b"]);
        assert!(example_turns(&[pair("why", "b")], "B").unwrap_err().to_string().contains("1 training pairs"));
    }
}
