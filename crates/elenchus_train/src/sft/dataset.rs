//! From a `training.toml` to a dataset. What is trained on and what is measured on is decided here alone, so that nothing is
//! measured on what it was trained on.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use elenchus_dialogue::{Character, Model};
use elenchus_lm::LoraAdapter;
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::SftConfig;
use crate::{
    BrokenLine, Example, Result,
    config_file::read_text,
    data::{self, FilterReport, OnBroken, Pair, PersonaPair, Split},
    example, examples,
    numeric::mixed,
    read_character, read_pairs,
};

/// A configuration with all that it names, read, filtered and split.
#[derive(Debug)]
pub struct Lesson {
    /// The configuration.
    pub config: SftConfig,
    /// The same as it is written.
    pub text: String,
    /// Where the character is described.
    pub character_file: PathBuf,
    /// Who learns.
    pub character: Character,
    /// Pairs in the texts, fit to learn from or not.
    pub read: usize,
    /// Lines of the texts that were left out; none unless `skip_broken` is set.
    pub broken: Vec<BrokenLine>,
    /// What the filters did.
    pub filtered: FilterReport,
    /// The pairs of the texts that are trained on and measured on.
    pub split: Split,
    /// Lines as a player says them, trained on as well.
    pub player_lines: Vec<Pair>,
    /// What keeps the persona: invented people, neighbours, and the character from its `character.toml`. The base's own
    /// replies are added by [`Self::examples`], once there is a model.
    pub persona_pairs: Vec<PersonaPair>,
    /// The adapter that training begins from; a fresh one if there is none.
    pub start: Option<Arc<LoraAdapter>>,
}

impl Lesson {
    /// Reads a `training.toml` and what it names; its paths are relative to its folder.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should, a split that leaves nothing, a player line without reply.
    pub fn open(file: &Path) -> Result<Self> {
        let text = read_text(file)?;
        let config = SftConfig::parse(&text, &file.display().to_string())?;
        let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
        let character_file = beside(&config.character);
        let character = read_character(&character_file)?;
        let files: Vec<PathBuf> = config.data.iter().map(beside).collect();
        let on_broken = if config.skip_broken { OnBroken::Skip } else { OnBroken::Stop };
        let (pairs, broken) = read_pairs(&files, &character, &config.speakers, config.context, on_broken)?;
        let read = pairs.len();
        // Whole works that are trained on answer with any fit reply, whatever was said before it in the text.
        let spoken = config.player_lines.as_ref().filter(|_| config.held_out_fraction.is_none()).map(|_| pairs.clone());
        let (split, filtered) = config.split(pairs)?;
        let player_lines = match (&config.player_lines, spoken) {
            (Some(lines), Some(mut spoken)) => {
                let untrained = [&config.held_out_works, &config.excluded_works];
                spoken.retain(|pair| !untrained.iter().any(|works| works.contains(&pair.work)));
                data::player_lines(&beside(lines), &data::filter(spoken, &config.filters.of_replies()).0)?
            }
            // Of a work that is cut in two, only what is trained on, so that nothing held out is learned by this way.
            (Some(lines), None) => data::player_lines(&beside(lines), &split.train)?,
            (None, _) => Vec::new(),
        };
        let (mut split, mut player_lines) = (split, player_lines);
        let seed = config.training.seed;
        data::add_facts(split.train.iter_mut().map(Pair::shown), config.persona.facts, seed);
        let texts = split.train.iter_mut().chain(&mut player_lines);
        data::facts_to_notes(texts.map(Pair::shown), config.persona.notes, seed);
        let written: Vec<_> = player_lines.iter().filter(|pair| pair.work == data::PLAYER_LINES).cloned().collect();
        (1..config.player_lines_times).for_each(|_| player_lines.extend_from_slice(&written));
        let persona_pairs = persona_pairs(&config, &character, split.train.len() + player_lines.len(), beside)?;
        let start = config.lora.start.as_ref().map(|folder| LoraAdapter::open(&beside(folder))).transpose()?;
        let start = start.map(Arc::new);
        Ok(Self {
            config,
            text,
            character_file,
            character,
            read,
            broken,
            filtered,
            split,
            player_lines,
            persona_pairs,
            start,
        })
    }

    /// Every pair of the character's own that is trained on: those of the texts, then the player lines.
    pub fn trained_on(&self) -> impl Iterator<Item = &Pair> {
        self.split.train.iter().chain(&self.player_lines)
    }

    /// What a model learns from and is measured on. The base's own replies are sampled here, once there is a model.
    ///
    /// # Errors
    /// A template that does not fit the game's prompt, or a model that cannot speak.
    pub fn examples(&self, model: &Model) -> Result<LessonExamples> {
        let Self { config, character, split, persona_pairs, .. } = self;
        let max_tokens = config.training.max_tokens;
        let mut train = examples(self.trained_on(), character, model, max_tokens)?;
        let held_out = examples(&split.held_out, character, model, max_tokens)?;
        let own = train.len();
        let base_replies = share(config.persona.base, self.trained_on().count());
        let from_base = match base_replies {
            0 => Vec::new(),
            count => data::base_replies(model, count, config.training.seed)?,
        };
        for PersonaPair { character, pair } in persona_pairs.iter().chain(&from_base) {
            let example = example(pair, character, model, max_tokens)?;
            train.extend(example.map(|example| Example { weight: config.persona.weight, ..example }));
        }
        Ok(LessonExamples {
            too_long: [self.trained_on().count() - own, split.held_out.len() - held_out.len()],
            persona: persona_pairs.len() + from_base.len(),
            own,
            train,
            held_out,
        })
    }
}

/// A lesson as tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct LessonExamples {
    /// Learned from: the character's own, then what keeps the persona.
    pub train: Vec<Example>,
    /// Measured on.
    pub held_out: Vec<Example>,
    /// How many of `train` are of the character's own pairs.
    pub own: usize,
    /// Pairs that keep the persona.
    pub persona: usize,
    /// Pairs whose prompt alone has `max_tokens`, left out: of those trained on and of those measured on.
    pub too_long: [usize; 2],
}

fn share(of: f64, count: usize) -> usize {
    (of * count as f64).round() as usize
}

/// The examples beside `count` of the character's own.
fn persona_pairs(
    config: &SftConfig,
    character: &Character,
    count: usize,
    beside: impl Fn(&PathBuf) -> PathBuf,
) -> Result<Vec<PersonaPair>> {
    let (settings, seed) = (&config.persona, config.training.seed);
    let mut pairs = data::invented(share(settings.invented, count), seed);
    let own = data::own(character, share(settings.own, count), seed);
    pairs.extend(own.into_iter().map(|pair| PersonaPair { character: character.clone(), pair }));
    let mut of_neighbours = Vec::new();
    for folder in &settings.neighbours {
        let neighbour = read_character(&beside(folder).join("character.toml"))?;
        if neighbour.name == character.name {
            continue;
        }
        let lines = data::written_player_lines(&beside(folder).join("player_lines.jsonl"))?;
        of_neighbours.extend(lines.into_iter().map(|pair| PersonaPair { character: neighbour.clone(), pair }));
    }
    of_neighbours.shuffle(&mut Pcg64Mcg::seed_from_u64(mixed(seed, 1)));
    of_neighbours.truncate(share(settings.neighbour, count));
    pairs.extend(of_neighbours);
    data::facts_to_notes(pairs.iter_mut().map(|of| of.pair.shown()), settings.notes, mixed(seed, 2));
    Ok(pairs)
}
