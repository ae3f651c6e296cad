//! An HTTP server of a few lines that fails in every way a server can.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// What one connection is answered with.
pub struct Reply {
    bytes: Vec<u8>,
    silence: Duration,
    /// The pause before every byte behind the first ones.
    trickle: Duration,
    at_once: usize,
}

/// A request as it arrived.
pub struct Heard {
    /// How many came before.
    pub number: usize,
    pub head: String,
    pub body: Value,
}

pub struct Server {
    /// Up to `/v1`.
    pub url: String,
    pub heard: Arc<Mutex<Vec<Arc<Heard>>>>,
    /// Requests that were under way together, at most.
    pub most_at_once: Arc<AtomicUsize>,
}

impl Heard {
    /// What the user's message says.
    pub fn question(&self) -> &str {
        self.body["messages"][1]["content"].as_str().unwrap()
    }
}

impl Reply {
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), silence: Duration::ZERO, trickle: Duration::ZERO, at_once: 0 }
    }

    pub fn status(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let (length, body) = (body.as_ref().len(), body.as_ref());
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        Self::raw([head.as_bytes(), body].concat())
    }

    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status("200 OK", "Content-Type: application/json\r\n", body)
    }

    /// A completion that says these words and took 20 and 3 tokens.
    pub fn words(words: &str) -> Self {
        Self::ended(words, "stop")
    }

    pub fn ended(words: &str, finish_reason: &str) -> Self {
        Self::completion(&json!({
            "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": words}}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
        }))
    }

    pub fn completion(body: &Value) -> Self {
        Self::ok(body.to_string())
    }

    /// The same, broken off before its last bytes.
    pub fn cut(mut self) -> Self {
        self.bytes.truncate(self.bytes.len() - 9);
        self
    }

    pub fn after(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    pub fn trickled(self, trickle: Duration) -> Self {
        Self { trickle, ..self }
    }

    /// Trickled from its body on.
    pub fn body_only(mut self) -> Self {
        let end = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        self.at_once = end.unwrap() + 4;
        self
    }
}

impl Server {
    /// A server whose replies a function gives. It lives as long as the test's process.
    pub fn new(reply: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (heard, most_at_once) = (Arc::default(), Arc::<AtomicUsize>::default());
        let server = Self { url, heard: Arc::clone(&heard), most_at_once: Arc::clone(&most_at_once) };
        let (reply, at_once) = (Arc::new(reply), Arc::<AtomicUsize>::default());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (heard, reply) = (Arc::clone(&heard), Arc::clone(&reply));
                let (at_once, most_at_once) = (Arc::clone(&at_once), Arc::clone(&most_at_once));
                thread::spawn(move || {
                    // Clients open connections and may leave them.
                    let Some((mut stream, head, body)) = stream.ok().and_then(read) else { return };
                    most_at_once.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let body = serde_json::from_slice(&body).expect("requests are JSON");
                    let one = {
                        let mut heard = heard.lock().unwrap();
                        let one = Arc::new(Heard { number: heard.len(), head, body });
                        heard.push(Arc::clone(&one));
                        one
                    };
                    let reply = reply(&one);
                    thread::sleep(reply.silence);
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    // Nobody may listen any longer.
                    let first = if reply.trickle.is_zero() { reply.bytes.len() } else { reply.at_once };
                    let _ = stream.write_all(&reply.bytes[..first]);
                    for byte in &reply.bytes[first..] {
                        thread::sleep(reply.trickle);
                        if stream.write_all(&[*byte]).is_err() {
                            return;
                        }
                    }
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        server
    }

    /// The same words to everybody.
    pub fn saying(words: &'static str) -> Self {
        Self::new(move |_| Reply::words(words))
    }

    pub fn calls(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

/// An address without a server.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/v1", listener.local_addr().unwrap())
}

/// A request's head and body.
fn read(mut stream: TcpStream) -> Option<(TcpStream, String, Vec<u8>)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).ok()?;
    Some((stream, head, body))
}
