//! GPT-2's alphabet: a printable letter for every byte, so that a vocabulary of bytes can be written as text.
//!
//! Printable Latin-1 stands for itself, the rest moves up to U+0100. Source: `bytes_to_unicode` in OpenAI's `encoder.py`.

use std::{collections::HashMap, sync::LazyLock};

static ALPHABET: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut moved = '\u{100}'..='\u{143}';
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => moved.next().expect("68 bytes are not printable"),
    })
});

static BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255).map(|byte| (byte_to_char(byte), byte)).collect());

/// The letter for a byte.
pub(crate) fn byte_to_char(byte: u8) -> char {
    ALPHABET[usize::from(byte)]
}

/// The byte a letter stands for.
pub(crate) fn char_to_byte(letter: char) -> Option<u8> {
    BYTES.get(&letter).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_gpt2() {
        // [bytes_to_unicode()[b] for b in (0, 10, 32, 33, 126, 127, 160, 161, 173, 255)]
        let letters = [0, 10, 32, 33, 126, 127, 160, 161, 173, 255].map(byte_to_char);
        assert_eq!(letters, ['Ā', 'Ċ', 'Ġ', '!', '~', 'ġ', 'ł', '¡', 'Ń', 'ÿ']);
        assert!((0..=255).all(|byte| char_to_byte(byte_to_char(byte)) == Some(byte)));
        assert_eq!(char_to_byte('€'), None);
    }
}
