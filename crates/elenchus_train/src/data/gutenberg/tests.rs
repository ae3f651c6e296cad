//! Against a server of our own: each connection gets the next of the answers it was given.

use std::io::Write as _;
use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Instant,
};

use flate2::{Compression, write::GzEncoder};

use super::*;

const WORK: &str = "Title: The Well\r\n*** START OF THE PROJECT GUTENBERG EBOOK THE WELL ***\r\nANNA: Is it deep?\r\n*** END OF THE PROJECT GUTENBERG EBOOK THE WELL ***\r\n";

/// Bytes to answer with, and how long to keep silent before them.
struct Reply(Vec<u8>, Duration);

fn reply(status: &str, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    Reply([head.as_bytes(), body].concat(), Duration::ZERO)
}

fn ok(body: &str) -> Reply {
    reply("200 OK", "", body.as_bytes())
}

/// The same, broken off before its last bytes.
fn cut(Reply(mut bytes, silence): Reply) -> Reply {
    bytes.truncate(bytes.len() - 9);
    Reply(bytes, silence)
}

struct Server {
    mirror: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mirror = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        thread::spawn(move || {
            for Reply(bytes, silence) in replies {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                heard.lock().unwrap().push(String::from_utf8(head).unwrap());
                // Apart, so that the next attempt is heard while this one is kept waiting.
                thread::spawn(move || {
                    thread::sleep(silence);
                    // Nobody may listen any longer.
                    let _ = stream.write_all(&bytes);
                });
            }
        });
        Self { mirror, requests }
    }

    /// The paths asked for so far.
    fn paths(&self) -> Vec<String> {
        let path = |head: &String| head.split(' ').nth(1).unwrap().to_owned();
        self.requests.lock().unwrap().iter().map(path).collect()
    }

    fn gutenberg(&self) -> Gutenberg {
        let short = Duration::from_millis(2);
        Gutenberg {
            mirror: format!("{}/", self.mirror),
            attempts: 3,
            timeout: Duration::from_secs(20),
            backoff: short,
            longest_wait: Duration::from_secs(1),
            pause: short,
        }
    }

    /// Fetches work 7 into an empty folder: its text or the error, and the waits before it.
    fn fetch(&self) -> (Result<String, String>, Vec<Duration>) {
        let folder = tempfile::tempdir().unwrap();
        let mut waits = Vec::new();
        let found = self.gutenberg().fetch(&[7], folder.path(), false, |event| {
            if let GutenbergEvent::Waiting(wait, _) = event {
                waits.push(wait);
            }
        });
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, usize::from(found.is_ok()), "a file is there if and only if the work was fetched whole");
        (found.map(|files| fs::read_to_string(&files[0]).unwrap()).map_err(|error| error.to_string()), waits)
    }
}

const FIRST: &str = "/cache/epub/7/pg7.txt";
const SECOND: &str = "/files/7/7-0.txt";

#[test]
fn a_work_is_fetched_wherever_it_lies() {
    fn check(replies: Vec<Reply>, asked: &[&str]) {
        let server = Server::new(replies);
        assert_eq!(server.fetch().0.as_deref(), Ok(WORK));
        assert_eq!(server.paths(), asked);
        let head = server.requests.lock().unwrap()[0].to_lowercase();
        assert!(head.contains("user-agent: elenchus/") && head.contains("accept-encoding: gzip"), "{head}");
    }
    let gzip = || {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(WORK.as_bytes()).unwrap();
        reply("200 OK", "Content-Encoding: gzip\r\n", &gzip.finish().unwrap())
    };
    let not_found = || reply("404 Not Found", "", b"no");
    let silent = || Reply(ok(WORK).0, Duration::from_millis(30));
    check(vec![ok(WORK)], &[FIRST]);
    check(vec![gzip()], &[FIRST]);
    check(vec![silent()], &[FIRST]);
    check(vec![not_found(), ok(WORK)], &[FIRST, SECOND]);
    check(vec![reply("500 Oh", "", b"no"), reply("503 Oh", "", b"no"), ok(WORK)], &[FIRST; 3]);
    check(vec![cut(ok(WORK)), ok(WORK)], &[FIRST; 2]);
    check(vec![cut(gzip()), gzip()], &[FIRST; 2]);
    check(vec![not_found(), reply("502 Oh", "", b""), gzip()], &[FIRST, SECOND, SECOND]);
    let moved = reply("302 Found", &format!("Location: {SECOND}\r\n"), b"");
    check(vec![moved, ok(WORK)], &[FIRST, SECOND]);
}

#[test]
fn what_is_no_work_is_refused_by_number_and_url() {
    fn check(replies: Vec<Reply>, asked: &[&str], expected: &[&str]) {
        let server = Server::new(replies);
        let error = server.fetch().0.unwrap_err();
        assert_eq!(server.paths(), asked, "{error}");
        let url = format!("{}{}", server.mirror, asked[asked.len() - 1]);
        assert!(error.contains("work 7 of") && error.contains(&url), "{error}");
        assert!(expected.iter().all(|expected| error.contains(expected)), "{error}");
    }
    let oh = || reply("500 Oh", "", b"no");
    let not_found = || reply("404 Not Found", "", b"no");
    check(vec![not_found(), not_found()], &[FIRST, SECOND], &["404", FIRST, "is the number right"]);
    check(
        vec![ok("<html>Are you a robot?</html>")],
        &[FIRST],
        &["`*** START OF` line is missing", "nothing was saved"],
    );
    let begun = &WORK[..WORK.find("*** END").unwrap()];
    check(vec![ok(begun)], &[FIRST], &["`*** END OF` line is missing"]);
    check(vec![reply("403 Forbidden", "", b"no")], &[FIRST], &["answers 403 Forbidden", "hint:"]);
    check(vec![oh(), oh(), oh()], &[FIRST; 3], &["answers 500", "3 times", "another mirror"]);
    let busy = reply("429 Too Many Requests", "Retry-After: 3600\r\n", b"");
    check(vec![busy], &[FIRST], &["429", "asks to wait 3600 s"]);
}

#[test]
fn a_silent_server_is_asked_again() {
    let server = Server::new(vec![Reply(Vec::new(), Duration::from_secs(60)), ok(WORK)]);
    let folder = tempfile::tempdir().unwrap();
    let patient = Gutenberg { timeout: Duration::from_millis(300), ..server.gutenberg() };
    let begun = Instant::now();
    patient.fetch(&[7], folder.path(), false, |_| ()).unwrap();
    assert_eq!(server.paths(), [FIRST; 2]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_server_says_how_long_to_wait() {
    let busy = |after: &str| reply("429 Busy", &format!("Retry-After: {after}\r\n"), b"");
    let server = Server::new(vec![busy("0"), busy("1"), ok(WORK)]);
    let (found, waits) = server.fetch();
    assert_eq!((found.as_deref(), waits), (Ok(WORK), vec![Duration::ZERO, Duration::from_secs(1)]));
    let (_, waits) = Server::new(vec![busy("Wed, 21 Oct 2015 07:28:00 GMT"), ok(WORK)]).fetch();
    assert!(waits.len() == 1 && waits[0] <= Duration::from_millis(2), "{waits:?}");
}

#[test]
fn waits_double_with_a_random_part_up_to_a_bound() {
    let gutenberg = Gutenberg { longest_wait: Duration::from_secs(6), ..Gutenberg::default() };
    for (attempt, longest) in [(1, 1), (2, 2), (3, 4), (4, 6), (99, 6)] {
        let longest = Duration::from_secs(longest);
        let waits: Vec<_> = (0..50).map(|_| gutenberg.wait_after(attempt)).collect();
        assert!(waits.iter().all(|wait| (longest / 2..=longest).contains(wait)), "{attempt}: {waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{attempt}: {waits:?}");
    }
}

#[test]
fn a_work_on_disk_is_not_asked_for_again_unless_forced() {
    let newer = WORK.replace("deep", "deeper");
    let server = Server::new(vec![ok(WORK), ok(WORK), ok(&newer)]);
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("texts/plato");
    let mut events = Vec::new();
    let mut fetch = |ids: &[u32], force| {
        events.clear();
        let files = server.gutenberg().fetch(ids, &folder, force, |event| events.push(event)).unwrap();
        (files, events.clone())
    };
    let [seven, eight] = [7, 8].map(|id| folder.join(format!("pg{id}.txt")));
    assert_eq!(fetch(&[7], false), (vec![seven.clone()], vec![GutenbergEvent::Fetched(seven.clone(), WORK.len())]));
    let told = vec![GutenbergEvent::Cached(seven.clone()), GutenbergEvent::Fetched(eight.clone(), WORK.len())];
    assert_eq!(fetch(&[7, 8], false), (vec![seven.clone(), eight], told));
    assert_eq!(server.paths(), [FIRST, "/cache/epub/8/pg8.txt"]);
    fetch(&[7], true);
    assert_eq!(fs::read_to_string(&seven).unwrap(), newer);
    assert_eq!(server.paths().len(), 3);
}

#[test]
fn a_mirror_is_a_url() {
    for mirror in ["", "gutenberg.org", "ftp://gutenberg.org", "/srv/gutenberg"] {
        let folder = tempfile::tempdir().unwrap();
        let gutenberg = Gutenberg { mirror: mirror.to_owned(), ..Gutenberg::default() };
        let error = gutenberg.fetch(&[7], folder.path(), false, |_| ()).unwrap_err().to_string();
        assert!(error.contains(&format!("mirror `{mirror}`: is no http")) && error.contains("hint:"), "{error}");
    }
}
