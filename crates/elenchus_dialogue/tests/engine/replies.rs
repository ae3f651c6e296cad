//! One reply: its text, its end, its prompt.

use std::sync::Arc;

use elenchus_dialogue::{Character, Error, ReplyFilter, Request, StopReason, StopRules, load_model, speak_many};
use elenchus_lm::{Rng, SamplerSettings, testing::IM_END};

use crate::lab::{Lab, character, line, turn};

#[test]
fn a_reply_streams_and_says_what_it_cost() {
    let mut talk = Lab::new().engine();
    let id = talk.send(line("What is virtue?"));
    let report = talk.reply(id);
    assert!(talk.heard[&id].deltas.len() > 3, "{:?}", talk.heard);
    assert!(!report.reply_ids.is_empty() && report.reply_ids.len() <= 48);
    assert!(report.prompt_tokens > 30 && report.cached_tokens == 0);
    assert!(!report.first_token.is_zero() && report.tokens_per_second > 0.0);
    assert_eq!(report.rng.to_string(), format!("7:{}", report.reply_ids.len()), "one number is drawn for each token");
    let stats = talk.engine.stats();
    assert_eq!(stats.reply_tokens, report.reply_ids.len() as u64);
    assert_eq!(stats.prompt_tokens, report.prompt_tokens as u64);
    assert!(stats.steps >= stats.reply_tokens && stats.tokens_per_second > 0.0);
    let info = talk.ready.clone().unwrap();
    assert_eq!((info.name.as_str(), info.context, info.sha256.len()), ("tiny.gguf", 2048, 64));
}

/// A trainer hears its character without an engine.
#[test]
fn the_plainest_reply_is_the_engines() {
    let lab = Lab::new();
    let model = load_model(&lab.settings)(&mut |_| {}).unwrap();
    let mut talk = lab.engine();
    let stops = [
        StopRules { max_tokens: 1, ..StopRules::default() },
        StopRules { max_tokens: 60, ..StopRules::default() },
        StopRules { max_tokens: 60, strings: vec!["e".to_owned()], ..StopRules::default() },
        StopRules { max_tokens: 200, max_sentences: 1, ..StopRules::default() },
    ];
    for (seed, stop) in stops.into_iter().enumerate() {
        let character = Arc::new(Character { stop, ..character(0) });
        for adapter in [None, Some(lab.adapter(3))] {
            let rng = Rng::from_seed(seed as u64);
            let turns = vec![turn("player", "What is virtue?")];
            let request = Request {
                character: character.clone(),
                voice: adapter.map(Into::into),
                turns: turns.into(),
                rng,
                ..line("")
            };
            let plain = speak_many(&model, std::slice::from_ref(&request)).unwrap().remove(0);
            let report = talk.say(request);
            assert_eq!((plain.text, plain.stop), (report.text, report.stop));
            assert!(report.reply_ids.starts_with(&plain.tokens), "{:?}", report.stop);
        }
    }
}

const NO_END: &str = "One. Two. Three four five six seven eight nine ten eleven twelve";

#[test]
fn each_rule_ends_a_reply() {
    fn check(stop: StopRules, script: &'static [u8], text: &str, reason: StopReason, tokens: usize) {
        let mut talk = Lab::new().scripted(script);
        let character = Arc::new(Character { stop, ..character(40) });
        let report = talk.say(Request { character, turns: vec![turn("Plato", "Well?")].into(), ..line("") });
        assert_eq!((report.text.as_str(), report.stop, report.reply_ids.len()), (text, reason, tokens));
        assert_eq!(report.reply_ids.last() == Some(&IM_END), reason == StopReason::EndToken);
    }
    let rules = || StopRules { max_tokens: 40, max_sentences: 0, ..StopRules::default() };
    let strings = |string: &str| StopRules { strings: vec![string.to_owned()], ..rules() };
    check(rules(), b"Know thyself. \0", "Know thyself.", StopReason::EndToken, 15);
    check(rules(), b"\0", "", StopReason::EndToken, 1);
    check(strings("self"), b"Know thyself.\0", "Know thy", StopReason::StopString, 12);
    check(rules(), b"I know.\n\nPLATO: No\0", "I know.", StopReason::OtherSpeaker, 15);
    check(rules(), b"I know.\nPlato: No\0", "I know.", StopReason::OtherSpeaker, 14);
    check(rules(), b"Socrates: I know.\0", "I know.", StopReason::EndToken, 18);
    check(StopRules { max_sentences: 2, ..rules() }, b"One. Two? Three.\0", "One. Two?", StopReason::MaxSentences, 10);
    check(StopRules { max_tokens: 5, ..rules() }, b"Know thyself. And\0", "Know thyself.", StopReason::MaxTokens, 13);
    check(StopRules { max_seconds: 1e-9, ..rules() }, b"Know thyself.\0", "Kn", StopReason::MaxSeconds, 2);
    check(StopRules { max_tokens: 15, ..rules() }, NO_END.as_bytes(), &NO_END[..39], StopReason::MaxTokens, 39);
    check(StopRules { max_tokens: 3, ..rules() }, NO_END.as_bytes(), "One.", StopReason::MaxTokens, 4);
    let character = Arc::new(Character { stop: StopRules { max_tokens: 15, ..rules() }, ..character(40) });
    let filter = Some(Arc::new(ReplyFilter::none()));
    let judged = Lab::new().scripted(NO_END.as_bytes()).say(Request { character, filter, ..line("Well?") });
    assert_eq!((judged.text.as_str(), judged.reply_ids.len()), ("One. Two.", 39), "nobody has seen the rest");
    // The last token is the first half of a letter, which is not shown.
    let half = "aaaaaaaaaaaaaaaaaaaaaaaaaφ";
    check(StopRules { max_tokens: 2, ..rules() }, half.as_bytes(), &half[..25], StopReason::MaxTokens, 26);
}

#[test]
fn a_request_may_ask_for_less_but_not_for_more() {
    let mut talk = Lab::new().scripted(&[b'a'; 200]);
    // And 24 more for a sentence to end, which this one does not.
    for (asked, expected) in [(Some(3), 27), (Some(0), 25), (Some(999), 48), (None, 48)] {
        let report = talk.say(Request { max_tokens: asked, ..line("Well?") });
        assert_eq!((report.reply_ids.len(), report.stop), (expected, StopReason::MaxTokens));
    }
}

#[test]
fn a_full_context_ends_a_reply() {
    let mut lab = Lab::new();
    lab.settings.context = 160;
    let mut talk = lab.scripted(&[b'a'; 200]);
    let report = talk.say(Request { character: Arc::new(character(150)), ..line("Well?") });
    assert_eq!((report.stop, report.prompt_tokens + report.reply_ids.len()), (StopReason::ContextFull, 160));
}

#[test]
fn there_must_be_a_line_to_answer_and_it_must_fit() {
    let mut talk = Lab::new().engine();
    for turns in [vec![], vec![turn("player", " \n")], vec![turn("player", "Hm?"), turn("socrates", "Hm.")]] {
        let id = talk.send(Request { turns: turns.into(), ..line("") });
        assert!(matches!(talk.outcome(id), Err(Error::EmptyLine)));
    }
    let id = talk.send(line(&"x".repeat(100_000)));
    let error = talk.outcome(id).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { tokens: 100_001.., context: 2048 }), "{error}");
    assert!(error.to_string().contains("context holds 2048 (hint: "), "{error}");
    assert!(!talk.say(line("What is virtue?")).reply_ids.is_empty(), "the engine goes on");
}

#[test]
fn sampler_settings_that_make_no_sense_fail_their_reply_alone() {
    let mut talk = Lab::new().engine();
    let sampler = SamplerSettings { temperature: f32::NAN, ..SamplerSettings::default() };
    let character = Arc::new(Character { sampler, ..character(8) });
    let failing = talk.send(Request { character, ..line("Well?") });
    let speaking = talk.send(line("Well?"));
    assert!(matches!(talk.outcome(failing), Err(Error::Model(reason)) if reason.contains("temperature")));
    talk.reply(speaking);
}

#[test]
fn a_long_conversation_is_cut_alike_everywhere_and_stays_remembered() {
    let mut lab = Lab::new();
    lab.settings.context = 512;
    let character = Arc::new(character(24));
    let mut talk = lab.engine();
    let (mut turns, mut rng) = (Vec::new(), line("").rng);
    let (mut fresh, mut longest) = (0, 0);
    for number in 0..40 {
        turns.push(turn("player", &format!("What, in your opinion, is question {number}?")));
        let request =
            Request { character: character.clone(), turns: turns.clone().into(), rng: rng.clone(), ..line("") };
        let report = talk.say(request.clone());
        assert!(report.prompt_tokens + 24 <= 512);
        longest = longest.max(report.prompt_tokens);
        // A question, its answer and their markup are what is new.
        fresh += usize::from(report.prompt_tokens - report.cached_tokens > 150);
        if number % 13 == 12 {
            let twin = lab.engine().say(request);
            assert_eq!((twin.prompt_tokens, twin.reply_ids), (report.prompt_tokens, report.reply_ids));
            assert_eq!(twin.cached_tokens, 0);
        }
        rng = report.rng;
        turns.push(turn("Socrates", &report.text));
    }
    assert!(longest > 400, "the context is used: {longest}");
    assert!((3..=20).contains(&fresh), "cut at {fresh} of 40 turns");
}
