//! A whole comparison on the tiny model.

use std::sync::Arc;

use candle_core::Device;
use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Character, Model, Turn};
use elenchus_lm::{
    CpuExecutor, CpuSettings, LoraAdapter, Numerics, Weights,
    testing::{TinyModel, write_random_adapter},
};
use elenchus_train::{
    bootstrap::Wins,
    data::Pair,
    eval::compare::{Bad, Candidate, Comparison, EvalJudge, EvalSetup, Planted, compare, page, table},
    judge::{Exchange, Judge, Judges, Rules, Scripted, WeightedJudge},
};

struct Lab {
    executor: CandleExecutor,
    model: Model,
    character: Character,
    adapters: Vec<Arc<LoraAdapter>>,
    prompts: Vec<Vec<Turn>>,
    own: Vec<Pair>,
}

fn turn(speaker: &str, text: String) -> Turn {
    Turn { speaker: speaker.into(), text }
}

/// The share of letters that come early in ASCII: what a random model says by chance.
fn early(reply: &str) -> f32 {
    reply.chars().filter(|c| (*c as u32) < 80).count() as f32 / reply.chars().count().max(1) as f32
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let adapter = |seed: u64| {
            let folder = tempfile::tempdir().unwrap();
            write_random_adapter(folder.path(), weights.config(), 4, seed);
            Arc::new(LoraAdapter::open(folder.path()).unwrap())
        };
        let character = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]\n\
                         [stop]\nmax_tokens = 12\nmax_sentences = 0\nother_speaker = false";
        let pair = |at: usize| {
            Pair::new(
                "w",
                vec![turn("Socrates", format!("What do you say of number {at}, my friend?"))],
                format!("I say of number {at} what Gorgias says of it."),
            )
        };
        Self {
            executor: CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap(),
            model: Model::new(Arc::new(CpuExecutor::new(&weights, CpuSettings::default()).unwrap()), &weights).unwrap(),
            character: Character::parse(character, "character.toml").unwrap(),
            adapters: vec![adapter(7), adapter(8)],
            prompts: (0..6).map(|at| vec![turn("Stranger", format!("Line {at}?"))]).collect(),
            own: (0..8).map(pair).collect(),
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let shown = vec![turn("Socrates", "Well?".into()), turn("Meno", "Well, Socrates.".into())];
        let sft = Candidate::adapted("sft", self.adapters[0].clone());
        let best = sft.best_of(3);
        vec![
            Candidate::persona(),
            Candidate::examples(shown),
            sft,
            Candidate::adapted("rl", self.adapters[1].clone()),
            Candidate::adapted("sft again", self.adapters[0].clone()),
            best,
        ]
    }

    fn compare(&self, candidates: &[Candidate], seed: u64) -> elenchus_train::Result<Comparison> {
        let rules = Rules::new(Vec::new());
        let early_judge = Scripted::new("early", |exchange: &Exchange| Some(early(&exchange.reply)));
        let odd = Scripted::new("odd", |exchange: &Exchange| (exchange.context[0].text != "Line 3?").then_some(1.0));
        let judges = [&rules as &dyn Judge, &early_judge, &odd];
        let seated = judges.map(|judge| EvalJudge { judge, optimised: judge.name() == "early" });
        let choice = Judges::new(vec![WeightedJudge {
            judge: Box::new(Scripted::new("early", |exchange: &Exchange| Some(early(&exchange.reply)))),
            weight: 1.0,
        }]);
        let setup = EvalSetup {
            model: &self.model,
            executor: &self.executor,
            character: &self.character,
            judges: &seated,
            choice: Some(&choice),
            own: &self.own,
            held_out: &self.own[..3],
            max_tokens: 200,
        };
        compare(&setup, candidates, &self.prompts, seed, |_, _, _| ())
    }
}

/// Without what a clock says.
fn timeless(mut comparison: Comparison) -> Comparison {
    for voice in &mut comparison.voices {
        voice.seconds = 0.0;
        voice.replies.iter_mut().for_each(|reply| reply.seconds = 0.0);
    }
    comparison
}

#[test]
fn voices_are_held_to_the_first_with_an_adapter() {
    let lab = Lab::new();
    let candidates = lab.candidates();
    let comparison = lab.compare(&candidates, 5).unwrap();
    let names: Vec<&str> = comparison.voices.iter().map(|voice| voice.name.as_str()).collect();
    assert_eq!(names, ["persona", "examples", "sft", "rl", "sft again", "sft, best of 3"]);
    assert_eq!(comparison.baseline, "sft");
    let voice = |name: &str| comparison.voices.iter().find(|voice| voice.name == name).unwrap();
    let replies = |name: &str| voice(name).replies.iter().map(|reply| reply.text.as_str()).collect::<Vec<_>>();

    // The same adapter says the same and is nowhere from itself; another does not and is.
    assert_eq!(replies("sft again"), replies("sft"));
    let again = voice("sft again");
    let kl = again.kl.unwrap();
    assert!(kl.value.abs() < 1e-9 && again.length_distance_difference.unwrap().value == 0.0, "{kl:?}");
    assert_eq!(again.perplexity, voice("sft").perplexity);
    for name in ["persona", "examples", "rl"] {
        assert_ne!(replies(name), replies("sft"), "{name}");
        assert!(voice(name).kl.unwrap().low > 1e-4, "{name}: {:?}", voice(name).kl);
        assert_ne!(voice(name).perplexity, voice("sft").perplexity, "{name}");
    }
    assert_ne!(voice("examples").perplexity, voice("persona").perplexity);
    let sft = voice("sft");
    assert!(sft.kl.is_none() && sft.scores["early"].difference.is_none() && sft.scores["early"].wins.is_none());

    // Of several replies the judge's favourite; the first of them is what is said anyway.
    let best = voice("sft, best of 3");
    let wins = best.scores["early"].wins.unwrap();
    assert!(wins.lost == 0 && wins.won > 0, "{wins:?}");
    assert!(best.scores["early"].difference.unwrap().value > 0.0 && best.perplexity.is_none() && best.kl.is_none());

    // What could not be scored is left out on both sides.
    assert!(comparison.voices.iter().all(|voice| voice.scores["odd"].scored == 5));
    assert_eq!(voice("rl").scores["odd"].wins.unwrap().tied, 5);
    let mean = |name: &str| replies(name).iter().map(|reply| f64::from(early(reply))).sum::<f64>() / 6.0;
    let difference = voice("rl").scores["early"].difference.unwrap().value;
    assert!((difference - (mean("rl") - mean("sft"))).abs() < 1e-6, "{difference}");

    let again = lab.compare(&candidates, 5).unwrap();
    assert_eq!(timeless(again), timeless(comparison.clone()), "the same seed, the same comparison");
    assert_ne!(timeless(lab.compare(&candidates, 6).unwrap()).voices, timeless(comparison).voices);
}

#[test]
fn a_comparison_is_read_as_text_as_a_page_and_as_json() {
    let lab = Lab::new();
    let mut comparison = lab.compare(&lab.candidates(), 5).unwrap();
    let rules = Rules::new(Vec::new());
    let wins = Wins { won: 8, tied: 0, lost: 0 };
    comparison.planted = Bad::ALL.map(|bad| Planted { judge: rules.name().to_owned(), bad, wins }).to_vec();
    comparison.voices[0].replies[0].text = "<script>alert('x')</script>".to_owned();

    let text = table(&comparison);
    for part in ["6 prompts, seed 5", "sft, best of 3", "early, optimised", "1 not scored", "other speaker"] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let rules = text.lines().rfind(|line| line.starts_with("rules")).unwrap();
    assert!(rules.contains("100% of 8"), "{rules}");

    let page = page(&comparison);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;") && !page.contains("NaN"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains(" src="), "nothing is loaded");
    for tag in ["div", "section", "table", "svg", "figure", "tr", "td", "span", "g", "p"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "<{tag}>");
    }
    assert_eq!(page.matches("<h4>").count(), 6 * 6);

    let json = serde_json::to_string(&comparison).unwrap();
    let read: Comparison = serde_json::from_str(&json).unwrap();
    // A reader may lose a float's last digit.
    assert_eq!((table(&read), &read.voices[5].replies[2].text), (text, &comparison.voices[5].replies[2].text));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let mut lab = Lab::new();
    let sft = Candidate::adapted("sft", lab.adapters[0].clone());
    let check = |lab: &Lab, candidates: &[Candidate], says: &str| {
        let error = lab.compare(candidates, 1).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    check(&lab, &[Candidate::persona()], "no voice has an adapter");
    check(&lab, &[sft.clone(), sft.clone()], "`sft`: is compared twice");
    check(&lab, &[sft.best_of(0)], "no judge to choose by");
    lab.prompts.clear();
    check(&lab, &[sft], "no prompts");
}
