//! From a number to pairs: `data gutenberg`, `data inspect`.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use common::{Stage, failed, succeeded};
use serde_json::Value;

const WORK: &str = "Title: The Well\n\n*** START OF THE PROJECT GUTENBERG EBOOK THE WELL ***\n\n\
    BEN: Is the well deep here, Anna?\n\nANNA: It is deeper than you are tall.\n\n\
    BEN: And who has measured it?\n\nANNA: My father did, with a rope. Why do you ask?\n\n\
    *** END OF THE PROJECT GUTENBERG EBOOK THE WELL ***\nLICENCE: something else\n";

/// A mirror that has work 7 and answers so many requests.
fn mirror(requests: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for _ in 0..requests {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            let (status, body) =
                if head.starts_with(b"GET /cache/epub/7/pg7.txt ") { ("200 OK", WORK) } else { ("404 Not Found", "") };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn a_work_is_downloaded_once_and_read() {
    let stage = Stage::new();
    // No further request would be answered, and a refused connection would fail.
    let url = mirror(1);
    for _ in 0..2 {
        succeeded(stage.run(&format!("data gutenberg 7 --out texts --mirror {url}"), &[]));
    }
    assert_eq!(fs::read_to_string(stage.path("texts/pg7.txt")).unwrap(), WORK);
    let shown = succeeded(stage.run("data inspect texts/pg7.txt --character anna --json", &[]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["all"]["works"]["The Well"]["pairs"], &shown["turns"]), (&2.into(), &4.into()), "{shown}");
}

#[test]
fn a_mirror_may_be_named_by_the_environment_and_a_flag_goes_before_it() {
    let stage = Stage::new();
    let run = |arguments: &str, mirror: &str| {
        stage.command(arguments).env("ELENCHUS_GUTENBERG_MIRROR", mirror).output().unwrap()
    };
    succeeded(run("data gutenberg 7 --out one", &mirror(1)));
    assert!(stage.path("one/pg7.txt").is_file());
    let url = mirror(2);
    let error = failed(run(&format!("data gutenberg 8 --out two --mirror {url}"), "not a url"));
    let asked = format!("work 8 of Project Gutenberg: 404, not found at {url}/cache/epub/8/pg8.txt and {url}/files/8/");
    assert!(error.contains(&asked) && error.contains("hint:"), "{error}");
    assert_eq!(fs::read_dir(stage.path("two")).unwrap().count(), 0);
    assert!(failed(run("data gutenberg 7 --out one --force", "not a url")).contains("mirror `not a url`"));
}

#[test]
fn pairs_are_shown_as_training_would_filter_them() {
    let stage = Stage::new();
    fs::write(stage.path("well.txt"), WORK).unwrap();
    let training = "character = \"c.toml\"\ndata = [\"well.txt\"]\nheld_out_works = [\"x\"]\ncontext = 1\n";
    fs::write(stage.path("training.toml"), format!("{training}[filters]\nmax_reply_words = 7\n")).unwrap();
    let check = |arguments: &str, context: usize, reply: &str, hash: &str| {
        let arguments = format!("data inspect well.txt --character Anna --json --pairs 9 {arguments}");
        let shown: Value = serde_json::from_str(&succeeded(stage.run(&arguments, &[]))).unwrap();
        let pair = shown["pairs"].as_array().unwrap().last().unwrap();
        assert_eq!(pair["context"].as_array().unwrap().len(), context, "{shown}");
        assert_eq!((&pair["reply"], &pair["reply_sha256"]), (&reply.into(), &hash.into()), "{shown}");
    };
    // python3 -c 'import hashlib; print(hashlib.sha256(b"My father did, with a rope.").hexdigest()[:12])'
    let (whole, cut) = ("My father did, with a rope. Why do you ask?", "My father did, with a rope.");
    check("", 3, whole, "a21b3cab439b");
    check("--training training.toml", 1, cut, "6f12d9fd0b4a");
    check("--training training.toml --context 2", 1, cut, "6f12d9fd0b4a");
    // In the texts her name is Anna, in the game Eva.
    fs::write(stage.path("eva.toml"), format!("speakers = [\"Anna\"]\n{training}")).unwrap();
    let eva = "data inspect well.txt --character Eva --training";
    assert!(succeeded(stage.run(&format!("{eva} eva.toml"), &[])).contains("Eva, with up to 1 turns"));
    assert!(failed(stage.run(&format!("{eva} training.toml"), &[])).contains("Eva replies nowhere"));
    check("--training training.toml --context 3", 3, cut, "6f12d9fd0b4a");
}

#[test]
fn a_broken_line_stops_or_is_left_out_as_requested() {
    let stage = Stage::new();
    let good = r#"{"asker": "Ben", "question": "Is the well deep here?", "reply": "It is deeper than you are tall."}"#;
    fs::write(stage.path("well.jsonl"), format!("{good}\n{{\"asker\": \"Ben\"}}\n{good}\n")).unwrap();
    let error = failed(stage.run("data inspect well.jsonl --character Anna", &[]));
    assert!(error.contains("well.jsonl:2: "), "{error}");
    let output = stage.run("data inspect well.jsonl --character Anna --skip-broken", &[]);
    let listed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(listed.contains("left out: well.jsonl:2: "), "{listed}");
    let shown = succeeded(output);
    assert!(
        shown.contains("2 written pairs, 0 more voted down, 1 broken lines") && shown.contains("1 duplicate"),
        "{shown}"
    );
}
