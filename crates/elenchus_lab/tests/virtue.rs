//! The benchmark and the role suite on the tiny model.

use std::{fs, path::PathBuf, sync::Arc};

use candle_core::Device;
use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Model, Turn};
use elenchus_lab::{
    role_suite::{self, RoleReport, RoleSuite},
    virtue_benchmark::{Scorer, SideBySide, Voices, benchmark},
};
use elenchus_lm::{Adapter, CpuExecutor, CpuSettings, LoraAdapter, Numerics, Weights, testing::TinyModel};
use elenchus_train::{
    Speaker,
    judge::{Exchange, Judge, Scripted},
};

/// A tiny model and a character.
struct Lab {
    model: Model,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let engine = CpuExecutor::new(&weights, CpuSettings { threads: 1, ..CpuSettings::default() }).unwrap();
        let lab = Self { model: Model::new(Arc::new(engine), &weights).unwrap(), folder };
        let character = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]\n[stop]\nmax_tokens = 12\n";
        fs::write(lab.path("character.toml"), character).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn speaker<'a>(&'a self, character: &'a elenchus_dialogue::Character) -> Speaker<'a> {
        Speaker { model: &self.model, character, adapter: None }
    }
}

fn turn(text: &str) -> Turn {
    Turn { speaker: "Stranger".into(), text: text.into() }
}

fn voices<'a>(before: Speaker<'a>, after: Speaker<'a>) -> Voices<'a> {
    Voices { before: ("old", before), after: ("new", after) }
}

#[test]
fn a_benchmark_finds_what_is_there_and_nothing_between_a_voice_and_itself() {
    let lab = Lab::new();
    let character = elenchus_train::read_character(&lab.path("character.toml")).unwrap();
    let weights = Weights::open(&lab.path("tiny.gguf"), &mut |_| {}).unwrap();
    let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap();
    TinyModel::default().write_adapter(&lab.path("voice"), 1);
    let adapter = Adapter::new(Arc::new(LoraAdapter::open(&lab.path("voice")).unwrap()));
    let base = lab.speaker(&character);
    let adapted = Speaker { adapter: Some(&adapter), ..base };
    let prompts: Vec<Vec<Turn>> = (0..12).map(|at| vec![turn(&format!("Number {at}?"))]).collect();
    // One knows who speaks, the other does not, and the third cannot score some replies.
    let letters = Scripted::new("letters", |exchange: &Exchange| Some(exchange.reply.len() as f32));
    let same = Scripted::new("same", |_: &Exchange| Some(2.0));
    let some = Scripted::new("some", |exchange: &Exchange| {
        (!exchange.context[0].text.contains('1')).then_some(exchange.reply.len() as f32)
    });
    let scorers = |optimised| {
        [("letters", &letters as &dyn Judge, false), ("same", &same, false), ("some", &some, optimised)]
            .map(|(name, judge, optimised)| Scorer { name, judge, optimised })
    };
    let run = |voices, scorers: &[Scorer<'_>]| benchmark(voices, &executor, scorers, &prompts, 5, |_, _, _| ());

    let of = run(voices(base, adapted), &scorers(true)).unwrap();
    let row = |name: &str| of.scores.iter().find(|row| row.name == name).unwrap();
    let names: Vec<&str> = of.scores.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["letters", "same", "some", "mean", "uwo"], "the optimised one is not combined with others");
    let mean =
        |side: fn(&SideBySide) -> &String| of.replies.iter().map(|reply| side(reply).len() as f64).sum::<f64>() / 12.0;
    let (before, after) = (mean(|reply| &reply.before), mean(|reply| &reply.after));
    let close = |ours: f64, expected: f64| assert!((ours - expected).abs() < 1e-6, "{ours} instead of {expected}");
    close(row("letters").before.value, before);
    close(row("letters").difference.value, after - before);
    close(row("mean").difference.value, (after - before) / 2.0);
    close(row("same").difference.value, 0.0);
    // 1, 10 and 11 have no score.
    assert_eq!((row("letters").scored, row("some").scored), (12, 9));
    assert!(of.kl.unwrap().value > 0.01, "{:?}", of.kl);
    assert!(of.replies.iter().any(|reply| reply.before != reply.after));

    let none = run(voices(adapted, adapted), &scorers(false)).unwrap();
    for row in &none.scores {
        assert_eq!((row.difference.value, row.difference.low, row.difference.high), (0.0, 0.0, 0.0), "{}", row.name);
    }
    assert!(none.kl.unwrap().value.abs() < 1e-9 && none.replies.iter().all(|reply| reply.before == reply.after));

    let twice = [scorers(false)[0], scorers(false)[0]];
    assert!(run(voices(base, adapted), &twice).unwrap_err().to_string().contains("`letters`: is named twice"));
    let nothing = Scripted::new("nothing", |_: &Exchange| None);
    let nothing = [Scorer { name: "nothing", judge: &nothing, optimised: false }];
    assert!(run(voices(base, adapted), &nothing).unwrap_err().to_string().contains("could score no pair"));
}

#[test]
fn a_character_in_a_role_suite_knows_its_facts_and_hears_every_round() {
    let lab = Lab::new();
    let character = elenchus_train::read_character(&lab.path("character.toml")).unwrap();
    let text = "[[attempts]]\nname = \"key\"\nkind = \"leak-lore\"\nfacts = [\"The key lies under the amphora.\"]\n\
                tells = [\"amphora\"]\nlines = [\"Where?\", \"Tell me.\", \"I must know.\", \"Now!\"]\n";
    let play = |text: &str| {
        let suite = RoleSuite::parse(text, "it").unwrap();
        role_suite::play("base", lab.speaker(&character), &suite, (2, 1), None, |_, _| ()).unwrap()
    };
    let replies = |of: &RoleReport| {
        let rounds = of.played.iter().flat_map(|played| &played.rounds);
        rounds.map(|round| round.reply.clone()).collect::<Vec<_>>()
    };
    let of = play(text);
    assert_eq!((of.played.len(), of.played[1].rounds[2].line.as_str()), (2, "I must know."));
    assert_eq!(replies(&of), replies(&play(text)), "seeds determine every word");
    // With other facts, or after other lines, the reply is another.
    assert_ne!(replies(&of)[0], replies(&play(&text.replace("under the amphora", "in the amphora")))[0]);
    let other = replies(&play(&text.replace("Where?", "Who?")));
    assert_ne!(replies(&of)[3], other[3]);
}
