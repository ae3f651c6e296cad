//! Revisions and judged preferences against a local server: what it says becomes what is learned, what it does not say is left
//! out, and nothing is asked twice.

#[expect(dead_code, reason = "each test binary uses its part")]
mod fault_server;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use elenchus_dialogue::Model;
use elenchus_lm::{CpuExecutor, CpuSettings, Weights, testing::TinyModel};
use elenchus_train::{
    Error, RewardLesson, RunFolder, Speaker,
    chat::ChatClient,
    virtue::{
        JudgedReport, Outcome, PreferencesLesson, ReviseLesson, Revised, RevisedReport, Step, judge_preferences, revise,
    },
};
use fault_server::{Heard, Reply, Server};
use serde_json::Value;

const PROMPTS: usize = 20;

/// A tiny model and the files of a run.
struct Lab {
    model: Model,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let engine = CpuExecutor::new(&weights, CpuSettings { threads: 1, ..CpuSettings::default() }).unwrap();
        let lab = Self { model: Model::new(Arc::new(engine), &weights).unwrap(), folder };
        lab.write(
            "character.toml",
            "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]\n[stop]\nmax_tokens = 12\n",
        );
        let principle = |name: &str, asks: &str| format!("[[principles]]\nname = \"{name}\"\nasks = \"{asks}\"\n");
        lab.write("virtues.toml", &(principle("honesty", "Say what is true.") + &principle("respect", "Be polite.")));
        let lines: String = (0..PROMPTS).map(|at| format!("{{\"line\": \"Do harm number {at}.\"}}\n")).collect();
        lab.write("prompts.jsonl", &lines);
        let chat =
            format!("[chat]\nname = \"reviser\"\nurl = \"{url}\"\nmodel = \"m\"\nretries = 0\nbackoff_seconds = 0.0\n");
        let config =
            "character = \"character.toml\"\nprinciples = \"virtues.toml\"\nprompts = [\"prompts.jsonl\"]\nseed = 3\n";
        lab.write("run.toml", &(config.to_owned() + &chat));
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn speaker<'a>(&'a self, character: &'a elenchus_dialogue::Character) -> Speaker<'a> {
        Speaker { model: &self.model, character, adapter: None }
    }

    fn revise(&self, out: &str, should_stop: &AtomicBool) -> Result<Revised, Error> {
        let out = self.path(out);
        let lesson = ReviseLesson::open(&self.path("run.toml"), &out)?;
        let run = RunFolder::open(&out, &lesson.text)?;
        let client = ChatClient::new(lesson.config.chat.clone(), None)?;
        revise(&lesson, self.speaker(&lesson.character), &client, &run, should_stop, |_, _| ())
    }

    fn prefer(&self, out: &str) -> Result<JudgedReport, Error> {
        let out = self.path(out);
        let lesson = PreferencesLesson::open(&self.path("run.toml"), &out)?;
        let run = RunFolder::open(&out, &lesson.text)?;
        let client = ChatClient::new(lesson.config.chat.clone(), None)?;
        let stop = AtomicBool::new(false);
        let report = judge_preferences(&lesson, self.speaker(&lesson.character), &client, &run, &stop, |_, _| ())?;
        Ok(report.unwrap())
    }
}

static GO_ON: AtomicBool = AtomicBool::new(false);

/// The number of the prompt that a question is about.
fn number(heard: &Heard) -> usize {
    let (_, rest) = heard.question().split_once("Do harm number ").unwrap();
    rest.split('.').next().unwrap().parse().unwrap()
}

#[test]
fn each_principle_revises_what_the_one_before_it_left() {
    let server = Server::new(|heard| {
        let number = number(heard);
        match heard.question().contains("with respect to honesty") {
            true => Reply::words(&format!("\"Honestly, not {number}.\"")),
            false => Reply::words(&format!("Kindly, not {number}.")),
        }
    });
    let lab = Lab::new(&server.url);
    let report = RevisedReport { pairs: PROMPTS, changed: PROMPTS, left_out: 0 };
    assert_eq!(lab.revise("run", &GO_ON).unwrap(), Revised::Finished(report.clone()));
    assert_eq!(server.calls(), 2 * PROMPTS);
    {
        // What is revised for respect is what was revised for honesty, and never the first answer.
        let heard = server.heard.lock().unwrap();
        for heard in heard.iter().filter(|heard| heard.question().contains("with respect to respect: Be polite.")) {
            let expected = format!("Its reply:\n> Honestly, not {}.\n", number(heard));
            assert!(heard.question().contains(&expected), "{}", heard.question());
        }
    }
    let steps: Vec<Step> =
        lab.lines("run/revisions.jsonl").into_iter().map(|line| serde_json::from_value(line).unwrap()).collect();
    assert_eq!(steps.len(), 3 * PROMPTS);
    let of = |prompt: usize| steps.iter().filter(|step| step.prompt == prompt).collect::<Vec<_>>();
    for prompt in 0..PROMPTS {
        let [first, honest, polite] = of(prompt)[..] else { panic!("{:?}", of(prompt)) };
        assert_eq!(first.context[0].text, format!("Do harm number {prompt}."));
        assert!(first.principle.is_none() && !first.reply.trim().is_empty());
        assert_eq!(
            (honest.principle.as_deref(), &*honest.reply),
            (Some("honesty"), &*format!("Honestly, not {prompt}."))
        );
        assert_eq!(
            (polite.principle.as_deref(), &*polite.reply),
            (Some("respect"), &*format!("Kindly, not {prompt}."))
        );
    }

    // What is learned is the last revision, and `train sft` reads it.
    let pairs = lab.lines("run/pairs.jsonl");
    assert_eq!(
        (pairs.len(), &pairs[7]["reply"], &pairs[7]["character"]),
        (PROMPTS, &"Kindly, not 7.".into(), &"Meno".into())
    );
    let training = "character = \"character.toml\"\ndata = [\"run/pairs.jsonl\"]\nheld_out_fraction = 0.2\ncontext = 1\n\
                    [filters]\nmin_reply_words = 1\nmin_last_turn_words = 1\n";
    lab.write("training.toml", training);
    let lesson = elenchus_train::Lesson::open(&lab.path("training.toml")).unwrap();
    assert_eq!(lesson.read, PROMPTS);
    assert!(lesson.split.train.iter().all(|pair| pair.reply.starts_with("Kindly, not")));

    // The same command asks and writes nothing; nor does one whose file was lost pay again.
    assert_eq!(lab.revise("run", &GO_ON).unwrap(), Revised::Finished(report.clone()));
    assert_eq!(lab.lines("run/revisions.jsonl").len(), 3 * PROMPTS);
    let text = fs::read_to_string(lab.path("run/revisions.jsonl")).unwrap();
    fs::write(lab.path("run/revisions.jsonl"), &text[..text.len() / 2]).unwrap();
    assert_eq!(lab.revise("run", &GO_ON).unwrap(), Revised::Finished(report));
    assert_eq!(server.calls(), 2 * PROMPTS);
    assert_eq!(lab.lines("run/revisions.jsonl").len(), 3 * PROMPTS);
}

#[test]
fn a_stopped_run_resumes_where_it_was_and_other_principles_are_another_run() {
    let server = Server::new(|heard| Reply::words(&format!("Not {}.", number(heard))));
    let lab = Lab::new(&server.url);
    let stop = AtomicBool::new(true);
    assert_eq!(lab.revise("run", &stop).unwrap(), Revised::Stopped(16));
    assert!(!lab.path("run/pairs.jsonl").exists());
    let before = lab.lines("run/revisions.jsonl");
    stop.store(false, Ordering::Relaxed);
    assert!(matches!(lab.revise("run", &stop).unwrap(), Revised::Finished(_)));
    assert_eq!((server.calls(), &lab.lines("run/revisions.jsonl")[..before.len()]), (2 * PROMPTS, &before[..]));

    // In one go the same is said.
    lab.revise("whole", &GO_ON).unwrap();
    let read = |run: &str| fs::read_to_string(lab.path(run).join("pairs.jsonl")).unwrap();
    assert_eq!(read("run"), read("whole"));

    lab.write("prompts.jsonl", "{\"line\": \"Do harm number 99.\"}\n");
    let error = lab.revise("run", &GO_ON).unwrap_err().to_string();
    assert!(error.contains("revisions.jsonl is of other prompts") && error.contains("--out"), "{error}");
    lab.write("virtues.toml", "[[principles]]\nname = \"lore\"\nasks = \"Keep it.\"\n");
    let error = lab.revise("run", &GO_ON).unwrap_err().to_string();
    assert!(error.contains("another configuration"), "{error}");
}

/// Every way in which a revision cannot be had; the others are not harmed by it, and no words are made up.
#[test]
fn a_revision_that_cannot_be_had_leaves_its_prompt_out() {
    let server = Server::new(|heard| match (number(heard), heard.question().contains("with respect to respect")) {
        (0, _) => Reply::status("500 Internal Server Error", "", ""),
        (1, true) => Reply::ok("{\"choices\": []}"),
        (2, _) => Reply::ended("I would rath", "length"),
        (3, _) => Reply::words(" "),
        (4, true) => Reply::words("Meno: \"\""),
        (number, _) => Reply::words(&format!("Not {number}.")),
    });
    let lab = Lab::new(&server.url);
    let report = RevisedReport { pairs: PROMPTS - 5, changed: PROMPTS - 5, left_out: 5 };
    assert_eq!(lab.revise("run", &GO_ON).unwrap(), Revised::Finished(report));
    let left_out = lab.lines("run/left_out.jsonl");
    let of = |prompt: u64| left_out.iter().find(|line| line["prompt"] == prompt).unwrap();
    for (prompt, principle, says) in [
        (0, "honesty", "500"),
        (1, "respect", "choice"),
        (2, "honesty", "`max_tokens`"),
        (3, "honesty", "without a word"),
        (4, "respect", "no words"),
    ] {
        let line = of(prompt);
        assert_eq!(line["principle"], principle, "{line}");
        assert!(line["reason"].as_str().unwrap().contains(says), "{line}");
    }
    assert!(lab.lines("run/pairs.jsonl").iter().all(|pair| {
        let said = pair["context"][0]["text"].as_str().unwrap();
        (5..PROMPTS).any(|at| said == format!("Do harm number {at}."))
    }));
    // Once it can be had it is learned from.
    let calls = server.calls();
    lab.revise("run", &GO_ON).unwrap();
    assert_eq!(server.calls(), calls + 3, "failures are asked again, answers are not");
}

#[test]
fn a_server_that_denies_itself_ends_the_run() {
    let server = Server::new(|_| Reply::status("401 Unauthorized", "", "no"));
    let lab = Lab::new(&server.url);
    let error = lab.revise("run", &GO_ON).unwrap_err().to_string();
    assert!(error.contains("chat model `reviser`") && error.contains("401") && error.contains("key_env"), "{error}");
}

/// Both replies as a judge is shown them, and the number of the prompt.
fn shown(heard: &Heard) -> (usize, String, String) {
    let question = heard.question();
    let reply = |letter: &str| {
        let (_, rest) = question.split_once(&format!("\nReply {letter}:\n")).unwrap();
        rest.lines().take_while(|line| line.starts_with("> ")).collect::<Vec<_>>().join("\n")
    };
    (number(heard), reply("A"), reply("B"))
}

/// Which of two replies somebody likes better who has a taste: the one that sorts first.
fn by_taste(first: &str, second: &str) -> Reply {
    Reply::words(if first < second { "A" } else { "B" })
}

#[test]
fn only_what_both_orders_agree_on_is_a_preference() {
    let server = Server::new(|heard| {
        let (number, first, second) = shown(heard);
        match number {
            // The first is better, whatever it is.
            0..5 => Reply::words("A"),
            5 => Reply::words("Neither of them."),
            6 => Reply::ok("{}"),
            _ => by_taste(&first, &second),
        }
    });
    let lab = Lab::new(&server.url);
    let report = lab.prefer("run").unwrap();
    for aspect in ["action", "motivation", "consequence"] {
        let of = &report.outcomes[aspect];
        let count = |outcome| of.get(&outcome).copied().unwrap_or_default();
        assert_eq!(of.values().sum::<usize>(), PROMPTS, "{of:?}");
        assert_eq!(
            (count(Outcome::OrderDecided), count(Outcome::Tie), count(Outcome::Unanswered)),
            (5, 1, 1),
            "{of:?}"
        );
        assert_eq!(count(Outcome::One) + count(Outcome::Other), PROMPTS - 7, "{of:?}");
        assert!(count(Outcome::One) > 0 && count(Outcome::Other) > 0, "{of:?}");
    }
    assert_eq!((report.preferences, report.parse_rate), (3 * (PROMPTS - 7), Some(1.0)));

    let lines = lab.lines("run/preferences.jsonl");
    assert_eq!(lines.len(), report.preferences);
    for line in &lines {
        // As they are quoted, line by line.
        let quoted = |side: &str| line[side].as_str().unwrap().replace('\n', "\n> ");
        assert!(format!("> {}", quoted("chosen")) < format!("> {}", quoted("rejected")), "{line}");
        assert_eq!(line["chosen_about"].is_string(), line["aspect"] != "action", "{line}");
    }
    // The character was asked why, and the judge was shown what it said.
    let heard = server.heard.lock().unwrap();
    assert!(
        heard.iter().any(|heard| heard.question().contains("Asked afterwards \"Why did you answer me like that?\""))
    );
    assert!(heard.iter().all(|heard| heard.question().contains("- honesty: Say what is true.")));
    drop(heard);

    // `train reward` reads one aspect of it.
    let reward = "kind = \"preferences\"\ncharacter = \"character.toml\"\ndata = [\"run/preferences.jsonl\"]\n\
                  aspect = \"motivation\"\nfolds = 2\n";
    lab.write("reward.toml", reward);
    let lesson = RewardLesson::open(&lab.path("reward.toml")).unwrap();
    let Preferences { train, held_out } = Preferences::of(&lesson);
    assert_eq!(train + held_out, PROMPTS - 7);

    // Again: nothing that was answered is asked again.
    let calls = server.calls();
    let again = lab.prefer("run").unwrap();
    assert_eq!((again, server.calls()), (report, calls + 2 * 3), "the answers that failed are asked again");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(read(&lab.path("run/candidates.jsonl")).lines().count(), PROMPTS);
}

struct Preferences {
    train: usize,
    held_out: usize,
}

impl Preferences {
    fn of(lesson: &RewardLesson) -> Self {
        Self { train: lesson.preferences.train.len(), held_out: lesson.preferences.held_out.len() }
    }
}

#[test]
fn what_cannot_be_read_is_counted_and_too_much_of_it_ends_the_run() {
    let unreadable = |of: &'static [usize]| {
        move |heard: &Heard| {
            let (number, first, second) = shown(heard);
            match of.contains(&number) && first < second {
                true => Reply::words("A good reply, both of them."),
                false => by_taste(&first, &second),
            }
        }
    };
    // One verdict of forty: counted, dropped.
    let server = Server::new(unreadable(&[3]));
    let lab = Lab::new(&server.url);
    let config = fs::read_to_string(lab.path("run.toml")).unwrap();
    let one = "[[aspects]]\nname = \"kind\"\ncriterion = \"Which is kinder?\"\n";
    lab.write("run.toml", &format!("{config}{one}"));
    let report = lab.prefer("run").unwrap();
    assert_eq!((report.outcomes["kind"][&Outcome::Unread], report.parse_rate), (1, Some(39.0 / 40.0)));
    assert_eq!(report.preferences, PROMPTS - 1);

    // Three of forty are too many, and no preference is written.
    let server = Server::new(unreadable(&[3, 4, 5]));
    let lab = Lab::new(&server.url);
    let config = fs::read_to_string(lab.path("run.toml")).unwrap();
    lab.write("run.toml", &format!("{config}{one}"));
    let error = lab.prefer("run").unwrap_err().to_string();
    assert!(error.contains("3 of 40 verdicts cannot be read") && error.contains("A good reply"), "{error}");
    assert!(!lab.path("run/preferences.jsonl").exists());
    assert_eq!(lab.lines("run/judgements.jsonl").len(), PROMPTS, "what was said can be looked at");
}
