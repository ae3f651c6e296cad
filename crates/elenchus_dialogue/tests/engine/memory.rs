//! What is remembered between replies, and what must not be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use elenchus_dialogue::{Character, Request, Voice, WarmUp};
use elenchus_lm::Logits;

use crate::lab::{Lab, character, line, turn};

/// The second line of a conversation whose first reply was `said`.
fn second_line(first: &Request, said: &str) -> Request {
    let mut turns = first.turns.clone();
    turns.extend([turn("Socrates", said), turn("player", "And what is that?")]);
    Request { turns, ..first.clone() }
}

#[test]
fn a_second_turn_is_remembered_and_says_what_a_cold_engine_says() {
    let lab = Lab::new();
    for voice in [None, Some(lab.voice(1))] {
        let mut warm = lab.engine();
        let first = Request { voice, ..line("What is virtue?") };
        let said = warm.say(first.clone());
        let second = second_line(&first, &said.text);
        let warm = warm.say(second.clone());
        assert!(warm.cached_tokens >= said.prompt_tokens, "{warm:?}");
        let cold = lab.engine().say(second);
        assert_eq!(cold.cached_tokens, 0);
        assert_eq!(warm.reply_ids, cold.reply_ids);
        assert_eq!(warm.adapter, cold.adapter);
    }
}

#[test]
fn the_same_line_again_reads_one_token_at_least() {
    let mut talk = Lab::new().engine();
    let first = talk.say(line("What is virtue?"));
    let again = talk.say(line("What is virtue?"));
    assert_eq!(again.cached_tokens, again.prompt_tokens - 1);
    assert_eq!(again.reply_ids, first.reply_ids);
}

#[test]
fn a_voice_never_hears_what_another_remembers() {
    let lab = Lab::new();
    let (first, second) = (lab.adapter(1), lab.adapter(2));
    let mut softer = first.clone();
    softer.scale = 0.5;
    let mut talk = lab.engine();
    let mut replies = Vec::new();
    for adapter in [None, Some(first), Some(second), Some(softer)] {
        let request = Request { voice: adapter.map(Voice::from), ..line("What is virtue?") };
        let warm = talk.say(request.clone());
        assert_eq!(warm.cached_tokens, 0, "nothing was read in this voice yet");
        assert_eq!(warm.reply_ids, lab.engine().say(request).reply_ids);
        replies.push(warm.reply_ids);
    }
    replies.sort();
    replies.dedup();
    assert_eq!(replies.len(), 4, "the voices differ");
}

#[test]
fn a_small_budget_forgets_and_still_answers_rightly() {
    let mut lab = Lab::new();
    let lines: Vec<_> = (0..6).map(|number| line(&format!("What is question {number}?"))).collect();
    let expected: Vec<_> = {
        let mut talk = lab.engine();
        lines.iter().map(|line| talk.say(line.clone()).reply_ids).collect()
    };
    for budget in [0, 200 << 10] {
        lab.settings.kv_budget = budget;
        let mut talk = lab.engine();
        for round in 0..2 {
            let ids: Vec<_> = lines.iter().map(|line| talk.send(line.clone())).collect();
            for (id, expected) in ids.into_iter().zip(&expected) {
                assert_eq!(&talk.reply(id).reply_ids, expected, "budget {budget}, round {round}");
            }
            // The report comes before the last bytes are counted.
            talk.until("eviction", |talk| talk.engine.stats().kv_bytes <= budget);
        }
    }
}

#[test]
fn the_least_recently_used_memory_goes_first() {
    let mut lab = Lab::new();
    let voices = [lab.adapter(1), lab.adapter(2), lab.adapter(3)];
    // About 100 tokens of 512 bytes each: two memories fit, a third does not.
    lab.settings.kv_budget = 120 << 10;
    let mut talk = lab.engine();
    let mut remembered = |voice: usize| {
        let adapter = Some(voices[voice].clone());
        talk.say(Request { voice: adapter.map(Voice::from), max_tokens: Some(1), ..line("What is virtue?") })
            .cached_tokens
            > 0
    };
    let heard = [0, 1, 0, 2, 0, 2, 1].map(&mut remembered);
    assert_eq!(heard, [false, false, true, false, true, true, false]);
}

#[test]
fn a_persona_read_ahead_is_not_read_again() {
    let lab = Lab::new();
    for voice in [None, Some(lab.voice(3))] {
        let request = Request { voice: voice.clone(), facts: vec!["It rains.".to_owned()], ..line("Well?") };
        let mut talk = lab.engine();
        let (character, facts) = (request.character.clone(), request.facts.clone());
        talk.engine.warm_up(WarmUp { character, voice, facts });
        talk.until("the warm-up", |talk| {
            let stats = talk.engine.stats();
            stats.kv_bytes > 0 && stats.steps >= 2
        });
        let warm = talk.say(request.clone());
        let cold = lab.engine().say(request);
        assert!(warm.cached_tokens >= 64, "{warm:?}");
        assert!(warm.prompt_tokens - warm.cached_tokens <= "Well?<|im_end|>assistant".len(), "{warm:?}");
        assert_eq!(warm.reply_ids, cold.reply_ids);
    }
}

#[test]
fn a_warm_up_makes_way_for_a_reply_and_is_finished_after_it() {
    let mut lab = Lab::new();
    lab.settings.prefill_chunk = 4;
    let (pass, passes) = crossbeam_channel::bounded(5);
    let read_ahead = Arc::new(AtomicUsize::new(0));
    let counted = read_ahead.clone();
    let mut talk = lab.hooked(move |inner, rows| {
        passes.recv().ok();
        let tokens = rows.iter().filter(|row| row.logits == Logits::None).map(|row| row.tokens.len());
        counted.fetch_add(tokens.sum(), Ordering::SeqCst);
        inner.forward(rows)
    });
    let persona = "You are patient. ".repeat(40);
    let character = Arc::new(Character { persona: persona.clone(), ..character(8) });
    talk.engine.warm_up(WarmUp { character: character.clone(), voice: None, facts: Vec::new() });
    (0..5).for_each(|_| pass.send(()).unwrap());
    talk.until("its beginning", |_| read_ahead.load(Ordering::SeqCst) >= 20);
    let id = talk.send(line("What is virtue?"));
    drop(pass);
    let reply = talk.reply(id);
    let both = persona.len() + reply.prompt_tokens - 4;
    talk.until("its end", |_| read_ahead.load(Ordering::SeqCst) >= both);
    let report = talk.say(Request { character, ..line("Well?") });
    assert!(report.cached_tokens >= persona.len(), "{report:?}");
}
