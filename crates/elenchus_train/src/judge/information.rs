//! Does it answer what was said? A judge of relevance that nothing was trained for: how much likelier the frozen base finds
//! a reply after its own context than after others (pointwise mutual information a token; Li et al. 2016, "A
//! Diversity-Promoting Objective Function for Neural Conversation Models").

use elenchus_candle::{Activations, CandleExecutor};
use elenchus_dialogue::{Character, Model, Turn};
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{Exchange, Judge, Verdict};
use crate::{
    Error, Example, Result,
    data::Pair,
    example,
    model::forward::{passes, reply_logprobs},
};

/// Contexts that a reply's own is compared with.
const OTHERS: usize = 4;
/// Tokens read in one forward pass, at least one example.
const PASS_TOKENS: usize = 2048;
/// Exchanges whose examples are held at once.
const CHUNK: usize = 64;

/// `mean over tokens of log p(reply | own context) - log p(reply | another context)`, averaged over four others.
pub struct Information<'a> {
    executor: &'a CandleExecutor,
    model: &'a Model,
    character: &'a Character,
    /// One more than is compared with, so that one can be left out.
    others: Vec<Vec<Turn>>,
}

impl<'a> Information<'a> {
    /// A judge on this base, without adapter, under the character's own prompt. Of `contexts` it takes some from all over.
    ///
    /// # Errors
    /// Fewer than five different contexts.
    pub fn new(
        executor: &'a CandleExecutor,
        model: &'a Model,
        character: &'a Character,
        contexts: &[Vec<Turn>],
    ) -> Result<Self> {
        let mut different: Vec<Vec<Turn>> = Vec::new();
        let wanted = OTHERS + 1;
        let mut shuffled: Vec<&Vec<Turn>> = contexts.iter().collect();
        shuffled.shuffle(&mut Pcg64Mcg::seed_from_u64(0));
        for context in shuffled {
            let is_new = |other: &Vec<Turn>| newest(other) != newest(context);
            if different.len() < wanted && different.iter().all(is_new) {
                different.push(context.clone());
            }
        }
        if different.len() < wanted {
            let reason = format!("has {} different contexts and takes {wanted} (hint: more pairs)", different.len());
            return Err(Error::Comparison { what: "the judge of information".to_owned(), reason });
        }
        Ok(Self { executor, model, character, others: different })
    }

    /// The reply after its own context and after others; `None` where it does not fit the model.
    fn examples(&self, exchange: &Exchange) -> Result<Option<Vec<Example>>> {
        let others = self.others.iter().filter(|other| newest(other) != newest(&exchange.context)).take(OTHERS);
        let most = self.model.max_tokens();
        let mut examples = Vec::new();
        for context in [&exchange.context].into_iter().chain(others) {
            let reply = exchange.reply.trim().to_owned();
            let pair = Pair::new(String::new(), context.clone(), reply);
            match example(&pair, self.character, self.model, most)? {
                // The end is the length's business.
                Some(mut example) if example.is_ended && example.tokens.len() > example.reply_start + 1 => {
                    example.tokens.pop();
                    examples.push(Example { is_ended: false, ..example });
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(examples))
    }
}

fn newest(context: &[Turn]) -> Option<&str> {
    context.last().map(|turn| turn.text.as_str())
}

impl Judge for Information<'_> {
    fn name(&self) -> &str {
        "information"
    }

    /// A reply without words, or one that is too long for the model, has no score.
    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        for exchanges in exchanges.chunks(CHUNK) {
            let of: Vec<Option<Vec<Example>>> =
                exchanges.iter().map(|exchange| self.examples(exchange)).collect::<Result<_>>()?;
            let examples: Vec<&Example> = of.iter().flatten().flatten().collect();
            // In the order of their tokens, so that a pass reads the contexts that all replies follow once.
            let mut order: Vec<usize> = (0..examples.len()).collect();
            order.sort_by_key(|&at| &examples[at].tokens);
            let sorted: Vec<&Example> = order.iter().map(|&at| examples[at]).collect();
            let (mut means, mut places) = (vec![0.0; examples.len()], order.iter());
            for pass in passes(&sorted, PASS_TOKENS) {
                let logprobs = reply_logprobs(self.executor, None, pass, None, Activations::Drop)?.to_vec1::<f32>()?;
                let mut rest = logprobs.as_slice();
                for (example, &place) in pass.iter().zip(&mut places) {
                    let (of_example, others) = rest.split_at(example.tokens.len() - example.reply_start);
                    rest = others;
                    let sum: f64 = of_example.iter().copied().map(f64::from).sum();
                    means[place] = sum / of_example.len() as f64;
                }
            }
            let mut means = means.into_iter();
            verdicts.extend(of.iter().map(|examples| {
                let Some(examples) = examples else { return Verdict::default() };
                let means: Vec<f64> = means.by_ref().take(examples.len()).collect();
                let score =
                    means.split_first().map(|(own, others)| own - others.iter().sum::<f64>() / others.len() as f64);
                Verdict { score: score.map(|score| score as f32), ..Verdict::default() }
            }));
        }
        Ok(verdicts)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use elenchus_lm::{Numerics, Weights, testing::TinyModel};

    use super::*;
    use crate::{Perplexity, perplexity};

    fn context(text: &str) -> Vec<Turn> {
        vec![Turn { speaker: "Stranger".into(), text: text.into() }]
    }

    /// Against perplexities, one context at a time.
    #[test]
    fn the_score_is_a_difference_of_mean_logprobs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = std::sync::Arc::new(CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap());
        let model = Model::new(executor.clone(), &weights).unwrap();
        let text = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]";
        let character = Character::parse(text, "test").unwrap();
        let contexts: Vec<Vec<Turn>> = ["a?", "bb?", "ccc?", "dd?", "e?"].map(context).into();
        let open = |contexts: &[Vec<Turn>]| Information::new(&executor, &model, &character, contexts);
        let judge = open(&contexts).unwrap();
        let exchange =
            |said: &str, reply: &str| Exchange { context: context(said), reply: reply.into(), is_ended: true };
        let logprob = |said: &[Turn], reply: &str| {
            let pair = Pair::new(String::new(), said.to_vec(), reply);
            let example = example(&pair, &character, &model, 1000).unwrap().unwrap();
            let Perplexity { tokens, logprob, .. } = perplexity(&executor, None, &[example], |_| ()).unwrap();
            logprob / tokens as f64
        };
        let exchanges = [exchange("What is it?", "A ship."), exchange("dd?", "No."), exchange("Why?", " ")];
        let verdicts = judge.judge(&exchanges).unwrap();
        for (exchange, verdict) in exchanges.iter().zip(&verdicts).take(2) {
            let others: Vec<&Vec<Turn>> =
                judge.others.iter().filter(|other| **other != exchange.context).take(OTHERS).collect();
            assert_eq!(others.len(), OTHERS);
            let mean = others.iter().map(|other| logprob(other, &exchange.reply)).sum::<f64>() / OTHERS as f64;
            let expected = logprob(&exchange.context, &exchange.reply) - mean;
            let score = f64::from(verdict.score.unwrap());
            assert!((score - expected).abs() < 1e-4 && score.abs() > 1e-3, "{score} instead of {expected}");
        }
        assert_eq!(verdicts[2].score, None, "nothing was said");
        let alike = [&contexts[..4], &contexts[..1]].concat();
        let error = open(&alike).err().unwrap().to_string();
        assert!(error.contains("4 different contexts"), "{error}");
    }
}
