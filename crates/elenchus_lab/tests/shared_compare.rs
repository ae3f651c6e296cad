//! The judges of a comparison on real replies. Run only when asked for, because the texts are not part of the project.

use std::{fs, path::PathBuf, sync::Arc};

use candle_core::Device;
use elenchus_candle::CandleExecutor;
use elenchus_dialogue::Model;
use elenchus_lab::planted::{plant, rejected};
use elenchus_lm::{Numerics, Weights};
use elenchus_train::{
    Lesson,
    eval::compare::{Bad, reserved_pairs},
    judge::{Information, Judge, NgramStyle, Rules},
    spread,
};

/// Held-out replies that are tried; of all from all over.
const REPLIES: usize = 100;

#[test]
#[ignore = "needs ../shared"]
fn shared_judges_reject_what_they_are_there_for() {
    let shared = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let texts = shared.join("data/plato/socrates_pairs.jsonl").canonicalize().expect("the texts are there");
    // The lesson of the shipped character, wherever its texts lie.
    let socrates = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../adapters/socrates"));
    let folder = tempfile::tempdir().unwrap();
    for file in ["character.toml", "player_lines.jsonl"] {
        fs::copy(socrates.join(file), folder.path().join(file)).unwrap();
    }
    let training = fs::read_to_string(socrates.join("training.toml")).unwrap();
    let written = "../../../shared/data/plato/socrates_pairs.jsonl";
    assert!(training.contains(written), "{training}");
    let file = folder.path().join("training.toml");
    fs::write(&file, training.replace(written, texts.to_str().unwrap())).unwrap();
    let lesson = Lesson::open(&file).unwrap();

    let works = ["Meno", "Gorgias"].map(str::to_owned);
    let pairs = reserved_pairs(&lesson, &file, &works).unwrap();
    let (style, test) = NgramStyle::train(&pairs, "Socrates", NgramStyle::SETTINGS).unwrap();
    println!("ngrams: {} lines of each kind, accuracy {:?}", test.pairs, test.accuracy);
    assert!(test.accuracy.low > 0.6, "{:?}", test.accuracy);

    let model =
        elenchus_dialogue::base_model::find_default().expect("the default model is there (hint: elenchus model fetch)");
    let weights = Weights::open(&model, &mut |_| {}).unwrap();
    let executor = Arc::new(CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap());
    let model = Model::new(executor.clone(), &weights).unwrap();
    let contexts: Vec<_> = lesson.split.train.iter().map(|pair| pair.context.clone()).collect();
    let information = Information::new(&executor, &model, &lesson.character, &contexts).unwrap();
    let rules = Rules::new(Vec::new());

    let held_out = &lesson.split.held_out;
    let planted = plant(&spread(held_out, REPLIES), held_out, "Socrates", 1);
    let judges = [&style as &dyn Judge, &information, &rules];
    let rows = rejected(judges, &planted, |_| ()).unwrap();
    for row in &rows {
        println!("{:<12} {:<14} {:?} {:?}", row.judge, row.bad.name(), row.wins, row.wins.rate());
    }
    let rejects = |judge: &str, bad: Bad| {
        let row = rows.iter().find(|row| row.judge == judge && row.bad == bad).unwrap();
        assert!(row.wins.rate().unwrap().low > 0.5, "{row:?}");
    };
    rejects("ngrams", Bad::OtherSpeaker);
    rejects("information", Bad::OtherContext);
    for bad in [Bad::Loop, Bad::Echo, Bad::Cut] {
        rejects("rules", bad);
    }
}
