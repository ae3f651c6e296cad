//! Downloads from a server in this process that speaks the hub's API.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use sha2::{Digest as _, Sha256};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository `plato/tiny`, and how its server misbehaves.
#[derive(Default)]
struct Site {
    files: HashMap<String, Vec<u8>>,
    /// Bytes after which the connection is cut, each time.
    cut_after: Option<usize>,
    /// Whether the rest of a file is sent, or all of it again.
    no_ranges: bool,
    /// Announced in place of the right hash.
    wrong_hash: bool,
    /// Only with this token.
    token: Option<String>,
    /// The first line and the headers of each request.
    heard: Vec<String>,
}

struct Server {
    site: Arc<Mutex<Site>>,
    endpoint: String,
}

impl Server {
    fn start(site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let site = Arc::new(Mutex::new(site));
        let shared = site.clone();
        thread::spawn(move || listener.incoming().for_each(|stream| answer(&shared, stream.unwrap())));
        Self { site, endpoint }
    }

    fn heard(&self, of: &str) -> usize {
        self.site.lock().unwrap().heard.iter().filter(|request| request.contains(of)).count()
    }

    /// Requests for the rest of a stored file from a byte on.
    fn continued_from(&self, byte: usize) -> usize {
        let site = self.site.lock().unwrap();
        let range = format!("Range: bytes={byte}-\r\n");
        site.heard.iter().filter(|request| request.starts_with("GET /store/") && request.contains(&range)).count()
    }
}

fn sha256(bytes: &[u8]) -> String {
    elenchus_lm::hex(&Sha256::digest(bytes))
}

/// One request on one connection; the hub stores large files elsewhere, here under `/store/`.
fn answer(site: &Mutex<Site>, mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap_or(0) > 0 {}
    let mut site = site.lock().unwrap();
    site.heard.push(request.clone());
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut send = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        // The client may have left.
        let _ = stream.write_all(head.as_bytes());
        let body = if method == "HEAD" { &[] } else { body };
        let _ = stream.write_all(
            &body[..site.cut_after.filter(|_| path.contains("/store/")).unwrap_or(usize::MAX).min(body.len())],
        );
    };
    let is_allowed =
        site.token.as_ref().is_none_or(|token| request.contains(&format!("Authorization: Bearer {token}\r\n")));
    if path.contains("/gated/") || !is_allowed {
        return send("401 Unauthorized", "X-Error-Message: Access to model plato/gated is restricted.\r\n", b"");
    }
    if path.starts_with("/api/models/plato/renamed/") || path.starts_with("/api/models/plato/tiny/revision/") {
        let siblings: Vec<_> = site.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let info = serde_json::json!({ "id": "plato/tiny", "sha": COMMIT, "siblings": siblings });
        return send("200 OK", "", info.to_string().as_bytes());
    }
    if let Some(file) = path.strip_prefix(&format!("/plato/renamed/resolve/{COMMIT}/")) {
        return send("307 Temporary Redirect", &format!("Location: /plato/tiny/resolve/{COMMIT}/{file}\r\n"), b"");
    }
    let resolved = path.strip_prefix(&format!("/plato/tiny/resolve/{COMMIT}/"));
    let stored = path.strip_prefix("/store/");
    let Some(body) = resolved.or(stored).and_then(|file| site.files.get(file)) else {
        return send("404 Not Found", "X-Error-Message: Repository not found\r\n", b"");
    };
    if let Some(file) = resolved {
        let hash = if site.wrong_hash { sha256(b"something else") } else { sha256(body) };
        if file.ends_with(".json") {
            // Small files are sent at once, with git's hash.
            return send("200 OK", "ETag: \"9daeafb9864cf43055ae93beb0afd6c7d144bfa4\"\r\n", body);
        }
        let headers =
            format!("X-Linked-Etag: \"{hash}\"\r\nX-Linked-Size: {}\r\nLocation: /store/{file}\r\n", body.len());
        return send("302 Found", &headers, b"");
    }
    let range =
        request.lines().find_map(|line| line.strip_prefix("Range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match range.filter(|_| !site.no_ranges) {
        None => send("200 OK", "", body),
        Some(from) => {
            let headers = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
            send("206 Partial Content", &headers, &body[from..]);
        }
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 % 251) as u8).collect()
}

fn site(files: &[(&str, &[u8])]) -> Site {
    Site { files: files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect(), ..Site::default() }
}

fn hub(endpoint: &str, cache: &Path) -> Hub {
    Hub { endpoint: endpoint.to_owned(), pause: Duration::ZERO, ..Hub::new(cache.to_owned()) }
}

fn fetch(hub: &Hub, name: &str) -> Result<PathBuf> {
    hub.fetch(&name.parse().unwrap(), &mut |_| ())
}

fn left_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_downloaded_checked_and_then_used_without_a_network() {
    let (cache, model) = (tempfile::tempdir().unwrap(), bytes(300_000));
    let server = Server::start(site(&[("README.md", b"-"), ("tiny-Q4_K_M.gguf", &model), ("tiny-Q8_0.gguf", b"no")]));
    let online = hub(&server.endpoint, cache.path());
    let mut heard = Vec::new();
    let path = online.fetch(&"hf:plato/tiny".parse().unwrap(), &mut |progress| heard.push(progress)).unwrap();
    assert_eq!(path, cache.path().join("hf/plato/tiny/tiny-Q4_K_M.gguf"));
    assert!(fs::read(&path).unwrap() == model);
    assert!(
        heard.contains(&FetchProgress::Downloading(300_000, 300_000)) && heard.ends_with(&[FetchProgress::Verifying])
    );
    assert_eq!(left_in(path.parent().unwrap()), [PINNED, LOCK, "tiny-Q4_K_M.gguf"]);
    let offline = hub("http://127.0.0.1:9", cache.path());
    for name in ["hf:plato/tiny", "hf:plato/tiny/tiny-Q4_K_M.gguf"] {
        assert_eq!(fetch(&offline, name).unwrap(), path);
    }
    let error = fetch(&offline, "hf:plato/tiny/tiny-Q8_0.gguf").unwrap_err().to_string();
    for words in
        ["hf:plato/tiny/tiny-Q8_0.gguf: ", "not in the cache", "http://127.0.0.1:9 cannot be reached", "HF_ENDPOINT"]
    {
        assert!(error.contains(words), "{error:?} should hold {words:?}");
    }
    let cached = |name: &str, path: &Path| CachedModel { name: name.to_owned(), path: path.to_owned() };
    assert_eq!(offline.cached(), [cached("hf:plato/tiny", &path)]);
    // A second file comes from the commit of the first.
    let second = fetch(&online, "hf:plato/tiny/tiny-Q8_0.gguf").unwrap();
    assert_eq!(server.heard(&format!("/revision/{COMMIT} ")), 1);
    assert_eq!(offline.cached(), [cached("hf:plato/tiny", &path), cached("hf:plato/tiny/tiny-Q8_0.gguf", &second)]);
}

#[test]
fn a_cut_download_is_continued_where_it_ended() {
    let (cache, model) = (tempfile::tempdir().unwrap(), bytes(250_000));
    let server = Server::start(Site { cut_after: Some(100_000), ..site(&[("m.gguf", &model)]) });
    let hub = hub(&server.endpoint, cache.path());
    let path = fetch(&hub, "hf:plato/tiny").unwrap();
    assert!(fs::read(path).unwrap() == model);
    assert_eq!((server.continued_from(100_000), server.continued_from(200_000)), (1, 1));
}

#[test]
fn what_a_killed_download_left_is_continued_if_it_is_of_the_same_file() {
    let model = bytes(9000);
    let with_left = |etag: &str, expected: &str| {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("hf/plato/tiny");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("m.gguf.part"), &model[..4000]).unwrap();
        fs::write(folder.join("m.gguf.part.etag"), etag).unwrap();
        let server = Server::start(site(&[("m.gguf", &model)]));
        let path = fetch(&hub(&server.endpoint, cache.path()), "hf:plato/tiny/m.gguf").unwrap();
        assert!(fs::read(path).unwrap() == model);
        assert_eq!(server.continued_from(4000) == 1, expected == "continued", "{etag}");
        assert_eq!(left_in(&folder), [PINNED, LOCK, "m.gguf"]);
    };
    with_left(&sha256(&model), "continued");
    with_left(&sha256(b"an older version"), "again");
}

#[test]
fn a_server_that_sends_only_whole_files_is_asked_for_the_whole() {
    let (cache, model) = (tempfile::tempdir().unwrap(), bytes(9000));
    let folder = cache.path().join("hf/plato/tiny");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("m.gguf.part"), &model[..4000]).unwrap();
    fs::write(folder.join("m.gguf.part.etag"), sha256(&model)).unwrap();
    let server = Server::start(Site { no_ranges: true, ..site(&[("m.gguf", &model)]) });
    assert!(fs::read(fetch(&hub(&server.endpoint, cache.path()), "hf:plato/tiny").unwrap()).unwrap() == model);
}

#[test]
fn what_fails_says_why_and_leaves_no_model() {
    let model = bytes(9000);
    let check = |site: Site, name: &str, expected: &[&str]| {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(site);
        let error = fetch(&hub(&server.endpoint, cache.path()), name).unwrap_err().to_string();
        for words in expected {
            assert!(error.contains(words), "{error:?} should hold {words:?}");
        }
        let hub = hub(&server.endpoint, cache.path());
        assert!(hub.find(&name.parse().unwrap()).is_none() && hub.cached().is_empty());
        left_in(&cache.path().join("hf/plato/tiny"))
    };
    let good = || site(&[("m.gguf", &model)]);
    let wrong = Site { wrong_hash: true, ..good() };
    let expected = [sha256(&model), sha256(b"something else")];
    // Nothing of a damaged file is continued.
    let left = check(wrong, "hf:plato/tiny", &["is damaged", &expected[0], &expected[1], "try again"]);
    assert!(!left.iter().any(|name| name.ends_with(".part")), "{left:?}");
    check(good(), "hf:plato/nobody", &["hf:plato/nobody: ", "no such model", "Repository not found", "capitals"]);
    check(good(), "hf:plato/gated", &["status 401", "restricted", "set HF_TOKEN"]);
    check(good(), "hf:plato/tiny/other.gguf", &["no file `other.gguf`", "there are m.gguf"]);
    check(Site { cut_after: Some(0), ..good() }, "hf:plato/tiny", &["was cut", "continues where it ended"]);
    // Names come from the hub and become paths.
    let outside = site(&[("config.json", b"{}"), (INDEX, br#"{"weight_map":{"w":"../x.safetensors"}}"#)]);
    check(outside, "hf:plato/tiny", &["`../x.safetensors`"]).clear();
}

#[test]
fn a_token_opens_what_is_gated() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(Site { token: Some("hf_abc".to_owned()), ..site(&[("m.gguf", b"model")]) });
    let without = hub(&server.endpoint, cache.path());
    assert!(fetch(&without, "hf:plato/tiny").unwrap_err().to_string().contains("set HF_TOKEN"));
    let other = Hub { token: Some("hf_xyz".to_owned()), ..without.clone() };
    assert!(fetch(&other, "hf:plato/tiny").unwrap_err().to_string().contains("the token in HF_TOKEN may not read it"));
    let broken = Hub { token: Some("a\"\nurl=b".to_owned()), ..without.clone() };
    assert!(fetch(&broken, "hf:plato/tiny").unwrap_err().to_string().contains("no access token has"));
    fetch(&Hub { token: Some("hf_abc".to_owned()), ..without }, "hf:plato/tiny").unwrap();
}

#[test]
fn a_sharded_folder_comes_with_all_that_is_read_of_it() {
    let cache = tempfile::tempdir().unwrap();
    let index = br#"{"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors","c":"x-1.safetensors"}}"#;
    let files: [(&str, &[u8]); 6] = [
        ("config.json", b"{}"),
        ("tokenizer.json", b"{}"),
        (INDEX, index),
        ("x-1.safetensors", b"one"),
        ("x-2.safetensors", b"two"),
        ("README.md", b"-"),
    ];
    let server = Server::start(site(&files));
    let folder = fetch(&hub(&server.endpoint, cache.path()), "hf:plato/tiny").unwrap();
    assert_eq!(folder, cache.path().join("hf/plato/tiny"));
    let expected = [PINNED, LOCK, "config.json", INDEX, "tokenizer.json", "x-1.safetensors", "x-2.safetensors"];
    assert_eq!(left_in(&folder), expected);
    let offline = hub("http://127.0.0.1:9", cache.path());
    assert_eq!(fetch(&offline, "hf:plato/tiny").unwrap(), folder);
    fs::remove_file(folder.join("x-2.safetensors")).unwrap();
    assert!(offline.find(&"hf:plato/tiny".parse().unwrap()).is_none() && offline.cached().is_empty());
}

#[test]
fn a_renamed_repository_is_followed() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(site(&[("sub/m 1.gguf", b"model"), ("sub/m%201.gguf", b"model")]));
    let path = fetch(&hub(&server.endpoint, cache.path()), "hf:plato/renamed/sub/m 1.gguf").unwrap();
    assert_eq!(path, cache.path().join("hf/plato/renamed/sub/m 1.gguf"));
}

#[test]
fn of_two_processes_one_downloads() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(site(&[("m.gguf", &bytes(9000))]));
    let hub = hub(&server.endpoint, cache.path());
    thread::scope(|scope| {
        let other = scope.spawn(|| fetch(&hub, "hf:plato/tiny").unwrap());
        assert_eq!(fetch(&hub, "hf:plato/tiny").unwrap(), other.join().unwrap());
    });
    assert_eq!(server.heard("GET /store/m.gguf"), 1);
}

#[test]
fn names_of_models_are_checked() {
    let model = |name: &str| name.parse::<HubModel>();
    assert_eq!(model("hf:a/b/c/d.gguf").unwrap().to_string(), "hf:a/b/c/d.gguf");
    for name in
        ["a/b", "hf:", "hf:a", "hf:a/", "hf:a/b/", "hf:a/../b", "hf:a/b/..", "hf:a/b/.lock", "hf:a/b\\c", "hf:a/b:q"]
    {
        assert!(model(name).unwrap_err().contains("hf:OWNER/REPO"), "{name}");
    }
}
