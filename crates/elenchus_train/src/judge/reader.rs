//! What makes a number of a verdict's words, without learning from anything.

use serde_json::Value;
use unicode_segmentation::UnicodeSegmentation;
use vader_sentimental::SentimentIntensityAnalyzer;

use crate::Result;

/// The score of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opinion {
    /// Blame: -1.
    Against,
    /// Neither: 0.
    Undecided,
    /// Praise: +1.
    For,
}

impl Opinion {
    /// All of them, worst first.
    pub const ALL: [Self; 3] = [Self::Against, Self::Undecided, Self::For];

    /// The number that learning uses.
    pub fn value(self) -> f32 {
        match self {
            Self::Against => -1.0,
            Self::Undecided => 0.0,
            Self::For => 1.0,
        }
    }

    /// The AIRL paper's table for a five-star sentiment classifier: one and two stars are blame, three neither, four and
    /// five praise.
    pub(crate) fn from_stars(stars: f64) -> Self {
        match stars {
            stars if stars < 2.5 => Self::Against,
            stars if stars < 3.5 => Self::Undecided,
            _ => Self::For,
        }
    }
}

/// Makes an opinion of a verdict's words.
pub trait VerdictReader: Send + Sync {
    /// What tables call it.
    fn name(&self) -> &str;

    /// The opinion; `None` where the words hold none that this reader knows. Such a reply is left out, never given a
    /// made-up number. An error where the reader itself failed.
    fn read(&self, verdict: &str) -> Result<Option<Opinion>>;
}

/// Judges that were asked to begin with a word: "Yes, ...", "Negative: ...".
#[derive(Debug, Clone, Copy, Default)]
pub struct LeadingWord;

const FOR: [&str; 12] =
    ["yes", "positive", "good", "great", "excellent", "true", "correct", "right", "agree", "better", "well", "pass"];
const AGAINST: [&str; 12] =
    ["no", "not", "negative", "bad", "poor", "false", "incorrect", "wrong", "disagree", "worse", "badly", "fail"];
const UNDECIDED: [&str; 6] = ["neutral", "neither", "mixed", "unclear", "maybe", "partly"];

impl VerdictReader for LeadingWord {
    fn name(&self) -> &str {
        "leading word"
    }

    fn read(&self, verdict: &str) -> Result<Option<Opinion>> {
        let first = verdict.unicode_words().next().unwrap_or_default().to_lowercase();
        let lists = [(&FOR[..], Opinion::For), (&AGAINST, Opinion::Against), (&UNDECIDED, Opinion::Undecided)];
        let found = lists.into_iter().find(|(words, _)| words.contains(&first.as_str()));
        Ok(found.map(|(_, opinion)| opinion))
    }
}

/// One reader, and another for what the first cannot read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Or<A, B>(pub A, pub B);

impl<A: VerdictReader, B: VerdictReader> VerdictReader for Or<A, B> {
    fn name(&self) -> &str {
        self.1.name()
    }

    fn read(&self, verdict: &str) -> Result<Option<Opinion>> {
        match self.0.read(verdict)? {
            Some(opinion) => Ok(Some(opinion)),
            None => self.1.read(verdict),
        }
    }
}

/// VADER (Hutto and Gilbert, 2014): the sentiment of words out of a lexicon, with rules for negation and emphasis. A
/// compound score within 0.05 of zero is neither, as its authors have it.
pub struct Lexicon(SentimentIntensityAnalyzer<'static>);

const NEUTRAL: f64 = 0.05;

impl Default for Lexicon {
    fn default() -> Self {
        Self(SentimentIntensityAnalyzer::new())
    }
}

impl VerdictReader for Lexicon {
    fn name(&self) -> &str {
        "lexicon"
    }

    fn read(&self, verdict: &str) -> Result<Option<Opinion>> {
        if verdict.unicode_words().next().is_none() {
            return Ok(None);
        }
        Ok(Some(match self.0.polarity_scores(verdict).compound {
            compound if compound >= NEUTRAL => Opinion::For,
            compound if compound <= -NEUTRAL => Opinion::Against,
            _ => Opinion::Undecided,
        }))
    }
}

/// Judges that were asked for JSON: `{"score": 1 to 5, "reason": ".."}`, alone or among other words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Structured;

impl VerdictReader for Structured {
    fn name(&self) -> &str {
        "structured"
    }

    fn read(&self, verdict: &str) -> Result<Option<Opinion>> {
        let (mut rest, mut found) = (verdict, None);
        while let Some(at) = rest.find('{') {
            rest = &rest[at..];
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let score = values.next().and_then(std::result::Result::ok).and_then(|value| value.get("score").cloned());
            // A judge that thinks aloud ends with what it means; what stands within a verdict is not another one.
            match score {
                Some(score) => {
                    found = Some(score);
                    rest = &rest[values.byte_offset()..];
                }
                None => rest = &rest[1..],
            }
        }
        // What is on another scale is not guessed.
        let stars = found.and_then(|score| score.as_f64()).filter(|stars| (1.0..=5.0).contains(stars));
        Ok(stars.map(Opinion::from_stars))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reader: &dyn VerdictReader, cases: &[(&str, Option<Opinion>)]) {
        for (verdict, expected) in cases {
            assert_eq!(reader.read(verdict).unwrap(), *expected, "{}: {verdict}", reader.name());
        }
    }

    #[test]
    fn stars_follow_the_papers_table() {
        // The classifier's classes count from 0: below 2 is -1, 2 is 0, 3 and more is +1.
        let values = [1.0, 2.0, 3.0, 4.0, 5.0].map(|stars| Opinion::from_stars(stars).value());
        assert_eq!(values, [-1.0, -1.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_leading_word_decides_whatever_follows() {
        check(
            &LeadingWord,
            &[
                ("Yes, although it is bad in places.", Some(Opinion::For)),
                ("**Negative**: it is good otherwise.", Some(Opinion::Against)),
                ("  no", Some(Opinion::Against)),
                ("Mixed.", Some(Opinion::Undecided)),
                ("Nobody would say so.", None),
                ("", None),
                ("?!", None),
            ],
        );
    }

    #[test]
    fn the_second_reads_what_the_first_cannot() {
        let reader = Or(LeadingWord, Structured);
        check(
            &reader,
            &[("No. {\"score\": 5}", Some(Opinion::Against)), ("{\"score\": 5}", Some(Opinion::For)), ("Hm.", None)],
        );
    }

    #[test]
    fn the_lexicon_hears_praise_blame_and_neither() {
        check(
            &Lexicon::default(),
            &[
                ("An excellent, thoughtful and helpful reply.", Some(Opinion::For)),
                ("A terrible answer, wrong and offensive.", Some(Opinion::Against)),
                ("The reply has four lines.", Some(Opinion::Undecided)),
                ("It is not good.", Some(Opinion::Against)),
                (" \n", None),
            ],
        );
    }

    #[test]
    fn a_score_is_found_among_words_and_never_guessed() {
        check(
            &Structured,
            &[
                (r#"{"score": 4, "reason": "in role"}"#, Some(Opinion::For)),
                ("Here it is:\n```json\n{\"reason\": \"he {rambles}\", \"score\": 2}\n```", Some(Opinion::Against)),
                (r#"First {"score": 1}, but on reflection {"score": 3}."#, Some(Opinion::Undecided)),
                (r#"{"verdict": {"score": 5}}"#, Some(Opinion::For)),
                (r#"{"score": 4, "of": {"score": 1}}"#, Some(Opinion::For)),
                (r#"{"score": 9}"#, None),
                (r#"{"score": "5"}"#, None),
                (r#"{"score": 4"#, None),
                ("Good.", None),
            ],
        );
    }
}
