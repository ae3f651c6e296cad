//! Reports of runs as they are found: whole, young, killed, and gone wrong.

use std::fs;

use super::*;

const CONFIG: &str = r#"character = "../socrates/character.toml"
data = ["texts/<plato>.txt"]
held_out_works = ["Euthyphro", "Lesser Hippias"]
"#;

struct Run {
    folder: tempfile::TempDir,
    run: RunFolder,
}

impl Run {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path(), CONFIG).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, run }
    }

    /// Both reports, which keep what they promise whatever the run.
    fn reports(&self) -> (String, String) {
        sft_report(&self.run).unwrap();
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap();
        let (html, markdown) = (read("REPORT.html"), read("REPORT.md"));
        assert!(markdown.lines().count() < 80, "{markdown}");
        for text in ["NaN", "inf\"", "inf,", "<script", "http:", "https:", " src=", "@import"] {
            assert!(!html.contains(text), "{text} in {html}");
        }
        for text in ["NaN", "| inf"] {
            assert!(!markdown.contains(text), "{text} in {markdown}");
        }
        assert_eq!(html.matches("<svg").count(), 6);
        for tag in ["div", "figure", "svg", "table", "tr", "td", "dl", "details", "span", "p", "ul", "header"] {
            let (opened, closed) = (
                html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count(),
                html.matches(&format!("</{tag}>")).count(),
            );
            assert_eq!(opened, closed, "{tag}");
        }
        (html, markdown)
    }
}

fn step(step: u64, loss: &str, more: &str) -> String {
    format!(
        "{{\"step\":{step},\"loss\":{loss},\"grad_norm\":1.5,\"learning_rate\":0.0003,\"tokens\":1000,\"targets\":400,\"seconds\":5.0{more}}}\n"
    )
}

#[test]
fn a_whole_run_is_told() {
    let mut metrics: String = (1..=20).map(|at| step(at, "3.25", ",\"resident_bytes\":1500000000")).collect();
    metrics += &step(21, "3.0", ",\"held_out_perplexity\":25.5");
    let samples = "{\"step\":0,\"line\":\"Who are <you>?\",\"reply\":\"A | model & more\"}\n\
                   {\"step\":10,\"line\":\"Who are <you>?\",\"reply\":\"in between\"}\n\
                   {\"step\":21,\"line\":\"Who are <you>?\",\"reply\":\"<script>Socrates</script>\"}\n";
    let result = r#"{"steps":21,"total_steps":40,"base_perplexity":34.0,"best_step":21,"perplexity":25.5,"tokens":9000,"more":1}"#;
    let base = r#"{"perplexity":33.25,"tokens":900}"#;
    let files =
        [("metrics.jsonl", &*metrics), ("samples.jsonl", samples), ("base.json", base), ("result.json", result)];
    let (html, markdown) = Run::new(&files).reports();
    for text in [
        "<h1>Socrates</h1>",
        "after step 21 of 40",
        "34.00 → 25.50",
        // The plot's points are of some replies, and so is its base.
        "base over the same replies 33.25",
        "25.0% lower",
        ">200<",
        "1.50 GB",
        "21,000",
        "Euthyphro",
    ] {
        assert!(html.contains(text), "{text} in {html}");
    }
    for text in
        ["After step 21", "&lt;script&gt;Socrates", "Who are &lt;you&gt;?", "texts/&lt;plato&gt;.txt", "in between"]
    {
        assert!(html.contains(text), "{text} in {html}");
    }
    for text in [
        "# Socrates",
        "| Change | -25.0% |",
        "A \\| model &amp; more",
        "| 21 | 3.238 | 25.50 |",
        "| Held-out tokens | 9,000 |",
    ] {
        assert!(markdown.contains(text), "{text} in {markdown}");
    }
    assert!(!html.contains("has not ended") && !markdown.contains("in between"));
}

#[test]
fn a_young_run_says_what_it_does_not_know() {
    let check = |metrics: &str, says: &[&str]| {
        let (html, markdown) = Run::new(&[("metrics.jsonl", metrics)]).reports();
        for text in says {
            assert!(html.contains(text) && markdown.contains(text), "{text} in {html}\n{markdown}");
        }
    };
    check("", &["No step was taken yet", "not measured yet"]);
    check(&step(1, "3.5", ""), &["after step 1", "not measured yet"]);
    check(&step(1, "3.5", ",\"held_out_perplexity\":30.0"), &["30.00"]);
    // A kill cut the last line short.
    check(&(step(1, "3.5", "") + "{\"step\":2,\"lo"), &["after step 1", "One line of metrics.jsonl could not be read"]);
}

#[test]
fn while_a_run_goes_on_it_is_held_against_the_base_over_the_same_replies() {
    let metrics = step(1, "3.5", ",\"held_out_perplexity\":30.0");
    let check = |base: &str, says: [&str; 2]| {
        let (html, markdown) = Run::new(&[("metrics.jsonl", &metrics), ("base.json", base)]).reports();
        assert!(html.contains(says[0]) && markdown.contains(says[1]), "{says:?} in {html}\n{markdown}");
    };
    check(r#"{"perplexity":40.0,"tokens":9}"#, ["40.00 → 30.00", "| Change | -25.0% |"]);
    check(
        r#"{"perplexity":null,"tokens":0}"#,
        ["the base was not measured yet", "| Held-out perplexity, so far | 30.00 |"],
    );
}

#[test]
fn what_left_the_numbers_is_said() {
    let metrics = step(1, "3.5", "") + &step(2, "null", "") + &step(3, "1e308", ",\"held_out_perplexity\":null");
    let (html, markdown) = Run::new(&[("metrics.jsonl", &metrics)]).reports();
    assert!(html.contains("2 of 3 not finite or too large to draw"), "{html}");
    assert!(html.contains("not finite at step 2") && markdown.contains("not finite at step 2"));
}

#[test]
fn long_runs_stay_light_and_short() {
    let metrics: String = (1..=10_000)
        .map(|at| {
            step(
                at,
                &format!("{}", 3.0 + (at as f64).sin()),
                if at % 50 == 0 { ",\"held_out_perplexity\":25.0" } else { "" },
            )
        })
        .collect();
    let line = |step: u64, line: u64| format!("{{\"step\":{step},\"line\":\"line {line}\",\"reply\":\"reply\"}}\n");
    let samples: String = [0, 10_000].iter().flat_map(|&step| (0..40).map(move |at| line(step, at))).collect();
    let (html, markdown) = Run::new(&[("metrics.jsonl", &metrics), ("samples.jsonl", &samples)]).reports();
    assert!(html.len() < 200_000, "{}", html.len());
    assert!(html.split(" points=\"").skip(1).all(|line| line.split('"').next().unwrap().split(' ').count() <= 1000));
    assert!(markdown.contains("| 10,000 |") && markdown.contains("24 more stand in REPORT.html"), "{markdown}");
}

#[test]
fn steps_taken_again_count_once() {
    let metrics = step(1, "3.5", "") + &step(2, "3.4", "") + &step(2, "3.3", "");
    let run = Run::new(&[("metrics.jsonl", &metrics)]);
    let facts = facts::read(&run.run).unwrap();
    assert_eq!(
        facts.steps.iter().map(|step| (step.step, step.loss)).collect::<Vec<_>>(),
        [(1, Some(3.5)), (2, Some(3.3))]
    );
    assert_eq!((facts.tokens(), facts.median_speed()), (2000, Some(200.0)));
}

#[test]
fn a_result_that_is_none_is_refused_by_name() {
    let error = sft_report(&Run::new(&[("result.json", "{")]).run).unwrap_err().to_string();
    assert!(error.contains("result.json") && error.contains("hint:"), "{error}");
}
