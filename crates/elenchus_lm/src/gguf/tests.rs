use proptest::prelude::*;

use super::*;

fn tiny() -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer
        .set("general.architecture", "llama")
        .set("count", 7)
        .set("large", 1_i64 << 40)
        .set("negative", -3)
        .set("share", 0.5)
        .set("flag", true)
        .set("words", vec!["ἀρετή", "", "olive"])
        .set("numbers", vec![1, -1])
        .set("nested", vec![vec![1, 2], vec![], vec![3]])
        .tensor("norm", &[5], BlockType::F32, vec![1; 20])
        .tensor("matrix", &[3, 64], BlockType::Q4_1, vec![2; 3 * 2 * 20])
        .tensor("half", &[2, 3], BlockType::BF16, vec![3; 12]);
    writer
}

fn tiny_bytes() -> Vec<u8> {
    tiny().to_bytes().unwrap()
}

/// Where tensor data begins; the header is everything before it.
fn header_bytes(bytes: &[u8]) -> usize {
    Header::parse(bytes).unwrap().tensors[0].1.offset
}

#[test]
fn what_was_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    tiny().write(&path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.str("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.usize("count").unwrap(), 7);
    assert_eq!(gguf.usize("large").unwrap(), 1 << 40);
    assert_eq!(gguf.get("negative"), Some(&Value::Int(-3)));
    assert_eq!(gguf.f32("share").unwrap(), 0.5);
    assert!(gguf.bool_or("flag", false).unwrap() && !gguf.bool_or("absent", false).unwrap());
    assert_eq!(gguf.get("words"), Some(&vec!["ἀρετή", "", "olive"].into()));
    assert_eq!(gguf.get("numbers"), Some(&vec![1, -1].into()));
    assert_eq!(gguf.get("nested").unwrap().kind(), "an array");
    let (info, bytes) = gguf.tensor("matrix").unwrap();
    assert_eq!((info.shape.as_slice(), info.dtype, bytes), (&[3, 64][..], BlockType::Q4_1, &[2u8; 120][..]));
    assert_eq!(gguf.tensor("half").unwrap().1, [3u8; 12]);
    assert!(gguf.tensor("absent").is_none());
    assert_eq!(gguf.tensors().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["norm", "matrix", "half"]);
}

#[test]
fn a_getter_names_the_key_and_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    tiny().write(&path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let check = |error: Error, parts: &[&str]| {
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message:?} should hold {parts:?}");
    };
    check(gguf.usize("absent").unwrap_err(), &["tiny.gguf", "`absent` is missing"]);
    check(gguf.usize("share").unwrap_err(), &["`share` should be an integer but is a float"]);
    check(gguf.usize("negative").unwrap_err(), &["`negative` is -3"]);
    check(gguf.str("count").unwrap_err(), &["`count` should be a text but is an integer"]);
    check(gguf.f32("flag").unwrap_err(), &["`flag` should be a float but is a flag"]);
    check(gguf.array("count").unwrap_err(), &["`count` should be an array"]);
    check(gguf.bool_or("count", true).unwrap_err(), &["`count` should be a flag"]);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = tiny_bytes();
    for length in 0..bytes.len() {
        Header::parse(&bytes[..length]).expect_err(&format!("cut at {length} of {}", bytes.len()));
    }
}

/// Damage that cannot be seen (a letter of a name) gives another well-formed file; its tensors still lie inside it.
#[test]
fn a_flipped_bit_is_an_error_or_a_well_formed_file() {
    let mut bytes = tiny_bytes();
    let mut refused = 0;
    for bit in 0..header_bytes(&bytes) * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        match Header::parse(&bytes) {
            Err(_) => refused += 1,
            Ok(header) => assert!(header.tensors.iter().all(|(_, info)| info.byte_range().end <= bytes.len())),
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(refused > 1000, "only {refused} flips were refused");
}

proptest! {
    #[test]
    fn random_bytes_after_the_magic_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200), counts in 0u64..4) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(counts.to_le_bytes());
        bytes.extend(counts.to_le_bytes());
        bytes.extend(tail);
        let _ = Header::parse(&bytes);
    }

    #[test]
    fn random_numbers_in_the_header_never_panic(at in 0usize..10_000, number in any::<u64>(), small in any::<bool>()) {
        let mut bytes = tiny_bytes();
        let at = at % (header_bytes(&bytes) - 8);
        let number = if small { number % 300 } else { number };
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert!(header.tensors.iter().all(|(_, info)| info.byte_range().end <= bytes.len()));
        }
    }
}

#[test]
fn absurd_headers_say_what_is_wrong() {
    fn check(bytes: &[u8], expected: &str) {
        let reason = Header::parse(bytes).unwrap_err();
        assert!(reason.contains(expected), "{reason:?} should hold {expected:?}");
    }
    fn header(version: u32, tensors: u64, keys: u64, rest: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }
    fn key(name: &str, value_type: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend(value_type.to_le_bytes());
        bytes.extend_from_slice(rest);
        header(3, 0, 1, &bytes)
    }
    fn tensor(dims: &[u64], block_type: u32, offset: u64) -> Vec<u8> {
        let mut bytes = 1u64.to_le_bytes().to_vec();
        bytes.push(b'w');
        bytes.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend(block_type.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.resize(bytes.len() + 64, 0);
        header(3, 1, 0, &bytes)
    }

    check(b"<!DOCTYPE html>", "does not start with `GGUF`");
    check(&header(1, 0, 0, &[]), "version 1 is not supported");
    check(&header(4, 0, 0, &[]), "version 4 is not supported");
    check(&header(3u32.swap_bytes(), 0, 0, &[]), "big-endian");
    check(&header(3, u64::MAX, 0, &[]), "number of tensors: 18446744073709551615 are announced");
    check(&header(3, 0, 1 << 40, &[0; 64]), "number of metadata keys: 1099511627776 are announced");
    check(&header(3, 0, 1, &[0xff; 64]), "metadata key 0: a text of 18446744073709551615 bytes");
    check(&key("k", 13, &[0; 8]), "metadata `k`: it has the unknown value type 13");
    check(&key("k", value_type::BOOL, &[2]), "a flag is 0 or 1, not 2");
    check(&key("k", value_type::U64, &[0xff; 8]), "the integer 18446744073709551615 is absurdly large");
    check(&key("k", value_type::STRING, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), "is not UTF-8");
    let array = |element: u32, count: u64| [&element.to_le_bytes()[..], &count.to_le_bytes(), &[0; 32]].concat();
    check(&key("k", value_type::ARRAY, &array(value_type::U8, 1 << 60)), "1152921504606846976 are announced");
    check(&key("k", value_type::ARRAY, &array(99, 0)), "unknown value type 99");
    let nested: Vec<u8> = (0..64).flat_map(|_| array(value_type::ARRAY, 1)[..12].to_vec()).collect();
    check(&key("k", value_type::ARRAY, &nested), "nested more than 4 deep");
    check(&key("general.alignment", value_type::U32, &[12, 0, 0, 0]), "`general.alignment` is 12");
    check(&key("general.alignment", value_type::U32, &[0; 4]), "`general.alignment` is 0");
    check(&key("general.alignment", value_type::BOOL, &[1]), "`general.alignment` should be an integer");
    check(&tensor(&[], 0, 0), "tensor `w`: it has 0 dimensions");
    check(&tensor(&[1; 5], 0, 0), "it has 5 dimensions");
    check(&tensor(&[4, 0], 0, 0), "its shape [0, 4] is empty");
    check(&tensor(&[1 << 40, 1 << 40], 0, 0), "is absurdly large");
    check(&tensor(&[33], 8, 0), "its rows of 33 are no multiple of the block size 32 of Q8_0");
    check(&tensor(&[32], 4, 0), "its block type is the number 4, which is not supported");
    check(&tensor(&[256], 16, 0), "its block type is IQ2_XXS, number 16, which is not supported");
    check(&tensor(&[4], 0, 32), "is said to begin at 32 of the data, but the one before ends at 0");
    check(&tensor(&[4096], 0, 0), "but tensor `w` goes to");

    let mut twice = GgufWriter::new();
    check(&twice.set("k", 1).set("k", 2).to_bytes().unwrap(), "metadata key `k` appears twice");
    let mut twice = GgufWriter::new();
    twice.tensor("w", &[1], BlockType::F32, vec![0; 4]).tensor("w", &[1], BlockType::F32, vec![0; 4]);
    check(&twice.to_bytes().unwrap(), "tensor `w` appears twice");
}

#[test]
fn the_writer_refuses_what_no_reader_would_take() {
    let mut short = GgufWriter::new();
    assert!(
        short.tensor("w", &[2, 32], BlockType::Q8_0, vec![0; 34]).to_bytes().unwrap_err().contains("takes 68 bytes")
    );
    let mut mixed = GgufWriter::new();
    let values = Value::Array(vec![Value::Int(1), Value::Bool(true)]);
    assert!(mixed.set("k", values).to_bytes().unwrap_err().contains("also holds a flag"));
}
