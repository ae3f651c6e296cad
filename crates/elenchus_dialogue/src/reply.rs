//! Tokens to text that can be shown: whole graphemes, held back while a stop rule may still match.
//!
//! Every rule looks at one character after the other, never at tokens, so that a reply is the same however it was split.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use crate::{StopRules, names, sentences::Sentences, words::folded_words};

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StopReason {
    /// The model's own end token.
    EndToken,
    /// A stop string.
    StopString,
    /// The text began to speak for another.
    OtherSpeaker,
    /// The limit of sentences, or enough words at the end of one.
    MaxSentences,
    /// The limit of tokens.
    MaxTokens,
    /// The limit of time.
    MaxSeconds,
    /// The context is full.
    ContextFull,
    /// Cancelled by the game; the text is what was said so far.
    Cancelled,
    /// The next sentence was refused by a [`ReplyFilter`](crate::ReplyFilter); the text ends before it.
    Refused,
    /// Not sampled: a line that an author wrote.
    Told,
}

/// A label longer than this, in bytes, is prose.
const LABEL_BYTES: usize = 64;

/// A clause of fewer words cannot stand alone.
const CLAUSE_WORDS: usize = 4;

/// Assembles one reply. White space around it is left out, and so is the speaker's own label in front of it.
#[derive(Debug, Clone)]
pub(crate) struct Assembler {
    stop_strings: Vec<String>,
    other_speaker: bool,
    own_name: String,
    other_names: HashSet<String>,
    /// Sentences at most; 0 for no limit.
    max_sentences: usize,
    /// Words after which the end of a sentence is the end of the reply; 0 for no such rule.
    enough_words: usize,
    sentences: Sentences,
    /// Up to here `text` consists of whole sentences.
    complete: usize,
    /// Up to here `text` may be shown: whole sentences that were judged. `None` without a filter.
    released: Option<usize>,
    /// Bytes of a character that is not complete yet.
    partial: Vec<u8>,
    /// What was said, that which is held back included.
    text: String,
    /// Up to here `text` was shown; a grapheme begins here.
    shown: usize,
    /// Where the last line of `text` begins.
    line: usize,
    /// Emphasis marks opened before the own label, to be left out after it as well.
    own_label_marks: bool,
    stopped: Option<StopReason>,
}

impl Assembler {
    /// For a reply of `own_name` in a conversation with `others`. If `judged`, nothing is shown before
    /// [`Self::release`].
    pub fn new<'a>(rules: &StopRules, own_name: &str, others: impl IntoIterator<Item = &'a str>, judged: bool) -> Self {
        let own_name = names::fold(own_name);
        let mut other_names: HashSet<_> = others.into_iter().map(names::fold).collect();
        other_names.retain(|name| !name.is_empty() && *name != own_name);
        Self {
            // An empty string would end every reply before it began.
            stop_strings: rules.strings.iter().filter(|string| !string.is_empty()).cloned().collect(),
            other_speaker: rules.other_speaker,
            own_name,
            other_names,
            max_sentences: rules.max_sentences,
            enough_words: rules.enough_words,
            sentences: Sentences::default(),
            complete: 0,
            released: judged.then_some(0),
            partial: Vec::new(),
            text: String::new(),
            shown: 0,
            line: 0,
            own_label_marks: false,
            stopped: None,
        }
    }

    /// Hears a token's bytes; returns the rule that ended the reply, and from then on hears no more.
    pub fn push(&mut self, bytes: &[u8]) -> Option<StopReason> {
        for &byte in bytes {
            if self.stopped.is_some() {
                break;
            }
            self.partial.push(byte);
            self.take_characters();
        }
        self.stopped
    }

    /// The text that can be shown now and was not before.
    pub fn delta(&mut self) -> Option<String> {
        let end = if self.stopped.is_some() { self.text.len() } else { self.held_from() };
        let end = self.released.map_or(end, |released| released.min(end));
        let from = self.shown;
        let mut graphemes: Vec<_> = self.text[from..].grapheme_indices(true).collect();
        if self.stopped.is_none() {
            // What comes next may still belong to the last cluster.
            graphemes.pop();
        }
        // White space is shown once something follows it.
        let shown =
            graphemes.iter().rfind(|(at, grapheme)| from + at + grapheme.len() <= end && !grapheme.trim().is_empty());
        self.shown = shown.map_or(from, |(at, grapheme)| from + at + grapheme.len());
        (self.shown > from).then(|| self.text[from..self.shown].to_owned())
    }

    /// Ends the reply for a reason that lies outside its text: what was held back can be shown. Half a character cannot.
    pub fn finish(&mut self, reason: StopReason) {
        self.stopped.get_or_insert(reason);
    }

    /// Whether the text could end here: its last sentence is complete.
    pub fn is_at_sentence_end(&self) -> bool {
        self.sentences.end_here(&self.text).is_some()
    }

    /// Drops the sentence that was begun last; where there is no other, its last clause. What was shown stays.
    pub fn drop_unfinished_sentence(&mut self) {
        if self.is_at_sentence_end() {
            return;
        }
        if self.complete > 0 {
            if self.complete >= self.shown {
                self.text.truncate(self.complete);
            }
            return;
        }
        let clause = self.text.rfind([',', ';', ':']).map(|end| &self.text[..end]);
        if let Some(clause) = clause.filter(|clause| clause.split_whitespace().count() >= CLAUSE_WORDS) {
            let end = clause.len();
            if end >= self.shown {
                self.text.truncate(end);
                self.text.push('.');
            }
        }
    }

    /// Text that waits to be judged: whole sentences, at the end of the reply all that is left.
    pub fn unjudged(&self) -> Option<&str> {
        let end = if self.stopped.is_some() { self.text.len() } else { self.complete };
        let text = self.text.get(self.released?..end)?;
        (!text.trim().is_empty()).then_some(text)
    }

    /// What [`Self::unjudged`] gave can be shown.
    pub fn release(&mut self) {
        let end = if self.stopped.is_some() { self.text.len() } else { self.complete };
        self.released = self.released.map(|_| end);
    }

    /// What [`Self::unjudged`] gave is not shown, and the reply ends before it. Whether anything is left.
    pub fn refuse(&mut self) -> bool {
        let end = self.released.unwrap_or(self.shown);
        self.text.truncate(end);
        self.stopped = Some(StopReason::Refused);
        end > 0
    }

    /// All text shown so far: the deltas joined.
    pub fn shown(&self) -> &str {
        &self.text[..self.shown]
    }

    fn take_characters(&mut self) {
        while !self.partial.is_empty() && self.stopped.is_none() {
            let (c, bytes) = match std::str::from_utf8(&self.partial) {
                Ok(text) => (text.chars().next().unwrap_or_default(), self.partial.len()),
                Err(error) => match error.error_len() {
                    None => return,
                    Some(bytes) => (char::REPLACEMENT_CHARACTER, bytes),
                },
            };
            self.partial.drain(..bytes);
            self.take_character(c);
        }
    }

    fn take_character(&mut self, c: char) {
        if self.text.is_empty() && (c.is_whitespace() || (self.own_label_marks && is_emphasis(c))) {
            self.own_label_marks &= !c.is_whitespace();
            return;
        }
        self.text.push(c);
        if let Some(stop) = self.stop_strings.iter().filter(|stop| self.text.ends_with(*stop)).max_by_key(|s| s.len()) {
            let end = self.text.len() - stop.len();
            return self.stop(end, StopReason::StopString);
        }
        if c == ':' {
            let line = &self.text[self.line..self.text.len() - 1];
            if self.line == 0 && line.len() <= LABEL_BYTES && names::same(label(line), &self.own_name) {
                self.own_label_marks = line.starts_with(is_emphasis);
                self.sentences = Sentences::default();
                self.complete = 0;
                self.released = self.released.map(|_| 0);
                self.text.clear();
                return;
            }
            if self.other_speaker && self.is_speaker(line) {
                return self.stop(self.line, StopReason::OtherSpeaker);
            }
        }
        if let Some(end) = self.sentences.push(&self.text, c) {
            self.complete = end;
            let is_enough = self.enough_words > 0 && folded_words(&self.text[..end]).len() >= self.enough_words;
            if self.sentences.count() == self.max_sentences || is_enough {
                return self.stop(end, StopReason::MaxSentences);
            }
        }
        if c == '\n' {
            self.line = self.text.len();
        }
    }

    fn stop(&mut self, end: usize, reason: StopReason) {
        // `held_from` keeps everything a rule may take back; were it ever wrong, what was shown stays said.
        debug_assert!(end >= self.shown, "{:?} was shown, {reason:?} cuts at {end}", self.shown());
        self.text.truncate(end.max(self.shown));
        self.stopped = Some(reason);
    }

    /// Whether a line's text before its colon is a label. The own one counts: a new speech begins after it.
    fn is_speaker(&self, line: &str) -> bool {
        let name = label(line);
        let folded = names::fold(name);
        let in_capitals = may_be_capitals(name) && name.chars().filter(|c| c.is_uppercase()).count() >= 2;
        line.len() <= LABEL_BYTES
            && (in_capitals || self.other_names.contains(&folded) || (!folded.is_empty() && folded == self.own_name))
    }

    /// Whether a line could become a label as it grows.
    fn may_be_label(&self, line: &str) -> bool {
        let name = label(line);
        let folded = names::fold(name);
        let begins = |whole: &String| whole.starts_with(&folded);
        line.len() <= LABEL_BYTES
            && (begins(&self.own_name)
                || (self.other_speaker && (may_be_capitals(name) || self.other_names.iter().any(begins))))
    }

    /// Up to here the text is certain, whatever follows.
    fn held_from(&self) -> usize {
        let stop_begins = self.stop_strings.iter().filter_map(|stop| {
            let starts = stop.char_indices().map(|(at, _)| at).skip(1);
            starts.filter(|&at| self.text.ends_with(&stop[..at])).max().map(|bytes| self.text.len() - bytes)
        });
        let label_begins = self.may_be_label(&self.text[self.line..]).then_some(self.line);
        stop_begins.chain(label_begins).min().unwrap_or(self.text.len())
    }
}

/// The name in a line that may be a label, without emphasis marks: `**PLATO:**`.
fn label(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || is_emphasis(c))
}

fn is_emphasis(c: char) -> bool {
    matches!(c, '*' | '_')
}

/// Whether a text has only what names in capitals have: `SECOND SOPHIST`, `ΣΩΚΡΑΤΗΣ`, `O'NEIL JR.`
fn may_be_capitals(name: &str) -> bool {
    name.chars().all(|c| c.is_uppercase() || c.is_numeric() || matches!(c, ' ' | '.' | '-' | '\'' | '’'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> StopRules {
        StopRules { max_sentences: 0, ..StopRules::default() }
    }

    /// The deltas of a reply, and why it ended.
    fn stream<'a>(rules: &StopRules, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, StopReason) {
        stream_judged(rules, pieces, false)
    }

    /// The same with a filter that lets all sentences pass.
    fn stream_judged<'a>(
        rules: &StopRules,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        judged: bool,
    ) -> (Vec<String>, StopReason) {
        let mut assembler = Assembler::new(rules, "Socrates", ["player", "Plato", "Socrates", "Σωσίας"], judged);
        let mut deltas = Vec::new();
        let mut show = |assembler: &mut Assembler| {
            if assembler.unjudged().is_some() {
                assembler.release();
            }
            deltas.extend(assembler.delta());
        };
        for piece in pieces {
            let stop = assembler.push(piece);
            show(&mut assembler);
            if stop.is_some() {
                break;
            }
        }
        assembler.finish(StopReason::EndToken);
        show(&mut assembler);
        assert_eq!(deltas.concat(), assembler.shown());
        assert_eq!(assembler.delta(), None);
        (deltas, assembler.stopped.unwrap())
    }

    #[test]
    fn text_is_cut_by_the_rules() {
        fn check(rules: &StopRules, text: &str, expected: &str, reason: StopReason) {
            for size in [1, 3, 1000] {
                let (deltas, stop) = stream(rules, text.as_bytes().chunks(size));
                assert_eq!((deltas.concat().as_str(), stop), (expected, reason), "{text:?} by {size}");
            }
        }
        use StopReason::{EndToken, MaxSentences, OtherSpeaker, StopString};
        let stops = |strings: &[&str]| StopRules {
            strings: strings.iter().map(|string| (*string).to_owned()).collect(),
            ..rules()
        };
        check(&rules(), "", "", EndToken);
        check(&rules(), " \n", "", EndToken);
        check(&rules(), "\n Hail.  \n", "Hail.", EndToken);
        check(&rules(), "a\u{301} 👩‍👩‍👧 🇬🇷", "a\u{301} 👩‍👩‍👧 🇬🇷", EndToken);

        check(&stops(&["END"]), "The END of it", "The", StopString);
        check(&stops(&["END"]), "The EN", "The EN", EndToken);
        check(&stops(&["\n"]), "\n\nHail.\nBye", "Hail.", StopString);
        check(&stops(&["aab"]), "xaaab", "xa", StopString);
        check(&stops(&["b", "ab"]), "xab", "x", StopString);
        check(&stops(&["xaby", "ab"]), "xaby", "x", StopString);
        check(&stops(&["", "?"]), "So?", "So", StopString);
        check(&stops(&["<|im_end|>"]), "Hi <|im_end|>", "Hi", StopString);

        check(&rules(), "Socrates: Hail.", "Hail.", EndToken);
        check(&rules(), "**SOCRATES:** *smiles* Hail.", "*smiles* Hail.", EndToken);
        check(&rules(), "Hail.\nSocrates: Again.", "Hail.", OtherSpeaker);
        check(&rules(), "Hail.\n\nPLATO: I", "Hail.", OtherSpeaker);
        check(&rules(), "Hail.\n\n**The SECOND", "Hail.\n\n**The SECOND", EndToken);
        check(&rules(), "Hail.\nplato : I", "Hail.", OtherSpeaker);
        check(&rules(), "Hail.\nPlayer:", "Hail.", OtherSpeaker);
        check(&rules(), "Hail.\nΣΩΣΊΑΣ: I", "Hail.", OtherSpeaker);
        check(&rules(), "Hail.\nOLD MAN 2: I", "Hail.", OtherSpeaker);
        check(&rules(), "PLATO: I", "", OtherSpeaker);
        check(&rules(), "Hail. PLATO: I", "Hail. PLATO: I", EndToken);
        check(&rules(), "Hail.\nI: one", "Hail.\nI: one", EndToken);
        check(&rules(), "Hail.\nPlatonic: one", "Hail.\nPlatonic: one", EndToken);
        check(&rules(), "Hail.\nPLATO", "Hail.\nPLATO", EndToken);
        check(&rules(), &"A".repeat(99), &"A".repeat(99), EndToken);
        check(&StopRules { other_speaker: false, ..rules() }, "Hail.\nPLATO: I", "Hail.\nPLATO: I", EndToken);
        check(&StopRules { other_speaker: false, ..rules() }, "socrates: Hail.", "Hail.", EndToken);

        let two = StopRules { max_sentences: 2, ..rules() };
        check(&two, "One. Two! Three?", "One. Two!", MaxSentences);
        check(&two, "One. Two!", "One. Two!", EndToken);
        check(&two, "One.\nTwo... PLATO: no", "One.\nTwo...", MaxSentences);

        let enough = StopRules { enough_words: 3, ..rules() };
        check(&enough, "Good day! I am Crito. And you?", "Good day! I am Crito.", MaxSentences);
        check(&enough, "I do. I do not. I do.", "I do. I do not.", MaxSentences);
        check(&enough, "I do not know", "I do not know", EndToken);
    }

    #[test]
    fn broken_utf8_is_replaced_and_half_a_character_never_shown() {
        let check = |pieces: &[&[u8]], expected: &str| {
            assert_eq!(stream(&rules(), pieces.iter().copied()).0.concat(), expected);
        };
        check(&[b"\xf0\x9f", b"\x8f\xba"], "🏺");
        check(&[b"a\xff", b"b\xc3"], "a\u{fffd}b");
        check(&[b"\xe2\x28\xa1"], "\u{fffd}(\u{fffd}");
        check(&[b"\xc0\x80"], "\u{fffd}\u{fffd}");
    }

    #[test]
    fn text_streams_instead_of_waiting_for_the_end() {
        let (deltas, _) = stream(&rules(), "I say that virtue is knowledge.".as_bytes().chunks(4));
        assert!(deltas.len() > 4, "{deltas:?}");
        let mut assembler = Assembler::new(&rules(), "Socrates", [], false);
        assembler.push("Yes 👩".as_bytes());
        assert_eq!(assembler.delta().as_deref(), Some("Yes"));
        assembler.push("\u{200d}👧!".as_bytes());
        assert_eq!(assembler.delta().as_deref(), Some(" 👩\u{200d}👧"));
    }

    #[test]
    fn what_is_judged_is_shown_by_whole_sentences() {
        let text = "I know. Do you? Well... perhaps not. And";
        let (deltas, _) = stream_judged(&rules(), text.as_bytes().chunks(1), true);
        assert_eq!(deltas, ["I know.", " Do you?", " Well... perhaps not.", " And"]);
        let mut assembler = Assembler::new(&rules(), "Socrates", [], true);
        assembler.push(b"I know. I am an AI. Yes");
        assert_eq!(assembler.unjudged(), Some("I know. I am an AI."));
        assert_eq!(assembler.delta(), None);
        assembler.release();
        assert_eq!(assembler.delta().as_deref(), Some("I know. I am an AI."));
        assembler.push(b", no. ");
        assert_eq!(assembler.unjudged(), Some(" Yes, no."));
        assert!(assembler.refuse(), "something was said");
        assert_eq!((assembler.delta(), assembler.shown()), (None, "I know. I am an AI."));
    }

    #[test]
    fn an_unfinished_sentence_is_dropped_unless_it_is_all_there_is_or_was_shown() {
        fn check(judged: bool, text: &str, expected: &str) {
            let mut assembler = Assembler::new(&rules(), "Socrates", [], judged);
            assembler.push(text.as_bytes());
            assembler.delta();
            assembler.drop_unfinished_sentence();
            assembler.finish(StopReason::MaxTokens);
            assembler.release();
            assembler.delta();
            assert_eq!(assembler.shown(), expected, "{text:?}");
        }
        check(true, "One. Two. Thr", "One. Two.");
        check(true, "One. Two.", "One. Two.");
        check(true, "One. \"Two.\"", "One. \"Two.\"");
        check(true, "One, tw", "One, tw");
        check(true, "", "");
        check(false, "One. Two. Thr", "One. Two. Thr");
    }

    /// Texts made of what the rules look for.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop_oneof![
            Just(b"PLATO".to_vec()),
            Just(b"Socrates".to_vec()),
            Just(b"player".to_vec()),
            Just(b":".to_vec()),
            Just(b"\n".to_vec()),
            Just(b" ".to_vec()),
            Just(b"...".to_vec()),
            Just(b".".to_vec()),
            Just(b"? ".to_vec()),
            Just(b"STOP".to_vec()),
            Just(b"ST".to_vec()),
            Just(b"**".to_vec()),
            Just(b"\"".to_vec()),
            Just(b"Mr".to_vec()),
            Just(b"\xff".to_vec()),
            Just(b"\xf0\x9f".to_vec()),
            Just(b"\r\n".to_vec()),
            "\\PC{0,4}".prop_map(String::into_bytes),
            Just("👩‍👧".into()),
            Just("e\u{301}".into()),
            Just("🇬🇷".into()),
            Just("\u{600}".into()),
            Just("Σω".into()),
        ];
        proptest::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_reply_is_the_same_however_it_was_split(
            text in texts(),
            sizes in proptest::collection::vec(1..7usize, 1..40),
            max_sentences in 0..4usize,
            enough_words in 0..4usize,
            other_speaker: bool,
        ) {
            let rules = StopRules {
                strings: vec!["STOP".into(), "T.".into(), "\u{301}!".into()],
                max_sentences,
                enough_words,
                other_speaker,
                ..StopRules::default()
            };
            let mut rest = text.as_slice();
            let mut pieces = Vec::new();
            for &size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            let (deltas, stop) = stream(&rules, pieces);
            let whole = stream(&rules, [text.as_slice()]);
            let reply = deltas.concat();
            prop_assert_eq!((reply.clone(), stop), (whole.0.concat(), whole.1));
            prop_assert_eq!(reply.trim_start(), reply.as_str());
            let judged = stream_judged(&rules, text.chunks(1), true);
            prop_assert_eq!((judged.0.concat(), judged.1), (reply.clone(), stop), "waiting for judgement changes nothing");
            // Each delta ends where a grapheme of the reply ends.
            let ends: HashSet<_> = reply.grapheme_indices(true).map(|(at, grapheme)| at + grapheme.len()).collect();
            let mut end = 0;
            for delta in &deltas {
                end += delta.len();
                prop_assert!(ends.contains(&end), "{:?} splits a grapheme", deltas);
            }
        }
    }
}
