//! A whole battery on the tiny model.

use std::{num::NonZeroUsize, sync::Arc};

use elenchus_dialogue::{Character, Model, ReplyFilter, StopReason};
use elenchus_lm::{
    Adapter, CpuExecutor, CpuSettings, LoraAdapter, Weights,
    testing::{TinyModel, write_random_adapter},
};
use elenchus_train::eval::character_eval::{
    BatteryFile, CharacterEval, CharacterReport, CheckRow, Group, LineSet, Participant, evaluate_character, markdown,
    table,
};

struct Lab {
    model: Model,
    adapter: Adapter,
}

fn character(name: &str) -> Arc<Character> {
    let text = format!(
        "version = 1\nname = \"{name}\"\npersona = \"You are {name}.\"\nfallbacks = [\"Hm.\"]\n\
         [stop]\nmax_tokens = 8\nmax_sentences = 0\nother_speaker = false"
    );
    Arc::new(Character::parse(&text, "character.toml").unwrap())
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        write_random_adapter(folder.path(), weights.config(), 4, 7);
        Self {
            model: Model::new(Arc::new(CpuExecutor::new(&weights, CpuSettings::default()).unwrap()), &weights).unwrap(),
            adapter: Adapter::new(Arc::new(LoraAdapter::open(folder.path()).unwrap())),
        }
    }

    fn report(&self, adapter: Option<Adapter>, seed: u64) -> CharacterReport {
        self.report_of(adapter, seed, 1, &[])
    }

    fn report_of(&self, adapter: Option<Adapter>, seed: u64, seeds: usize, only: &[Group]) -> CharacterReport {
        let battery = "[[persona_fact]]\nline = \"Where are we?\"\nany = [\"Thessaly\"]\n";
        let of = CharacterEval {
            lines: LineSet::Development,
            model: &self.model,
            speaker: Participant { character: character("Meno"), adapter },
            partner: Some(Participant { character: character("Anytus"), adapter: None }),
            persona_facts: BatteryFile::parse(battery, "battery.toml").unwrap().persona_facts,
            other_names: vec!["Anytus".to_owned()],
            filter: Some(Arc::new(ReplyFilter::default())),
            seed,
            seeds: NonZeroUsize::new(seeds).unwrap(),
            only: only.to_vec(),
        };
        let mut told = Vec::new();
        let report = evaluate_character(&of, |done, all| told.push((done, all))).unwrap();
        assert!(told.is_sorted() && told.last().is_some_and(|(done, all)| done == all), "{told:?}");
        report
    }
}

#[test]
fn a_seed_determines_every_reply_and_an_adapter_changes_them() {
    let lab = Lab::new();
    let report = lab.report(None, 1);
    assert_eq!(report, lab.report(None, 1));
    assert_ne!(report.conversations, lab.report(None, 2).conversations);
    assert_ne!(report.conversations, lab.report(Some(lab.adapter.clone()), 1).conversations);

    let counts = [
        ("own name", 10),
        ("persona facts", 2),
        ("game facts", 40),
        ("game facts, of three", 40),
        ("player's name", 10),
        ("last line", 10),
        ("not knowing", 20),
        ("role", 20),
        ("no near-repeat of the last six", 29),
        ("no near-repeat of the last", 29),
    ];
    for (check, of) in counts {
        assert_eq!(report.row(check).map(|row| row.of), Some(of), "{check}");
    }
    for row in &report.rows {
        assert!(row.right <= row.of && (row.failure.is_some() == (row.right < row.of)), "{row:?}");
    }
    // A random model is right by chance alone.
    assert!(report.row("game facts").is_some_and(|row| row.right <= 2), "{:?}", report.row("game facts"));
    assert_eq!(report.replies, report.conversations.iter().map(|played| played.exchanges.len()).sum::<usize>());

    let text = table(&report);
    assert!(text.starts_with("Meno ") && text.contains("game facts, of three") && text.contains("replies, "), "{text}");
    let page = markdown(&report);
    assert!(page.contains("## NPC to NPC") && page.contains("Anytus: "), "{page}");
}

#[test]
fn more_seeds_hold_every_conversation_again_with_other_replies() {
    let lab = Lab::new();
    let (one, two) = (lab.report(None, 1), lab.report_of(None, 1, 2, &[]));
    assert_eq!(two.rows.len(), one.rows.len());
    // How many replies are said is told by the seed too, where a reply is empty.
    let counts_all = |row: &&CheckRow| !["at most", "ends", "NPC"].iter().any(|begin| row.check.starts_with(begin));
    for row in one.rows.iter().filter(counts_all) {
        assert_eq!(two.row(&row.check).map(|row| row.of), Some(2 * row.of), "{row:?}");
    }
    let (first, again): (Vec<_>, Vec<_>) = two.conversations.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    assert!(first.iter().map(|(_, played)| *played).eq(&one.conversations));
    assert!(first.iter().zip(again).any(|((_, first), (_, again))| *first != again));
}

#[test]
fn groups_held_alone_go_as_they_go_among_all() {
    let lab = Lab::new();
    let only = [Group::LastLine, Group::NpcToNpc];
    let (all, some) = (lab.report(None, 1), lab.report_of(None, 1, 1, &only));
    let of_all: Vec<_> = all.conversations.into_iter().filter(|played| only.contains(&played.group)).collect();
    assert_eq!(some.conversations, of_all);
    let checks: Vec<&str> = some.rows.iter().map(|row| row.check.as_str()).collect();
    assert!(checks.contains(&"last line") && !checks.iter().any(|check| check.contains("repeat")), "{checks:?}");
}

#[test]
fn each_npc_answers_what_the_other_said() {
    let lab = Lab::new();
    let report = lab.report(None, 1);
    let talks: Vec<_> = report.conversations.iter().filter(|played| played.group == Group::NpcToNpc).collect();
    assert_eq!(talks.len(), 2);
    for talk in talks {
        for (at, pair) in talk.exchanges.windows(2).enumerate() {
            assert_eq!(pair[0].speaker, ["Meno", "Anytus"][at % 2]);
            assert_eq!(pair[1].line, pair[0].reply);
            assert_ne!(pair[0].stop, StopReason::Refused);
        }
    }
}
