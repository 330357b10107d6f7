//! A small model with random weights and a byte-level tokenizer, a server of it on loopback, and a plain HTTP client.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use ff2_engine::{Engine, EngineOptions, Figures};
use ff2_model::{
    Model, ModelConfig, Weights,
    checkpoint::{self, Precision},
};
use ff2_server::{
    guard::{
        accounts::Accounts,
        keys::{KeyLimits, Keys},
    },
    http::{self, App},
    metrics::ServerMetrics,
    net::serve::{Connections, ServeOptions, serve},
    service::{Service, ServiceOptions},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const END: u32 = 256;
/// Control tokens behind the bytes, and words of several bytes.
const SPECIAL: [&str; 2] = ["<|end|>", "<|turn|>"];
const ADDED: [&str; 2] = ["<think>", "</think>"];
const MERGES: [[&str; 2]; 4] = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["i", "n"]];
const TEMPLATE: &str = "{% for message in messages %}<|turn|>{{ message.role }}: {{ message.content }}\n{% endfor %}\
                        {% if tools %}tools {{ tools | tojson }}\n{% endif %}\
                        {% if add_generation_prompt %}<|turn|>assistant: \
                        {% if thinking or 'think hard' in messages[-1].content %}<think>{% endif %}{% endif %}";

/// Writes a whole model: weights by a seed, tokenizer, template.
pub(crate) fn write_model(folder: &Path) {
    let vocab = 256 + SPECIAL.len() + ADDED.len() + MERGES.len();
    let reference =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/reference/v3/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(reference).unwrap()).unwrap();
    config["vocab_size"] = json!(vocab);
    config["eos_token_id"] = json!(END);
    config["max_position_embeddings"] = json!(1024);
    let config = ModelConfig::from_json(config).unwrap();
    let weights = Weights::random(&config, 7);
    checkpoint::write(&Model::new(config, weights), folder, Precision::F32, 1 << 30).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    let tokenizer_config = json!({"eos_token": {"content": SPECIAL[0]}, "chat_template": TEMPLATE});
    fs::write(folder.join("tokenizer_config.json"), tokenizer_config.to_string()).unwrap();
}

fn tokenizer() -> Value {
    let mut next = 256;
    let coded = (0..=255_u8).map(|byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap()
        }
    });
    let mut vocab: BTreeMap<String, usize> =
        coded.enumerate().map(|(id, c)| (c.to_string(), id)).collect();
    let first = 256 + SPECIAL.len() + ADDED.len();
    vocab.extend(MERGES.iter().enumerate().map(|(n, pair)| (pair.concat(), first + n)));
    let names =
        SPECIAL.iter().map(|name| (name, true)).chain(ADDED.iter().map(|name| (name, false)));
    let added = names.enumerate().map(|(n, (name, special))| {
        json!({"id": 256 + n, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": special})
    });
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": MERGES},
    })
}

/// How a test's server differs from the usual one.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) keys: Option<KeyLimits>,
    pub(crate) serve: ServeOptions,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) body_bytes_max: Option<usize>,
    pub(crate) body_timeout: Option<Duration>,
}

/// A running server. It ends with the test's process at the latest.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The text of its key, where it asks for one.
    pub(crate) key: Option<String>,
    pub(crate) engine: Engine,
    pub(crate) app: Arc<App>,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_model(folder.path());
        let model = Arc::new(ff2_server::load::model(folder.path()).unwrap());
        let engine = EngineOptions {
            block_tokens: 16,
            kv_bytes: 16 << 20,
            max_running: 8,
            max_waiting: options.max_waiting.unwrap_or(256),
            prefill_chunk: 64,
            threads: 1,
            ..EngineOptions::default()
        };
        let options_of_service = ServiceOptions {
            names: vec!["tiny".to_owned()],
            context: None,
            tells_use: false,
            engine,
        };
        let service = Arc::new(Service::open(folder.path(), model, options_of_service).unwrap());
        let mut key = None;
        let accounts = options.keys.map(|limits| {
            let (mut keys, accounts) = (Keys::default(), Accounts::default());
            key = Some(keys.add("test", limits).unwrap());
            accounts.load(&keys, &BTreeMap::new());
            Arc::new(accounts)
        });
        let connections = Arc::new(Connections::default());
        let engine = service.engine.clone();
        let metrics =
            ServerMetrics::new("tiny", engine.clone(), &service.metrics, connections.clone());
        let mut app = App::new(service, accounts, Arc::new(metrics));
        app.body.bytes_max = options.body_bytes_max.unwrap_or(app.body.bytes_max);
        app.body.timeout = options.body_timeout.unwrap_or(app.body.timeout);
        let app = Arc::new(app);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(
            listener,
            http::router(app.clone()),
            options.serve,
            None,
            connections,
            stop.clone(),
        ));
        Self { address, key, engine, app, stop, runtime: Some(runtime) }
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    pub(crate) fn post_bytes(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let answer = self.exchange("POST", path, body);
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let answer = self.exchange("GET", path, b"");
        (answer.status, answer.body)
    }

    /// The whole exchange, over HTTP/1.0, which sends no chunks.
    pub(crate) fn exchange(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut stream = self.send(method, path, body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Sends a request and reads nothing.
    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&self.head(method, path, body.len())).unwrap();
        stream.write_all(body).unwrap();
        stream
    }

    pub(crate) fn head(&self, method: &str, path: &str, len: usize) -> Vec<u8> {
        let key = self
            .key
            .as_ref()
            .map(|key| format!("Authorization: Bearer {key}\r\n"))
            .unwrap_or_default();
        format!("{method} {path} HTTP/1.0\r\nHost: x\r\n{key}Content-Length: {len}\r\n\r\n")
            .into_bytes()
    }

    /// The events of a streamed answer; the last must be `[DONE]`.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let answer = self.exchange("POST", path, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut events: Vec<&str> = answer.body.split_terminator("\n\n").collect();
        assert_eq!(events.pop(), Some("data: [DONE]"));
        events
            .iter()
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    /// Once nothing runs or waits any more; fails if that takes too long.
    pub(crate) fn idle(&self) -> Figures {
        self.until(|it| it.running == 0 && it.waiting == 0 && it.blocks_used == 0)
    }

    pub(crate) fn until(&self, is_so: impl Fn(&Figures) -> bool) -> Figures {
        let mut figures = self.engine.figures();
        for _ in 0..1000 {
            if is_so(&figures) {
                return figures;
            }
            std::thread::sleep(Duration::from_millis(10));
            figures = self.engine.figures();
        }
        panic!("it stays so: {figures:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}

/// The next event of a stream that is read as it comes.
pub(crate) fn next_event(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 0 {
        if let Some(event) = line.strip_prefix("data: ") {
            return Some(event.trim_end().to_owned());
        }
        line.clear();
    }
    None
}
