//! A run's curves as `TensorBoard` reads them. The format is a dozen lines of framing and protobuf, so it is written by hand.
//!
//! An event file is a sequence of `TFRecord`s, each `length: u64, masked crc of it: u32, data, masked crc of it: u32` in
//! little endian, whose data is an `Event` of tensorflow's `event.proto`. `metrics.jsonl` is the truth: on every start the
//! file is rewritten from it, so that steps that a resumed run takes again stand in it once.

use std::{fs::OpenOptions, io::Write, path::PathBuf, time::SystemTime};

use crate::{Error, Result, RunFolder};

/// `TensorBoard` takes every file with `tfevents` in its name; one name per run, so that a resumed run replaces it.
const FILE: &str = "events.out.tfevents.0.elenchus";

/// What a step adds to plots.
pub(crate) trait Curves {
    /// From 1.
    fn step(&self) -> u64;

    /// Spent on it.
    fn seconds(&self) -> f64;

    /// Tags and values.
    fn scalars(&self) -> Vec<(String, f64)>;
}

/// The event file of a run.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
}

impl EventFile {
    /// Rewrites the file with the steps known so far.
    pub(crate) fn rewrite<C: Curves>(run: &RunFolder, reports: &[C]) -> Result<Self> {
        run.write(FILE, &file(wall_time(), reports))?;
        Ok(Self { path: run.file(FILE) })
    }

    /// Adds a step. A kill in between leaves half a record, at which a reader waits; the next start rewrites the file.
    pub(crate) fn append(&self, report: &impl Curves) -> Result<()> {
        let append = || {
            let mut file = OpenOptions::new().append(true).open(&self.path)?;
            file.write_all(&record(&step_event(wall_time(), report)))
        };
        append().map_err(|cause| Error::File {
            file: self.path.clone(),
            cause,
            hint: " (hint: start the run again, it resumes from its last checkpoint)",
        })
    }
}

/// A whole file. The last step ended now and each began where the one before it ended, as far as the metrics tell:
/// `TensorBoard`'s relative axis then shows time spent, without the pauses of a run that was killed.
fn file(now: f64, reports: &[impl Curves]) -> Vec<u8> {
    let mut wall_time = now - reports.iter().map(Curves::seconds).sum::<f64>();
    let mut bytes = record(&version_event(wall_time));
    for report in reports {
        wall_time += report.seconds();
        bytes.extend(record(&step_event(wall_time, report)));
    }
    bytes
}

/// The first event of a file: `wall_time = 1`, `file_version = 3`.
fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, wall_time);
    message(&mut event, 3, b"brain.Event:2");
    event
}

/// `wall_time = 1`, `step = 2`, `summary = 5 { value = 1 { tag = 1, simple_value = 2 } .. }`.
fn step_event(wall_time: f64, report: &impl Curves) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in report.scalars() {
        let mut entry = Vec::new();
        message(&mut entry, 1, tag.as_bytes());
        float(&mut entry, 2, value as f32);
        message(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    double(&mut event, 1, wall_time);
    key(&mut event, 2, 0);
    varint(&mut event, report.step());
    message(&mut event, 5, &summary);
    event
}

fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn float(out: &mut Vec<u8>, field: u64, value: f32) {
    key(out, field, 5);
    out.extend(value.to_le_bytes());
}

fn message(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// One `TFRecord`.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let masked = |bytes: &[u8]| crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// CRC-32 with Castagnoli's polynomial, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let (mut crc, mut bit) = (at as u32, 0);
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        table
    };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StepReport;

    fn report(json: &str) -> StepReport {
        serde_json::from_str(json).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn checksums_are_castagnolis() {
        let check = |bytes: &[u8], expected: u32| assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        check(b"", 0);
        check(b"a", 0xc1d0_4330);
        check(b"123456789", 0xe306_9283);
        // RFC 3720, B.4
        check(&[0; 32], 0x8a91_36aa);
        check(&[0xff; 32], 0x62a8_ab43);
        check(&std::array::from_fn::<u8, 32, _>(|at| at as u8), 0x46dd_794e);
    }

    #[test]
    fn varints_are_protobufs() {
        let check = |value: u64, expected: &[u8]| {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out, expected, "{value}");
        };
        check(0, &[0]);
        check(127, &[0x7f]);
        check(128, &[0x80, 0x01]);
        check(300, &[0xac, 0x02]);
        check(u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    const FIRST: &str =
        r#"{"step":1,"loss":3.5,"grad_norm":2.25,"learning_rate":0.0,"tokens":1024,"targets":400,"seconds":4.0}"#;
    const SECOND: &str = r#"{"step":300,"loss":3.25,"grad_norm":0.5,"learning_rate":0.0003,"tokens":512,"targets":200,"seconds":2.0,"resident_bytes":1500000000,"held_out_perplexity":24.5}"#;

    /// `TensorBoard` 2.21 read exactly these bytes without a complaint and gave every tag, step, value and wall time:
    ///
    /// ```python
    /// from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    /// events = EventAccumulator(folder, purge_orphaned_data=False).Reload()
    /// {tag: [(e.step, e.wall_time, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    /// ```
    #[test]
    fn the_bytes_are_those_that_tensorboard_reads() {
        let bytes = file(1000.0, &[report(FIRST), report(SECOND)]);
        let expected = concat!(
            "1800000000000000a37f4b22090000000000108f401a0d627261696e2e4576656e743a322b71b177",
            "74000000000000005f6773d2090000000000308f4010012a670a110a0a747261696e2f6c6f737315000060400a160a0f",
            "747261696e2f677261645f6e6f726d15000010400a1a0a13747261696e2f6c6561726e696e675f726174651500000000",
            "0a1e0a17747261696e2f746f6b656e735f7065725f7365636f6e64150000804381a1a12d",
            "b000000000000000964d0934090000000000408f4010ac022aa1010a110a0a747261696e2f6c6f737315000050400a16",
            "0a0f747261696e2f677261645f6e6f726d150000003f0a1a0a13747261696e2f6c6561726e696e675f72617465155249",
            "9d390a1e0a17747261696e2f746f6b656e735f7065725f7365636f6e6415000080430a1a0a1368656c645f6f75742f70",
            "6572706c6578697479150000c4410a1c0a156d656d6f72792f7265736964656e745f6279746573155ed0b24ec8e139b6",
        );
        assert_eq!(hex(&bytes), expected);
    }

    #[test]
    fn a_file_written_anew_and_one_added_to_hold_the_same_events() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path(), "").unwrap();
        let (first, second) = (report(FIRST), report(SECOND));
        let file = EventFile::rewrite(&run, std::slice::from_ref(&first)).unwrap();
        file.append(&second).unwrap();
        let added = std::fs::read(&file.path).unwrap();
        // What a kill cut short, and steps taken again, are gone after a restart.
        std::fs::write(&file.path, &added[..added.len() - 3]).unwrap();
        let file = EventFile::rewrite(&run, &[first, second]).unwrap();
        let rewritten = std::fs::read(&file.path).unwrap();
        assert_eq!(rewritten.len(), added.len());
        assert_eq!(events(&rewritten), events(&added));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the configuration and one event file");
    }

    /// Events without their first field, the wall time, once framing and checksums were found right.
    fn events(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let (one, rest) = bytes.split_at(8 + 4 + length + 4);
            assert_eq!(one, record(&one[12..12 + length]));
            events.push(one[12 + 9..12 + length].to_vec());
            bytes = rest;
        }
        events
    }

    #[test]
    fn a_step_that_took_no_time_has_no_speed() {
        let mut report = report(FIRST);
        report.seconds = 0.0;
        assert!(report.scalars().iter().all(|(tag, value)| tag != "train/tokens_per_second" && value.is_finite()));
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path(), "").unwrap();
        let file = EventFile::rewrite::<StepReport>(&run, &[]).unwrap();
        std::fs::remove_file(&file.path).unwrap();
        let error = file.append(&report(FIRST)).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("hint:"), "{error}");
    }
}
