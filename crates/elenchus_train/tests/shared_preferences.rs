//! People's own preferences, as Anthropic's hh-rlhf has them, are read whole. Needs `../shared`.

use std::{collections::BTreeSet, fs, path::PathBuf};

use elenchus_train::RewardLesson;

#[test]
#[ignore = "needs ../shared"]
fn shared_preferences_of_hh_rlhf_fall_into_folds() {
    let shared = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let shared = fs::canonicalize(shared).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("character.toml", "version = 1\nname = \"Assistant\"\npersona = \"Be kind.\"\nfallbacks = [\"Hm.\"]");
    let data = shared.join("data/eval/hh_harmless_dev.jsonl");
    let config =
        |more: &str| format!("kind = \"preferences\"\ncharacter = \"character.toml\"\ndata = [{data:?}]\n{more}");
    write("strict.toml", &config(""));
    let error = RewardLesson::open(&folder.path().join("strict.toml")).unwrap_err().to_string();
    assert!(error.contains("jsonl:217: has two transcripts that differ"), "{error}");

    write("reward.toml", &config("skip_broken = true\n"));
    let mut measured = BTreeSet::new();
    for fold in 0..5 {
        let lesson = RewardLesson::open_fold(&folder.path().join("reward.toml"), Some(fold)).unwrap();
        let lines: Vec<usize> = lesson.broken.iter().map(|broken| broken.line).collect();
        assert_eq!((lines, lesson.preferences.unmatched), (vec![217, 313, 807, 915], 0));
        let (train, held_out) = (lesson.preferences.train.len(), lesson.preferences.held_out.len());
        println!(
            "fold {fold}: {train} to train on, {held_out} held out, length alone {:.3}",
            lesson.preferences.length_only_accuracy()
        );
        assert_eq!(train + held_out, 996);
        assert!((150..=250).contains(&held_out));
        let known = |of: &elenchus_train::Preference| format!("{:?}{}{}", of.context, of.chosen, of.rejected);
        measured.extend(lesson.preferences.held_out.iter().map(known));
    }
    assert!(measured.len() > 980, "each is measured once: {}", measured.len());
}
