//! What goes wrong stays with whom it concerns.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use elenchus_dialogue::{EngineSettings, Error, Request, load_model};
use elenchus_lm::{Executor, Row, testing::TinyModel};

use crate::lab::{Hooked, IsUnwanted, Lab, Talk, line};

#[test]
fn requests_wait_for_the_model_and_fail_without_one_until_it_is_there() {
    let lab = Lab::new();
    let (load, works) = (load_model(&lab.settings), Arc::new(AtomicBool::new(false)));
    let switch = works.clone();
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = loads.clone();
    let loader = Arc::new(move |progress: &mut dyn FnMut(f32)| {
        counted.fetch_add(1, Ordering::SeqCst);
        if switch.load(Ordering::SeqCst) { load(progress) } else { Err(Error::Model("the disk is on fire".into())) }
    });
    let mut talk = lab.start(loader);
    let early = talk.send(line("What is virtue?"));
    let no_model = |outcome| matches!(outcome, Err(Error::NoModel(reason)) if reason.contains("on fire"));
    assert!(no_model(talk.outcome(early)));
    let later = talk.send(line("What is virtue?"));
    assert!(no_model(talk.outcome(later)));
    assert_eq!(talk.load_failures.len(), 1);

    works.store(true, Ordering::SeqCst);
    talk.engine.reload();
    talk.say(line("What is virtue?"));
    assert!(talk.ready.is_some());
    talk.engine.reload();
    talk.say(line("And what is that?"));
    assert_eq!(loads.load(Ordering::SeqCst), 2, "a model that is there is not loaded again");
}

#[test]
fn a_missing_or_damaged_model_is_told_with_a_hint() {
    let lab = Lab::new();
    let path = lab.settings.base.clone().unwrap();
    let whole = std::fs::read(&path).unwrap();
    for (bytes, name) in [(&whole[..whole.len() / 2], "half.gguf"), (b"not a model", "text.gguf")] {
        let base = path.with_file_name(name);
        std::fs::write(&base, bytes).unwrap();
        let mut talk = lab.start(load_model(&EngineSettings { base: Some(base), ..lab.settings.clone() }));
        talk.until("the failure", |talk| !talk.load_failures.is_empty());
        assert!(talk.load_failures[0].to_string().contains(name), "{:?}", talk.load_failures);
    }
    let mut talk = lab.start(Arc::new(|_| panic!("a bug in a loader")));
    talk.until("the failure", |talk| !talk.load_failures.is_empty());
    assert!(talk.load_failures[0].to_string().contains("a bug in a loader"));
    let id = talk.send(line("What is virtue?"));
    assert!(matches!(talk.outcome(id), Err(Error::NoModel(_))));
}

#[test]
fn a_panic_between_passes_fails_the_replies_in_progress_and_the_engine_goes_on() {
    let lab = Lab::new();
    let (load, panics) = (load_model(&lab.settings), Arc::new(AtomicBool::new(false)));
    let switch = panics.clone();
    let mut talk = lab.start(Arc::new(move |progress| {
        let mut model = load(progress)?;
        let hook = Arc::new(|inner: &dyn Executor, rows: &mut [Row<'_>], _: &IsUnwanted| inner.forward(rows).map(Some));
        model.executor = Arc::new(Hooked { inner: model.executor, hook, has_no_cache: switch.clone() });
        Ok(model)
    }));
    talk.until_ready();
    let internal = |outcome| matches!(outcome, Err(Error::Model(reason)) if reason.contains("no cache today"));
    talk.say(line("What is virtue?"));
    panics.store(true, Ordering::SeqCst);
    let failed = talk.send(Request { voice: Some(lab.voice(1)), ..line("What is courage?") });
    assert!(internal(talk.outcome(failed)));
    assert_eq!(talk.engine.stats().queued, 0);
    panics.store(false, Ordering::SeqCst);
    let expected = lab.engine().say(line("What is virtue?")).reply_ids;
    assert_eq!(talk.say(line("What is virtue?")).reply_ids, expected, "nothing of the panic is left");
}

/// Whether a row says the forbidden word, in a prompt of one token a byte.
fn is_cursed(row: &Row<'_>) -> bool {
    row.tokens.windows(5).any(|ids| ids.iter().copied().eq("curse".bytes().map(u32::from)))
}

/// Three replies of which the second is to fail, and what it fails of.
fn check_that_only_the_cursed_fails(lab: &Lab, mut talk: Talk) -> Error {
    let lines = ["What is virtue?", "What is a curse?", "What is courage?"];
    talk.until_ready();
    let ids = lines.map(|text| talk.send(line(text)));
    for (id, text) in [(ids[0], lines[0]), (ids[2], lines[2])] {
        assert_eq!(talk.reply(id).reply_ids, lab.engine().say(line(text)).reply_ids, "{text}");
    }
    let error = talk.outcome(ids[1]).unwrap_err();
    let again = talk.send(line("What is a curse?"));
    assert!(talk.outcome(again).is_err(), "nothing of the failure is remembered");
    error
}

#[test]
fn a_row_that_fails_takes_nobody_along() {
    let mut lab = Lab::new();
    lab.settings.prefill_chunk = 1000;
    let talk = lab.hooked(|inner, rows| {
        if rows.iter().any(is_cursed) {
            return Err(elenchus_lm::Error::Batch("cursed".into()));
        }
        inner.forward(rows)
    });
    let error = check_that_only_the_cursed_fails(&lab, talk);
    assert!(matches!(error, Error::Model(reason) if reason.contains("cursed")));
}

#[test]
fn logits_that_are_no_numbers_fail_their_reply() {
    let mut lab = Lab::new();
    lab.settings.prefill_chunk = 1000;
    let talk = lab.hooked(|inner, rows| {
        let cursed: Vec<_> = rows.iter().map(is_cursed).collect();
        let mut logits = inner.forward(rows)?;
        logits.iter_mut().zip(cursed).filter(|(_, cursed)| *cursed).for_each(|(row, _)| row.fill(f32::NAN));
        Ok(logits)
    });
    let error = check_that_only_the_cursed_fails(&lab, talk);
    assert!(matches!(error, Error::Model(reason) if reason.contains("finite")));
}

#[test]
fn a_panic_in_the_model_fails_its_batch_and_the_engine_goes_on() {
    let lab = Lab::new();
    let steps = AtomicUsize::new(0);
    let mut talk = lab.hooked(move |inner, rows| {
        assert_ne!(steps.fetch_add(1, Ordering::SeqCst), 5, "a bug in an executor");
        inner.forward(rows)
    });
    let id = talk.send(line("What is virtue?"));
    let error = talk.outcome(id).unwrap_err();
    assert!(error.to_string().contains("a bug in an executor"), "{error}");
    assert!(talk.engine.is_running());
    let report = talk.say(line("What is virtue?"));
    assert_eq!(report.cached_tokens, 0, "memory that a panic may have spoilt is gone");
    assert_eq!(report.reply_ids, lab.engine().say(line("What is virtue?")).reply_ids);
}

#[test]
fn an_adapter_for_another_base_is_refused_by_name() {
    let lab = Lab::new();
    let mut talk = lab.engine();
    let adapter = lab.adapter_for(TinyModel { hidden: 128, ..TinyModel::default() }, 1);
    let id = talk.send(Request { voice: Some(adapter.into()), ..line("What is virtue?") });
    let error = talk.outcome(id).unwrap_err();
    assert!(matches!(&error, Error::Adapter(reason) if reason.contains("voice-128-1")), "{error}");
    talk.say(line("What is virtue?"));
}
