//! Can the judges tell what is plainly bad? Real replies beside bad ones that are made of the same texts. A judge that does
//! not reject what it is there for has nothing to say about voices.

use std::collections::BTreeSet;

use rand::{SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use elenchus_train::{
    Result,
    bootstrap::Wins,
    data::{Pair, words},
    eval::compare::{Bad, Planted},
    judge::{Exchange, Judge},
    numeric::mixed,
};

/// A real reply and a bad one to the same words.
#[derive(Debug, Clone, PartialEq)]
pub struct PlantedPair {
    /// What is wrong with the second.
    pub bad: Bad,
    /// What the character said.
    pub real: Exchange,
    /// What it did not say.
    pub planted: Exchange,
}

/// Bad replies for real ones, of each kind as many as the texts allow.
///
/// Replies and lines of fewer than four words are left out: a loop or an echo of them is none. `own` are the character's
/// pairs of the same works; others' words are what stands in their contexts.
pub fn plant(real: &[Pair], own: &[Pair], character: &str, seed: u64) -> Vec<PlantedPair> {
    const LEAST: usize = 4;
    let is_other = |name: &str| !name.eq_ignore_ascii_case(character);
    let turns = own.iter().flat_map(|pair| pair.context.iter().map(move |turn| (pair, turn)));
    let said: BTreeSet<&str> =
        turns.filter(|(_, turn)| is_other(&turn.speaker)).map(|(_, turn)| turn.text.as_str()).collect();
    let mut planted = Vec::new();
    for (at, pair) in real.iter().enumerate().filter(|(_, pair)| words(&pair.reply) >= LEAST) {
        let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed, at as u64));
        let is_near = |text: &str| pair.context.iter().any(|turn| turn.text == text) || text == pair.reply;
        let alike = |text: &&str| is_alike(words(text), words(&pair.reply)) && !is_near(text);
        // What shares a turn with it may be an answer to it.
        let shares = |other: &Pair| other.context.iter().any(|turn| is_near(&turn.text) || turn.text == pair.reply);
        let elsewhere = own.iter().filter(|other| !shares(other)).map(|other| other.reply.as_str());
        let newest = pair.context.last().map(|turn| turn.text.as_str()).filter(|text| words(text) >= LEAST);
        let all: Vec<&str> = pair.reply.split_whitespace().collect();
        let choose = |rng: &mut Pcg64Mcg, texts: Vec<&str>| texts.choose(rng).map(|text| (*text).to_owned());
        let replies = [
            (Bad::OtherSpeaker, choose(&mut rng, said.iter().copied().filter(alike).collect())),
            (Bad::OtherContext, choose(&mut rng, elsewhere.filter(alike).collect())),
            (Bad::Loop, Some(all.iter().take(3).cycle().take(all.len().max(9)).copied().collect::<Vec<_>>().join(" "))),
            (Bad::Echo, newest.map(str::to_owned)),
            (Bad::Cut, Some(all[..all.len() / 2].join(" "))),
        ];
        let exchange = |reply: String| Exchange { context: pair.context.clone(), reply, is_ended: true };
        planted.extend(replies.into_iter().filter_map(|(bad, reply)| {
            Some(PlantedPair { bad, real: exchange(pair.reply.clone()), planted: exchange(reply?) })
        }));
    }
    planted
}

/// As many words, but for a fifth or two.
fn is_alike(one: usize, other: usize) -> bool {
    one.abs_diff(other) <= 2.max(one.max(other) / 5)
}

/// What judges make of planted pairs, kind by kind. A pair that a judge cannot score is not counted.
pub fn rejected<'a>(
    judges: impl IntoIterator<Item = &'a dyn Judge>,
    pairs: &[PlantedPair],
    mut on_progress: impl FnMut(&str),
) -> Result<Vec<Planted>> {
    // A real reply is in as many pairs as there are kinds, and scored once.
    let mut real: Vec<Exchange> = Vec::new();
    let mut places = Vec::new();
    for pair in pairs {
        if real.last() != Some(&pair.real) {
            real.push(pair.real.clone());
        }
        places.push(real.len() - 1);
    }
    let bad: Vec<Exchange> = pairs.iter().map(|pair| pair.planted.clone()).collect();
    let mut rows = Vec::new();
    for judge in judges {
        on_progress(judge.name());
        let (real, bad) = (judge.judge(&real)?, judge.judge(&bad)?);
        for kind in Bad::ALL {
            let of_kind = (0..pairs.len()).filter(|&at| pairs[at].bad == kind);
            let scores = of_kind.filter_map(|at| {
                let (real, bad) = (real[places[at]].score?, bad[at].score?);
                (real.is_finite() && bad.is_finite()).then_some((f64::from(real), f64::from(bad)))
            });
            rows.push(Planted { judge: judge.name().to_owned(), bad: kind, wins: Wins::of(scores) });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;

    use super::*;
    use elenchus_train::judge::{Rules, Scripted};

    fn pairs() -> Vec<Pair> {
        let turn = |speaker: &str, text: String| Turn { speaker: speaker.into(), text };
        const SAID: [&str; 6] = [
            "I say that virtue is the best thing that a man can have.",
            "Nobody who builds ships would ever agree with you there.",
            "Let us rather ask our friend Gorgias, for he knows more.",
            "There was once a horse in Thessaly which answered better.",
            "By the gods, Socrates, you have numbed my soul and mouth.",
            "My teacher used to speak of such matters for whole days.",
        ];
        (0..6)
            .map(|at| {
                Pair::new(
                    "w",
                    vec![turn("Meno", SAID[at].to_owned())],
                    format!("And what is number {at}, if you can tell me, my good Meno?"),
                )
            })
            .collect()
    }

    #[test]
    fn each_kind_is_what_it_is_called() {
        let own = pairs();
        let planted = plant(&own[..2], &own, "Socrates", 1);
        let kinds: Vec<Bad> = planted.iter().map(|pair| pair.bad).collect();
        assert_eq!(kinds, [Bad::ALL, Bad::ALL].concat());
        let of = |bad: Bad| &planted.iter().find(|pair| pair.bad == bad).unwrap().planted.reply;
        assert!(own[1..].iter().any(|pair| pair.context[0].text == *of(Bad::OtherSpeaker)), "not what was just said");
        assert!(own[1..].iter().any(|pair| pair.reply == *of(Bad::OtherContext)), "not the reply itself");
        assert_eq!(of(Bad::Loop), "And what is And what is And what is And what is And");
        assert_eq!(*of(Bad::Echo), own[0].context[0].text);
        assert_eq!(of(Bad::Cut), "And what is number 0, if");
        assert_eq!(plant(&own[..2], &own, "Socrates", 1), planted);
        let short = Pair { reply: "Why so, Meno?".into(), ..own[0].clone() };
        assert_eq!(plant(&[short], &own, "Socrates", 1), []);
    }

    #[test]
    fn judges_are_counted_kind_by_kind() {
        let own = pairs();
        let planted = plant(&own, &own, "Socrates", 1);
        let blind = Scripted::new("blind", |_: &Exchange| Some(1.0));
        let silent = Scripted::new("silent", |_: &Exchange| None);
        let rules = Rules::new(Vec::new());
        let judges: [&dyn Judge; 3] = [&rules, &blind, &silent];
        let rows = rejected(judges, &planted, |_| ()).unwrap();
        let of = |judge: &str, bad: Bad| rows.iter().find(|row| row.judge == judge && row.bad == bad).unwrap().wins;
        assert_eq!(of("rules", Bad::OtherSpeaker), Wins { tied: 6, ..Wins::default() });
        for bad in [Bad::Loop, Bad::Echo, Bad::Cut] {
            assert_eq!(of("rules", bad), Wins { won: 6, ..Wins::default() }, "{bad:?}");
        }
        for bad in Bad::ALL {
            assert_eq!((of("blind", bad).tied, of("silent", bad).total()), (6, 0));
        }
    }
}
