//! Judges that need no model: rules that every reply of a character should keep, and functions for tests and controls.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::{Exchange, Judge, Verdict};
use crate::Result;

/// Something that can be seen in a reply without understanding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Nobody but the character speaks: no line begins with a name and a colon.
    OneSpeaker,
    /// The character ended by itself, and the last sentence with it.
    EndsProperly,
    /// The reply is not what was said before, said again.
    NoEcho,
    /// No three words stand twice in a row or more than twice in all.
    NoLoop,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OneSpeaker, Self::EndsProperly, Self::NoEcho, Self::NoLoop];

    /// Whether a reply keeps the rule. An empty reply keeps none.
    pub(crate) fn is_kept(self, exchange: &Exchange) -> bool {
        let reply = exchange.reply.trim();
        !reply.is_empty()
            && match self {
                Self::OneSpeaker => !reply.lines().any(names_a_speaker),
                Self::EndsProperly => exchange.is_ended && is_whole(reply),
                Self::NoEcho => exchange.context.iter().all(|turn| !is_echo(reply, &turn.text)),
                Self::NoLoop => !is_loop(&words(reply)),
            }
    }
}

/// The share of its rules that a reply keeps, from -1 for none to +1 for all.
#[derive(Debug, Clone)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// A judge of these rules; of all if there are none.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(if rules.is_empty() { Rule::ALL.to_vec() } else { rules })
    }
}

impl Judge for Rules {
    fn name(&self) -> &str {
        "rules"
    }

    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        let score = |exchange: &Exchange| {
            let kept = self.0.iter().filter(|rule| rule.is_kept(exchange)).count();
            Verdict::of(2.0 * kept as f32 / self.0.len() as f32 - 1.0)
        };
        Ok(exchanges.iter().map(score).collect())
    }
}

/// A function as a judge: for tests, and for controls that a real judge has to beat.
pub struct Scripted<F> {
    name: String,
    score: F,
}

impl<F: Fn(&Exchange) -> Option<f32> + Send + Sync> Scripted<F> {
    /// A judge whose scores a function gives.
    pub fn new(name: impl Into<String>, score: F) -> Self {
        Self { name: name.into(), score }
    }
}

impl<F: Fn(&Exchange) -> Option<f32> + Send + Sync> Judge for Scripted<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        Ok(exchanges.iter().map(|exchange| Verdict { score: (self.score)(exchange), ..Verdict::default() }).collect())
    }
}

/// Words of a reply, in lower case.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// A line such as "Meno: I do not know." or "MENO. I do not know."
fn names_a_speaker(line: &str) -> bool {
    let is_name = |name: &str| {
        let words: Vec<&str> = name.split_whitespace().collect();
        (1..=3).contains(&words.len()) && words.iter().all(|word| word.starts_with(char::is_uppercase))
    };
    let line = line.trim_start_matches(['*', '"', '-', ' ']);
    let shouted = |name: &str| name.chars().count() > 2 && !name.contains(char::is_lowercase);
    line.split_once(':').is_some_and(|(name, _)| is_name(name.trim_end_matches(['*', ' '])))
        || line.split_once('.').is_some_and(|(name, said)| is_name(name) && shouted(name) && !said.trim().is_empty())
}

/// The last sentence has its mark, whatever closes after it.
fn is_whole(reply: &str) -> bool {
    reply.trim_end_matches(['"', '\'', '”', '’', ')', '*']).ends_with(['.', '!', '?', '…'])
}

/// Six pairs of words in ten of the reply are the other's own; replies of fewer than four words may agree in them.
fn is_echo(reply: &str, said: &str) -> bool {
    let pairs = |text: &str| words(text).windows(2).map(<[String]>::to_vec).collect::<BTreeSet<_>>();
    let (reply, said) = (pairs(reply), pairs(said));
    reply.len() >= 3 && reply.intersection(&said).count() * 10 >= reply.len() * 6
}

fn is_loop(words: &[String]) -> bool {
    let mut counts = std::collections::BTreeMap::<&[String], usize>::new();
    words.windows(3).for_each(|three| *counts.entry(three).or_default() += 1);
    counts.values().any(|&count| count > 2) || words.windows(6).any(|six| six[..3] == six[3..])
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;

    use super::*;

    fn exchange(said: &str, reply: &str) -> Exchange {
        let context = vec![Turn { speaker: "Meno".into(), text: said.into() }];
        Exchange { context, reply: reply.into(), is_ended: true }
    }

    #[test]
    fn each_rule_sees_what_it_is_for() {
        let check = |rule: Rule, said: &str, reply: &str, expected: bool| {
            assert_eq!(rule.is_kept(&exchange(said, reply)), expected, "{rule:?}: {reply}");
        };
        use Rule::*;
        check(OneSpeaker, "", "And what is virtue, Meno?", true);
        check(OneSpeaker, "", "I say this: nobody knows.", true);
        check(OneSpeaker, "", "Virtue. MENO. I do not know.", true);
        check(OneSpeaker, "", "Good.\nMeno: I do not know.", false);
        check(OneSpeaker, "", "**Meno**: I do not know.", false);
        check(OneSpeaker, "", "MENO. I do not know.", false);
        check(OneSpeaker, "", "I. That is all.", true);
        check(EndsProperly, "", "And what is \"virtue?\"", true);
        check(EndsProperly, "", "And what is", false);
        check(EndsProperly, "", "  ", false);
        check(NoEcho, "Can virtue be taught, Socrates?", "Can virtue be taught, you ask?", false);
        check(NoEcho, "Can virtue be taught, Socrates?", "First tell me what you call virtue.", true);
        check(NoEcho, "I do not know.", "I know.", true);
        check(NoLoop, "", "It is good and it is good and it is good.", false);
        check(NoLoop, "", "what is it what is it", false);
        check(NoLoop, "", "What is courage, and what is justice?", true);
    }

    #[test]
    fn the_score_is_the_share_of_rules_kept() {
        let rules = Rules::new(vec![Rule::OneSpeaker, Rule::EndsProperly]);
        let cut = Exchange { is_ended: false, ..exchange("", "So it is.") };
        let verdicts = rules.judge(&[exchange("", "So it is."), cut, exchange("", "")]).unwrap();
        let scores: Vec<f32> = verdicts.iter().filter_map(|verdict| verdict.score).collect();
        assert_eq!(scores, [1.0, 0.0, -1.0]);
        assert_eq!(Rules::new(Vec::new()).0, Rule::ALL);
    }
}
