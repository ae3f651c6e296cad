//! A filter before a search: vocabularies with thousands of control tokens are common, texts with several kinds are not.

/// The pairs of neighbouring bytes in a text.
pub struct BytePairs(Box<[u64; 1024]>);

impl BytePairs {
    pub fn of(text: &str) -> Self {
        let mut pairs = Self(Box::new([0; 1024]));
        for (word, bit) in places(text) {
            pairs.0[word] |= bit;
        }
        pairs
    }

    /// False if the text certainly does not contain this one.
    pub fn may_hold(&self, part: &str) -> bool {
        places(part).all(|(word, bit)| self.0[word] & bit != 0)
    }
}

fn places(text: &str) -> impl Iterator<Item = (usize, u64)> {
    text.as_bytes().windows(2).map(|pair| {
        let place = usize::from(pair[0]) << 8 | usize::from(pair[1]);
        (place / 64, 1 << (place % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_always_passes() {
        let text = "a<|im_end|>é🫒\0\u{7f}";
        let pairs = BytePairs::of(text);
        for (start, _) in text.char_indices() {
            for end in (start..=text.len()).filter(|&end| text.is_char_boundary(end)) {
                assert!(pairs.may_hold(&text[start..end]), "{:?}", &text[start..end]);
            }
        }
        assert!(!pairs.may_hold("<|im_start|>") && !pairs.may_hold("ba"));
    }
}
