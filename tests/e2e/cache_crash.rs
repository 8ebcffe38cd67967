//! weir is killed while it fills its stores on disk and in Redis, again and again, and started on what it has left: no
//! response is ever anything but what an origin has sent, and a head never stands before another one's body.
//!
//! `cargo xtask crash` does it more often. What is not tried here is a crash of the machine; that files are cut off or
//! zeroed, as that may leave them, is.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use weir_tests::folder::files;
use weir_tests::http::Answer;
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::redis::Redis;
use weir_tests::weir::{SOON, Weir, eventually};

/// How often weir is killed, unless WEIR_CRASH_POINTS says so.
const POINTS: u64 = 15;

/// Paths asked for; of each three in a row one is small, one of medium size, one too large for memory.
const PATHS: u64 = 60;

const CLIENTS: u64 = 4;

/// A point is somewhere in this time, in milliseconds.
const LONGEST: u64 = 300;

/// Which of its versions an origin sends; the later, the higher.
static VERSION: AtomicU64 = AtomicU64::new(1);

#[test]
fn whenever_weir_is_killed_what_is_stored_is_right() {
    let points = std::env::var("WEIR_CRASH_POINTS").map_or(POINTS, |text| text.parse().expect("a number"));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    println!("seed {seed}, {points} points");
    let mut chance = Pattern::new(seed);
    let (folder, redis, origin) = (TempDir::new().expect("a folder"), Redis::start(), origin());
    let mut sum = Sum::default();
    for point in 0..points {
        let weir = start(folder.path(), &redis);
        let harmed = point % 3 == 2;
        let after = Duration::from_millis(chance.number(LONGEST));
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let chance = Pattern::new(seed ^ (point * CLIENTS + number));
                    let (proxy, origin) = (weir.proxy, origin.address);
                    scope.spawn(move || fill(proxy, origin, chance))
                })
                .collect();
            std::thread::sleep(after);
            weir.signal(Signal::SIGKILL);
            sum.answers +=
                clients.into_iter().map(|client| client.join().expect("right answers")).sum::<u64>();
        });
        drop(weir);
        if harmed {
            sum.harmed += harm(folder.path(), &mut chance);
        }
        sum.add(&check(folder.path(), &redis, origin.address, harmed));
        VERSION.fetch_add(1, Ordering::SeqCst);
    }
    println!("{sum:?}");
    assert!(
        sum.disk > points && sum.redis > 0 && sum.large > 0,
        "too little was found to say anything: {sum:?}"
    );
}

#[derive(Debug, Default)]
struct Sum {
    /// Whole answers while weir was about to be killed.
    answers: u64,
    /// Answers from what a killed weir had stored: in all, from disk, from Redis, too large for memory.
    hits: u64,
    disk: u64,
    redis: u64,
    large: u64,
    /// Files that were harmed, and what was found to be.
    harmed: u64,
    damaged: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.disk += other.disk;
        self.redis += other.redis;
        self.large += other.large;
        self.damaged += other.damaged;
    }
}

fn start(folder: &Path, redis: &Redis) -> Weir {
    Weir::explicit(&format!(
        "cache: {{enabled: true, max_memory: 16MiB, max_object: 256KiB, \
         disk: {{path: '{}', max_size: 400MB, max_object: 50MB}}, \
         redis: {{url: '{}', timeout: 1s, max_object: 256KiB, compression: zstd}}}}\n\
         server: {{workers: 2}}\nlogging: {{access: false}}",
        folder.display(),
        redis.url()
    ))
}

fn origin() -> Origin {
    Origin::start(|request: &Request| {
        let path = request.head.split(' ').nth(1).unwrap_or_default();
        let version = VERSION.load(Ordering::SeqCst);
        let body = content(path, version);
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nX-Content: {path} {version}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    })
}

/// What is found at `/LENGTH/NUMBER`.
fn content(path: &str, version: u64) -> Vec<u8> {
    let mut numbers = path.split('/').skip(1).map(|number| number.parse::<u64>().unwrap_or(0));
    let (length, number) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Pattern::bytes(version << 32 | number, usize::try_from(length).expect("a length"))
}

fn path(number: u64) -> String {
    let length = match number % 3 {
        0 => 100 * number,
        1 => 4_000 * number,
        _ => 400_000 + 50_000 * number,
    };
    format!("/{length}/{number}")
}

/// Asks for this and that until weir is gone. Returns how many whole answers there were.
fn fill(proxy: SocketAddr, origin: SocketAddr, mut chance: Pattern) -> u64 {
    let mut answers = 0;
    loop {
        let path = path(chance.number(PATHS));
        // Some is removed again, and some fetched anew.
        let (method, fields) = match chance.number(20) {
            0 => ("DELETE", ""),
            1..4 => ("GET", "Cache-Control: no-cache\r\n"),
            _ => ("GET", ""),
        };
        match ask(proxy, origin, (method, &path), fields) {
            Some(answer) if method == "GET" => is_right(&path, &answer),
            Some(_) => {}
            None => return answers,
        }
        answers += 1;
    }
}

/// None: weir is gone, or was before the answer was whole.
fn ask(proxy: SocketAddr, origin: SocketAddr, (method, path): (&str, &str), fields: &str) -> Option<Answer> {
    let mut client = TcpStream::connect(proxy).ok()?;
    client.set_read_timeout(Some(SOON)).ok()?;
    write!(client, "{method} http://{origin}{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").ok()?;
    read_answer(&mut client, method).ok()
}

#[track_caller]
fn is_right(path: &str, answer: &Answer) {
    assert_eq!(answer.status, 200, "{path}: {}", answer.head);
    let of = answer.field("x-content").unwrap_or_else(|| panic!("{path}: {}", answer.head));
    let (of, version) = of.split_once(' ').expect("a path and a version");
    assert_eq!(of, path);
    let expected = content(path, version.parse().expect("a version"));
    assert!(
        answer.body == expected,
        "{path}: {} bytes instead of {}: {}",
        answer.body.len(),
        expected.len(),
        answer.head
    );
}

/// Asks for everything that is stored.
fn check(folder: &Path, redis: &Redis, origin: SocketAddr, harmed: bool) -> Sum {
    let weir = start(folder, redis);
    let number = |store: &str, name: &str| weir.metric(&format!("cache_store_{name}{{store=\"{store}\"}}"));
    eventually("the stores found again", || {
        (number("disk", "up") + number("redis", "up") == 2).then_some(())
    });
    let mut sum = Sum::default();
    for number in 0..PATHS {
        let path = path(number);
        let answer = ask(weir.proxy, origin, ("GET", &path), "Cache-Control: only-if-cached\r\n");
        match answer {
            Some(answer) if answer.status == 504 => {}
            Some(answer) => {
                is_right(&path, &answer);
                sum.hits += 1;
                sum.large += u64::from(number % 3 == 2);
            }
            None => assert!(harmed, "{path}: cut off, or no answer at all"),
        }
    }
    (sum.disk, sum.redis) = (number("disk", "hits_total"), number("redis", "hits_total"));
    sum.damaged = number("disk", "damaged_total") + number("redis", "damaged_total");
    assert!(harmed || sum.damaged == 0, "{sum:?}");
    let unfinished = folder.join("tmp");
    eventually("nothing left of what was not finished", || {
        // What Redis had is written to disk meanwhile.
        (std::fs::read_dir(&unfinished).map_or(0, Iterator::count) == 0).then_some(())
    });
    sum
}

/// Cuts off or zeroes some files, as a crash of the machine may leave them. Returns how many.
fn harm(folder: &Path, chance: &mut Pattern) -> u64 {
    let files = files(folder);
    if files.is_empty() {
        return 0;
    }
    for _ in 0..3 {
        let path = &files[chance.number(files.len() as u64) as usize];
        let mut bytes = std::fs::read(path).expect("a file");
        let at = chance.number(bytes.len() as u64 + 1) as usize;
        match chance.number(2) {
            0 => bytes.truncate(at),
            _ => bytes[at..].fill(0),
        }
        std::fs::write(path, bytes).expect("a file");
    }
    3
}
