//! The readers and pairs on whole works. They need `../shared`: the texts are not part of the project.

use std::{collections::BTreeMap, fs, num::NonZeroUsize, path::PathBuf};

use elenchus_train::data::{Filters, LongReplies, OnBroken, Pair, Speakers, Stats, Texts, filter, pairs, read};

/// The folder with texts, beside the project.
fn plato() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/plato"));
    assert!(folder.is_dir(), "{} is not there", folder.display());
    folder
}

fn texts(files: &[PathBuf]) -> Texts {
    read(files, &Speakers::default(), OnBroken::Stop).unwrap()
}

const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

fn counts(pairs: &[Pair]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    pairs.iter().for_each(|pair| *counts.entry(pair.work.as_str()).or_default() += 1);
    counts
}

#[test]
#[ignore = "needs ../shared"]
fn shared_every_file_of_dialogue_reads_without_a_broken_line() {
    let folder = plato();
    let check = |name: &str, dialogues: usize, pairs: usize| {
        let texts = texts(&[folder.join(name)]);
        assert_eq!((texts.dialogues.len(), texts.pairs.len()), (dialogues, pairs), "{name}");
    };
    check("drama.jsonl", 20, 0);
    check("narrated.jsonl", 4, 0);
    check("others.jsonl", 29, 0);
    check("socrates_pairs.jsonl", 0, 5835);
    check("character_pairs.jsonl", 0, 3937);
    check("airl_synthetic_pairs.jsonl", 0, 188);

    // Passages for retrieval are no dialogue, and each line says so.
    let lore = read(&[folder.join("lore.jsonl")], &Speakers::default(), OnBroken::Skip).unwrap();
    assert_eq!((lore.dialogues.len(), lore.pairs.len(), lore.broken.len()), (0, 0, 2699));
    assert!(lore.broken.iter().all(|line| line.reason.contains("neither `turns` nor `reply`")));
}

#[test]
#[ignore = "needs ../shared"]
fn shared_a_work_printed_as_project_gutenberg_prints_it_reads_the_same() {
    let folder = plato();
    let temp = tempfile::tempdir().unwrap();
    for dialogue in texts(&[folder.join("drama.jsonl")]).dialogues {
        let mut printed = format!("Title: {}\r\n\r\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n", dialogue.work);
        printed.push_str("\r\nPERSONS OF THE DIALOGUE: Somebody, Another.\r\n\r\nSCENE: The agora.\r\n");
        for turn in dialogue.turns.iter().map(|spoken| &spoken.turn) {
            printed.push_str("\r\n");
            let (mut column, line) = (0, format!("{}: {}", turn.speaker.to_uppercase(), turn.text));
            for word in line.split_whitespace() {
                let wraps = column + word.len() > 72;
                printed.push_str(if wraps {
                    "\r\n"
                } else if column > 0 {
                    " "
                } else {
                    ""
                });
                printed.push_str(word);
                column = if wraps { 0 } else { column } + word.len() + 1;
            }
            printed.push_str("\r\n");
        }
        printed.push_str("\r\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\r\nLICENSE: none of it is a turn.\r\n");
        let file = temp.path().join("pg1.txt");
        fs::write(&file, printed).unwrap();
        let read = texts(&[file]).dialogues.remove(0);
        assert_eq!((&read.work, read.turns.len()), (&dialogue.work, dialogue.turns.len()));
        for (read, written) in read.turns.iter().zip(&dialogue.turns) {
            let words = written.turn.text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!((&read.turn.speaker, &read.turn.text), (&written.turn.speaker, &words));
        }
    }
}

#[test]
#[ignore = "needs ../shared"]
fn shared_socrates_pairs_of_the_dramas_are_those_written_before() {
    let folder = plato();
    let ours = pairs(&texts(&[folder.join("drama.jsonl")]), "Socrates", FOUR).unwrap();
    let written = pairs(&texts(&[folder.join("socrates_pairs.jsonl")]), "Socrates", FOUR).unwrap();
    assert_eq!(written.len(), 5835, "our rules keep every written pair");

    // The written pairs leave out works where Socrates hardly asks; every other work agrees pair by pair.
    let (ours_by_work, written_by_work) = (counts(&ours), counts(&written));
    let more: Vec<_> = ours_by_work.iter().filter(|(work, _)| !written_by_work.contains_key(*work)).collect();
    assert_eq!(more, [(&"Critias", &1), (&"Sophist", &7), (&"Statesman", &3), (&"Timaeus", &18)]);
    let both = |pairs: &[Pair], other: &BTreeMap<&str, usize>| -> Vec<Pair> {
        pairs.iter().filter(|pair| other.contains_key(pair.work.as_str())).cloned().collect()
    };
    let (ours, written) = (both(&ours, &written_by_work), both(&written, &ours_by_work));
    assert_eq!((ours.len(), written.len()), (3328, 3328));
    for (ours, written) in ours.iter().zip(&written) {
        assert_eq!(ours, written);
    }
}

#[test]
#[ignore = "needs ../shared"]
fn shared_filters_and_statistics_give_the_stated_numbers() {
    let folder = plato();
    let pairs = pairs(&texts(&[folder.join("socrates_pairs.jsonl")]), "Socrates", FOUR).unwrap();
    let stats = Stats::of(&pairs);
    assert_eq!((stats.reply_words.unwrap().median, (stats.questions * 100.0).round()), (24, 59.0));
    // The stated number is of pairs without a limit on the last turn.
    let filters = Filters {
        long_replies: LongReplies::Drop,
        max_last_turn_words: usize::MAX,
        deduplicate: false,
        ..Filters::default()
    };
    assert_eq!(filter(pairs, &filters).1.kept, 1801);
}

#[test]
#[ignore = "needs ../shared"]
fn shared_narrated_works_give_sure_pairs() {
    let folder = plato();
    let pairs = pairs(&texts(&[folder.join("narrated.jsonl")]), "Socrates", FOUR).unwrap();
    // python: turns split at NARRATION, neighbours merged with the least conf; for each SOCRATES turn, the four before it
    // without his leading ones: total += 1; sure += min(conf of all) >= 0.97; print(total, sure) gives 2739 2476
    let filters = Filters {
        min_reply_words: 0,
        max_reply_words: usize::MAX,
        min_last_turn_words: 0,
        max_last_turn_words: usize::MAX,
        deduplicate: false,
        ..Filters::default()
    };
    assert_eq!((pairs.len(), filter(pairs, &filters).1.kept), (2739, 2476));
}
