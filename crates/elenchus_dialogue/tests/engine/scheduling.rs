//! Many requests at once: who speaks when, and what a slow model or a slow game changes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use elenchus_dialogue::{Engine, EngineEvent, Priority, Request, RequestId, StopReason, load_model};
use elenchus_lm::Rng;

use crate::lab::{Lab, Talk, character, line};

/// An engine whose steps the test lets through one by one; it hears of each as it begins.
fn gated(lab: &Lab) -> (Talk, Receiver<()>, Sender<()>) {
    let (begun, begins) = bounded(1000);
    let (pass, passes) = bounded::<()>(1000);
    let talk = lab.hooked(move |inner, rows| {
        begun.send(()).ok();
        // A test that is over lets everything through.
        passes.recv().ok();
        inner.forward(rows)
    });
    (talk, begins, pass)
}

const SOON: Duration = Duration::from_secs(60);

#[test]
fn eight_voices_together_say_what_each_says_alone() {
    let lab = Lab::new();
    let requests: Vec<_> = (0..8)
        .map(|number| Request {
            voice: Some(lab.voice(number)),
            ..line(&"Is virtue one? ".repeat(1 + number as usize))
        })
        .collect();
    let mut together = lab.engine();
    let ids: Vec<_> = requests.iter().map(|request| together.send(request.clone())).collect();
    let together: Vec<_> = ids.into_iter().map(|id| together.reply(id).reply_ids).collect();
    for (request, together) in requests.into_iter().zip(&together) {
        assert_eq!(&lab.engine().say(request).reply_ids, together);
    }
    let mut distinct = together.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 8);
}

#[test]
fn eight_speak_in_one_batch_and_a_long_prompt_does_not_hold_them_up() {
    let mut lab = Lab::new();
    lab.settings.prefill_chunk = 16;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    let mut talk = lab.hooked(move |inner, rows| {
        seen.lock().unwrap().push(rows.iter().map(|row| row.tokens.len()).collect::<Vec<_>>());
        inner.forward(rows)
    });
    let character = Arc::new(character(200));
    let ask = |text: &str| Request { character: character.clone(), ..line(text) };
    let mut ids: Vec<_> = (0..7).map(|_| talk.send(ask("Well?"))).collect();
    talk.until("words", |talk| ids.iter().any(|id| !talk.heard[id].deltas.is_empty()));
    ids.push(talk.send(ask(&"x".repeat(500))));
    ids.into_iter().for_each(|id| drop(talk.reply(id)));
    let steps = steps.lock().unwrap();
    for step in steps.iter() {
        let prompts: usize = step.iter().filter(|&&tokens| tokens > 1).sum();
        assert!(prompts <= 16, "{step:?}");
    }
    let mixed = steps.iter().filter(|step| step.contains(&16) && step.len() > 1).count();
    assert!(mixed > 10, "the long prompt is read while others speak: {mixed}");
}

#[test]
fn a_cancelled_reply_ends_at_the_next_token_with_what_was_said() {
    let (mut talk, begins, pass) = gated(&Lab::new());
    let id = talk.send(line("What is virtue?"));
    for _ in 0..8 {
        begins.recv_timeout(SOON).unwrap();
        pass.send(()).unwrap();
    }
    begins.recv_timeout(SOON).unwrap();
    talk.until("seven words or so", |talk| talk.engine.stats().reply_tokens >= 6);
    talk.catch_up();
    let (steps, deltas) = (talk.engine.stats().steps, talk.heard[&id].deltas.clone());
    // In mid-step: this step ends, and nothing of it is said.
    talk.engine.cancel(id);
    pass.send(()).unwrap();
    let report = talk.reply(id);
    assert_eq!((report.stop, report.text), (StopReason::Cancelled, deltas.concat()));
    assert!(talk.engine.stats().steps <= steps + 1);
    assert_eq!(report.rng.to_string(), format!("7:{}", report.reply_ids.len()));
    drop(pass);
    assert_ne!(talk.say(line("And what is that?")).stop, StopReason::Cancelled);
}

#[test]
fn a_paused_engine_says_nothing_more_and_goes_on_where_it_was() {
    let lab = Lab::new();
    let slow = |id: &str| Request { character: Arc::new(short_of_time()), ..line(id) };
    let expected = lab.engine().say(line("What is virtue?")).reply_ids;
    let (mut talk, begins, pass) = gated(&lab);
    let id = talk.send(slow("What is virtue?"));
    for _ in 0..8 {
        begins.recv_timeout(SOON).unwrap();
        pass.send(()).unwrap();
    }
    begins.recv_timeout(SOON).unwrap();
    // In mid-step: it ends, and none follows.
    talk.engine.pause(true);
    drop(pass);
    let (waiting, cancelled) = (talk.send(line("What is courage?")), talk.send(line("What is courage?")));
    talk.engine.cancel(cancelled);
    assert_eq!(talk.reply(cancelled).stop, StopReason::Cancelled, "also in a pause");
    std::thread::sleep(Duration::from_millis(50));
    let steps = talk.engine.stats().steps;
    std::thread::sleep(Duration::from_millis(2100));
    talk.catch_up();
    assert_eq!(talk.engine.stats().steps, steps);
    assert!(talk.heard[&id].outcome.is_none() && !talk.heard[&waiting].started);
    talk.engine.pause(false);
    let report = talk.reply(id);
    assert_eq!((report.stop, report.reply_ids), (StopReason::MaxTokens, expected), "a pause takes no time");
    talk.reply(waiting);
    // What waits in a pause can be cancelled, and so can what speaks.
    talk.engine.pause(true);
    let last = talk.send(line("What is courage?"));
    talk.engine.cancel(last);
    assert_eq!(talk.reply(last).stop, StopReason::Cancelled);
}

/// Who may not speak longer than the pause of that test.
fn short_of_time() -> elenchus_dialogue::Character {
    let mut character = character(24);
    character.stop.max_seconds = 2.0;
    character
}

#[test]
fn a_request_that_waits_can_be_cancelled() {
    let mut lab = Lab::new();
    lab.settings.max_sequences = 1;
    let (mut talk, begins, pass) = gated(&lab);
    let speaking = talk.send(line("What is virtue?"));
    begins.recv_timeout(SOON).unwrap();
    let waiting = talk.send(line("What is courage?"));
    talk.engine.cancel(waiting);
    talk.engine.cancel(RequestId(999));
    drop(pass);
    let report = talk.reply(waiting);
    assert_eq!((report.stop, report.text.as_str()), (StopReason::Cancelled, ""));
    assert_eq!(report.rng, line("").rng);
    assert!(!talk.heard[&waiting].started);
    assert_ne!(talk.reply(speaking).stop, StopReason::Cancelled);
    assert_eq!(talk.engine.stats().queued, 0);
}

#[test]
fn a_stalled_model_fills_the_channel_and_loses_nothing() {
    let mut lab = Lab::new();
    (lab.settings.max_sequences, lab.settings.request_capacity) = (2, 8);
    let (mut talk, begins, pass) = gated(&lab);
    let first = talk.send(line("What is virtue?"));
    begins.recv_timeout(SOON).unwrap();
    let began = Instant::now();
    let mut accepted = vec![first];
    let mut refused = 0;
    for number in 0..100 {
        match talk.try_send(line(&format!("What is question {number}?"))) {
            Ok(id) => accepted.push(id),
            Err(request) => {
                assert!(request.turns[0].text.ends_with(&format!("{number}?")), "the request comes back");
                refused += 1;
            }
        }
        talk.engine.cancel(RequestId(1000 + number));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "nothing waits for the model");
    assert_eq!((accepted.len(), refused), (9, 92));
    drop(pass);
    accepted.into_iter().for_each(|id| drop(talk.reply(id)));
    talk.say(line("Is there room again?"));
}

#[test]
fn a_slow_listener_costs_no_text_and_few_events() {
    let mut lab = Lab::new();
    lab.settings.event_capacity = 2;
    let mut talk = lab.engine();
    let ids: Vec<_> = (0..3).map(|number| talk.send(line(&format!("What is question {number}?")))).collect();
    let deadline = Instant::now() + SOON;
    // Two events fill the channel, so nothing is heard of the replies; the first of them are spoken all the same.
    while talk.engine.stats().reply_tokens < 20 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(talk.engine.events().len(), 2);
    let replies: Vec<_> = ids.into_iter().map(|id| talk.reply(id)).collect();
    assert!(replies.iter().all(|reply| !reply.text.is_empty()));
    let tokens: usize = replies.iter().map(|reply| reply.reply_ids.len()).sum();
    assert!(talk.events < tokens, "{} events for {tokens} tokens", talk.events);
}

#[test]
fn the_player_goes_before_those_who_waited_longer() {
    let mut lab = Lab::new();
    lab.settings.max_sequences = 1;
    let (mut talk, begins, pass) = gated(&lab);
    let ambient = |text: &str| Request { priority: Priority::Ambient, ..line(text) };
    let speaking = talk.send(ambient("One?"));
    begins.recv_timeout(SOON).unwrap();
    let rest = [talk.send(ambient("Two?")), talk.send(ambient("Three?"))];
    let player = talk.send(line("Four?"));
    drop(pass);
    rest.into_iter().for_each(|id| drop(talk.reply(id)));
    assert_eq!(talk.started, [speaking, player, rest[0], rest[1]]);
}

#[test]
fn the_player_takes_a_place_from_ambient_replies_and_they_go_on_afterwards() {
    let mut lab = Lab::new();
    lab.settings.max_sequences = 2;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    let (begun, begins) = bounded(1000);
    let (pass, passes) = bounded::<()>(1000);
    let mut talk = lab.hooked(move |inner, rows| {
        begun.send(()).ok();
        passes.recv().ok();
        seen.lock().unwrap().push(rows.iter().map(|row| row.tokens.len()).collect::<Vec<_>>());
        inner.forward(rows)
    });
    let ambient = |text: &str| Request { priority: Priority::Ambient, ..line(text) };
    let lines = ["One?", "Two?", "Three?"];
    let spoken: Vec<_> = lines.iter().map(|text| talk.send(ambient(text))).collect();
    // Both places are taken, and their prompts are read.
    let step = |count: usize| {
        (0..count).for_each(|_| {
            begins.recv_timeout(SOON).unwrap();
            pass.send(()).unwrap();
        });
    };
    step(6);
    begins.recv_timeout(SOON).unwrap();
    let before = steps.lock().unwrap().len();
    let player = talk.send(line("What is virtue?"));
    drop(pass);
    let report = talk.reply(player);
    assert_eq!(report.reply_ids, lab.engine().say(line("What is virtue?")).reply_ids);
    let steps = steps.lock().unwrap()[before..].to_vec();
    assert!(steps.iter().all(|rows| rows.len() <= 2), "{steps:?}");
    // The step that was under way, then the player's prompt by itself.
    assert!(steps[0].len() == 2 && steps[1].len() == 1 && steps[1][0] > 1, "{steps:?}");
    for (id, text) in spoken.iter().zip(lines) {
        assert_eq!(talk.reply(*id).reply_ids, lab.engine().say(ambient(text)).reply_ids);
    }
    assert_eq!(talk.started, [spoken[0], spoken[1], player, spoken[2]]);
}

#[test]
fn requests_beyond_the_memory_budget_wait_for_their_turn() {
    let mut lab = Lab::new();
    // A prompt of about 100 tokens and up to 48 more, at 512 bytes a token: two fit, three do not.
    lab.settings.kv_budget = 320 * 512;
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let mut talk = lab.hooked(move |inner, rows| {
        assert_eq!(inner.cache_bytes_per_token(), 512);
        seen.fetch_max(rows.len(), Ordering::SeqCst);
        inner.forward(rows)
    });
    let ids: Vec<_> = (0..6).map(|number| talk.send(line(&format!("What is question {number}?")))).collect();
    ids.into_iter().for_each(|id| drop(talk.reply(id)));
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[test]
fn ambient_replies_give_their_memory_to_the_player_and_go_on_afterwards() {
    let mut lab = Lab::new();
    // Two replies fit, three do not.
    lab.settings.kv_budget = 320 * 512;
    lab.settings.prefill_chunk = 16;
    let ambient =
        |number: u64| Request { priority: Priority::Ambient, rng: Rng::from_seed(number), ..line("Who are you?") };
    let (mut talk, begins, pass) = gated(&lab);
    let spoken: Vec<_> = (0..3).map(|number| talk.send(ambient(number))).collect();
    // Both prompts are read, and some words are said.
    for _ in 0..20 {
        begins.recv_timeout(SOON).unwrap();
        pass.send(()).unwrap();
    }
    begins.recv_timeout(SOON).unwrap();
    let players = [talk.send(line("What is virtue?")), talk.send(line("What is courage?"))];
    drop(pass);
    let replies = players.map(|id| talk.reply(id));
    assert!(talk.heard[&spoken[1]].outcome.is_none(), "it gave its memory to the player, and could not end before");
    for (reply, text) in replies.iter().zip(["What is virtue?", "What is courage?"]) {
        assert_eq!(reply.reply_ids, lab.engine().say(line(text)).reply_ids);
    }
    for (number, id) in spoken.iter().enumerate() {
        assert_eq!(talk.reply(*id).reply_ids, lab.engine().say(ambient(number as u64)).reply_ids, "reply {number}");
    }
    assert_eq!(talk.started, [spoken[0], spoken[1], players[0], players[1], spoken[2]]);
}

#[test]
fn a_step_of_ambient_talk_is_given_up_for_the_players_line_and_done_again() {
    let lab = Lab::new();
    let (waits, given_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (sign, counter, (waiting, is_waiting)) = (waits.clone(), given_up.clone(), bounded(100));
    let mut talk = lab.hooked_unless(move |inner, rows, is_unwanted| {
        if sign.swap(false, Ordering::SeqCst) {
            waiting.send(()).ok();
            let since = Instant::now();
            while !is_unwanted() {
                assert!(since.elapsed() < SOON, "the step is not given up");
                std::thread::yield_now();
            }
            counter.fetch_add(1, Ordering::SeqCst);
            return Ok(None);
        }
        inner.forward(rows).map(Some)
    });
    let ambient =
        |number: u64| Request { priority: Priority::Ambient, rng: Rng::from_seed(number), ..line("Who are you?") };
    let spoken: Vec<_> = (0..3).map(|number| talk.send(ambient(number))).collect();
    talk.until("words", |talk| spoken.iter().all(|id| !talk.heard[id].deltas.is_empty()));
    waits.store(true, Ordering::SeqCst);
    is_waiting.recv_timeout(SOON).unwrap();
    let players = talk.say(line("What is virtue?"));
    assert_eq!(players.reply_ids, lab.engine().say(line("What is virtue?")).reply_ids);
    assert_eq!(given_up.load(Ordering::SeqCst), 1, "an ambient step was given up");
    for (number, id) in spoken.iter().enumerate() {
        assert_eq!(talk.reply(*id).reply_ids, lab.engine().say(ambient(number as u64)).reply_ids, "reply {number}");
    }
}

#[test]
fn dropping_the_engine_joins_its_thread_in_mid_reply_and_does_not_wait_for_a_loader() {
    let lab = Lab::new();
    let running = Arc::new(AtomicBool::new(false));
    let inside = running.clone();
    let mut talk = lab.hooked(move |inner, rows| {
        inside.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        let logits = inner.forward(rows);
        inside.store(false, Ordering::SeqCst);
        logits
    });
    let id = talk.send(Request { character: Arc::new(character(1000)), ..line("What is virtue?") });
    talk.until("words", |talk| !talk.heard[&id].deltas.is_empty());
    assert!(talk.engine.is_running());
    drop(talk);
    assert!(!running.load(Ordering::SeqCst), "no step outlives the handle");

    // A loader that does not return until the test lets it.
    let load = load_model(&lab.settings);
    let (release, released) = bounded::<()>(0);
    let engine = Engine::start(
        lab.settings.clone(),
        Arc::new(move |progress| {
            released.recv().ok();
            load(progress)
        }),
    );
    while !matches!(engine.events().recv_timeout(SOON).unwrap(), EngineEvent::Loading(_)) {}
    drop(engine);
    drop(release);
}

#[test]
fn a_request_that_waits_for_the_model_can_be_cancelled_while_it_loads() {
    let lab = Lab::new();
    let load = load_model(&lab.settings);
    let (release, released) = bounded::<()>(0);
    let mut talk = lab.start(Arc::new(move |progress| {
        released.recv().ok();
        load(progress)
    }));
    let (early, other) = (talk.send(line("What is virtue?")), talk.send(line("What is courage?")));
    talk.engine.cancel(early);
    assert_eq!(talk.reply(early).stop, StopReason::Cancelled);
    assert!(talk.ready.is_none());
    drop(release);
    assert_ne!(talk.reply(other).stop, StopReason::Cancelled);
}

#[test]
fn two_engines_live_side_by_side() {
    let lab = Lab::new();
    let (mut first, mut second) = (lab.engine(), lab.engine());
    let (one, two) = (first.send(line("What is virtue?")), second.send(line("What is virtue?")));
    assert_eq!(first.reply(one).reply_ids, second.reply(two).reply_ids);
    drop(first);
    second.say(line("And what is that?"));
}

#[test]
#[cfg(target_os = "linux")]
fn the_engine_is_polite_to_the_frame() {
    let mut talk = Lab::new().engine();
    talk.until_ready();
    let mut nice = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        // Other tests' threads come and go.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (name, fields) = (stat.split_once('(').unwrap().1).rsplit_once(") ").unwrap();
        if name.starts_with("elenchus-") {
            nice.push((name.to_owned(), fields.split(' ').nth(16).unwrap().to_owned()));
        }
    }
    for thread in ["elenchus-engine", "elenchus-0"] {
        assert!(nice.contains(&(thread.to_owned(), "19".to_owned())), "{nice:?}");
    }
}
