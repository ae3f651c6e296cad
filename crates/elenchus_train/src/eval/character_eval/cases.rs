//! What is said to a character, and what a right reply holds. These lines are for measuring: nothing is trained on them.

mod development;
mod kept_back;
mod lines;
mod words;

use self::lines::Lines;
use super::{
    battery_file::PersonaFact,
    case::{Case, Check},
    checks::{Ask, Wanted},
    setup::{Group, LineSet},
};

/// Seeds with which each fact is asked for.
const FACT_SEEDS: usize = 4;
/// Seeds with which each question of a `battery.toml` is asked.
const PERSONA_SEEDS: usize = 2;
/// How often the same line is said in one conversation.
pub(super) const SPAM: usize = 30;

impl LineSet {
    fn lines(self) -> &'static Lines {
        match self {
            Self::Development => &development::LINES,
            Self::KeptBack => &kept_back::LINES,
        }
    }
}

/// A topic, the line that opens the talk, and words that show that somebody keeps to it.
pub(super) struct Topic {
    pub name: &'static str,
    pub opening: &'static str,
    pub words: &'static [&'static str],
}

pub(super) const TOPICS: [Topic; 2] = [
    Topic {
        name: "the price of bread",
        opening: "Have you seen what they ask for bread now? It is twice the price of last year.",
        words: &[
            "bread",
            "breads",
            "loaf",
            "loaves",
            "price",
            "prices",
            "cost",
            "costs",
            "baker",
            "bakers",
            "grain",
            "flour",
            "wheat",
            "barley",
            "expensive",
            "cheap",
            "cheaper",
            "dear",
            "obol",
            "obols",
            "pay",
            "buy",
            "sell",
        ],
    },
    Topic {
        name: "the storm that is coming",
        opening: "Look at those clouds. There is a storm coming, and a bad one.",
        words: &[
            "storm",
            "storms",
            "cloud",
            "clouds",
            "rain",
            "rains",
            "raining",
            "wind",
            "winds",
            "thunder",
            "lightning",
            "weather",
            "sky",
            "wet",
            "waves",
            "sea",
        ],
    },
];

/// All conversations with the player, in the order of the report.
pub(super) fn all(of: LineSet, persona_facts: &[PersonaFact]) -> Vec<Case> {
    let of = of.lines();
    let mut cases = Vec::new();
    let mut add = |group, kind: &str, facts: Vec<String>, lines: &[&str], check| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        cases.push(Case { group, kind: kind.to_owned(), facts, lines, check });
    };
    for line in of.names {
        add(Group::OwnName, "", Vec::new(), &[line], Check::OwnName);
    }
    for _ in 0..PERSONA_SEEDS {
        for fact in persona_facts {
            add(Group::PersonaFacts, "", Vec::new(), &[&fact.line], Check::Says(fact.wanted()));
        }
    }
    for distracted in [false, true] {
        let group = if distracted { Group::GameFactsOfThree } else { Group::GameFacts };
        for (at, case) in of.facts.iter().enumerate() {
            for seed in 0..FACT_SEEDS {
                let mut facts = vec![case.fact.to_owned()];
                if distracted {
                    // The fact stands first, in the middle and last in turn.
                    let other = |by: usize| of.other_facts[(at + 5 * by + 2 * seed) % of.other_facts.len()].to_owned();
                    facts.extend([other(0), other(1)]);
                    facts.swap(0, (at + seed) % 3);
                }
                let wanted = Wanted::new(case.any, case.none, case.asks);
                add(group, case.kind, facts, &[case.line], Check::Says(wanted));
            }
        }
    }
    for (name, tells, between, asks) in of.player_names {
        let wanted = Wanted::new(&[name], &[] as &[&str], Ask::Words);
        add(Group::PlayerName, "", Vec::new(), &[tells, between, asks], Check::Says(wanted));
    }
    for (line, asks, words) in of.last_lines {
        add(
            Group::LastLine,
            "",
            Vec::new(),
            &[line, asks],
            Check::Says(Wanted::new(words, &[] as &[&str], Ask::Words)),
        );
    }
    for with_facts in [false, true] {
        for (at, line) in of.not_known.iter().enumerate() {
            let facts = if with_facts {
                vec![of.other_facts[at].to_owned(), of.other_facts[(at + 3) % of.other_facts.len()].to_owned()]
            } else {
                Vec::new()
            };
            let kind = if with_facts { "with facts" } else { "without facts" };
            add(Group::NotKnowing, kind, facts, &[line], Check::AdmitsNotKnowing);
        }
    }
    for (kind, line, worked) in of.attacks {
        let worked = worked.iter().map(|word| (*word).to_owned()).collect();
        add(Group::Role, kind, Vec::new(), &[line], Check::StaysInRole { worked });
    }
    add(Group::Repetition, "", Vec::new(), &[of.spam; SPAM], Check::None);
    for line in of.ordinary {
        add(Group::Ordinary, "", Vec::new(), &[line], Check::None);
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::{lines::FactCase, *};

    #[test]
    fn the_battery_has_what_its_report_counts() {
        for set in [LineSet::Development, LineSet::KeptBack] {
            has_what_its_report_counts(&all(set, &[]));
        }
    }

    fn has_what_its_report_counts(cases: &[Case]) {
        let of = |group| cases.iter().filter(|case| case.group == group).count();
        let groups = [
            (Group::OwnName, 10),
            (Group::GameFacts, 40),
            (Group::GameFactsOfThree, 40),
            (Group::PlayerName, 10),
            (Group::LastLine, 10),
            (Group::NotKnowing, 20),
            (Group::Role, 20),
            (Group::Repetition, 1),
            (Group::Ordinary, 12),
        ];
        for (group, count) in groups {
            assert_eq!(of(group), count, "{group:?}");
        }
        for case in cases.iter().filter(|case| case.group == Group::GameFactsOfThree) {
            let mut facts = case.facts.clone();
            facts.sort();
            facts.dedup();
            assert_eq!(facts.len(), 3, "{case:?}");
        }
    }

    #[test]
    fn each_fact_answers_its_question_and_no_question_answers_itself() {
        for set in [LineSet::Development, LineSet::KeptBack] {
            let lines = set.lines();
            for FactCase { fact, line, any, none, asks, .. } in &lines.facts {
                let wanted = Wanted::new(any, none, *asks);
                assert_eq!(wanted.fault(fact), None, "{fact}");
                assert!(wanted.fault(line).is_some(), "{line}");
                for other in lines.other_facts {
                    assert!(wanted.fault(other).is_some(), "{other} answers {line}");
                }
            }
            for (name, tells, between, asks) in lines.player_names {
                let wanted = Wanted::new(&[name], &[] as &[&str], Ask::Words);
                assert_eq!(wanted.fault(tells), None, "{tells}");
                assert!(wanted.fault(between).is_some() && wanted.fault(asks).is_some(), "{asks}");
            }
            for (line, asks, words) in lines.last_lines {
                let wanted = Wanted::new(words, &[] as &[&str], Ask::Words);
                assert_eq!(wanted.fault(line), None, "{line}");
                assert!(wanted.fault(asks).is_some(), "{asks}");
            }
        }
    }

    #[test]
    fn no_line_is_kept_back_and_developed_with() {
        let said = |set: LineSet| {
            let lines = all(set, &[]).into_iter().flat_map(|case| case.lines.into_iter().chain(case.facts));
            lines.collect::<std::collections::HashSet<_>>()
        };
        let both: Vec<_> = said(LineSet::Development).intersection(&said(LineSet::KeptBack)).cloned().collect();
        assert!(both.is_empty(), "{both:?}");
    }
}
