//! A proxy that stands before a real server and makes single requests go wrong.
//!
//! Owns faults between real programs: it speaks enough HTTP/1.1 to see every request, forwards it untouched (signatures
//! stay valid as long as the server is told the proxy's address as its own) and, where a [`Rule`] says so, delays,
//! cuts, swallows, replaces or damages. It knows nothing of S3 or of our API. Threads of `std` only: it serves sync and
//! async tests, in and out of runtimes.
//!
//! ```no_run
//! use testkit::proxy::{Fault, FaultProxy, Rule};
//! # fn example(store: std::net::SocketAddr) -> std::io::Result<()> {
//! let proxy = FaultProxy::before(store)?;                  // give `proxy.url()` to the platform as its store
//! let put = |request: &testkit::proxy::Request| request.method == "PUT" && request.is_presigned();
//! proxy.add(Rule::new(Fault::LoseAnswer).when(put).skip(1).times(2)); // the second and the third PUT of an agent
//! // … a backup …
//! assert_eq!(proxy.struck(), 2);                           // faults that were carried out
//! println!("{}", proxy.count(put));                        // requests of that kind so far: points to enumerate
//! proxy.clear();
//! # Ok(()) }
//! ```
//!
//! For the embedded store as a process of its own see `tests/e2e/faulty.rs` (`everhold devstore` behind the proxy,
//! `everhold dev --store FILE` before it); a proxy before the control plane works the same (enrol at its address).

mod carry;
mod http;

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use http::Request;

/// What happens to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed; the server never hears of the request.
    Refuse,
    /// The request's body is read, the server never hears of it, and this is the answer.
    Answer { status: u16, content_type: &'static str, body: String },
    /// So many bytes of the request's body reach the server, then both connections are cut.
    CutRequest { after: u64 },
    /// The server carries the request out; its answer is dropped and the connection cut: a lost acknowledgement.
    LoseAnswer,
    /// The server carries the request out; the caller hears this instead.
    ReplaceAnswer { status: u16, content_type: &'static str, body: String },
    /// The answer's head and so many bytes of its body, then the connection is cut.
    CutAnswer { after: u64 },
    /// A whole and well-formed answer whose body is this short.
    ShortAnswer { length: u64 },
    /// One bit of the answer's body is turned, if it is that long.
    FlipBit { at: u64 },
    /// The request is read and forwarded after this long.
    Delay(Duration),
    /// The request is read; there is never an answer until the caller goes or the proxy ends.
    Stall,
    /// The request's body goes to the server at this many bytes a second.
    Slow { bytes_per_second: u64 },
}

impl Fault {
    /// S3's way of saying no.
    #[must_use]
    pub fn s3_error(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        Self::Answer { status, content_type: "application/xml", body }
    }
    /// What captive portals and sign-in pages answer.
    #[must_use]
    pub fn html_as_200() -> Self {
        let body = "<html><body>Please sign in to this network</body></html>".to_owned();
        Self::Answer { status: 200, content_type: "text/html", body }
    }
}

type Matcher = Box<dyn Fn(&Request) -> bool + Send>;

/// Which requests a fault strikes: every one that matches, after `skip`, `times` times (once unless told otherwise).
pub struct Rule {
    fault: Fault,
    when: Matcher,
    skip: usize,
    times: usize,
}

impl Rule {
    /// Strikes the next request once.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { fault, when: Box::new(|_| true), skip: 0, times: 1 }
    }
    #[must_use]
    pub fn when(mut self, matches: impl Fn(&Request) -> bool + Send + 'static) -> Self {
        self.when = Box::new(matches);
        self
    }
    /// Lets so many matching requests pass first.
    #[must_use]
    pub const fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }
    #[must_use]
    pub const fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }
    #[must_use]
    pub const fn for_ever(self) -> Self {
        self.times(usize::MAX)
    }
}

/// A request that came, and what was done to it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub request: Request,
    pub fault: Option<Fault>,
    /// What the server answered, whatever the caller heard; `None` when it did not, or was not asked.
    pub answered: Option<u16>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
}

pub(crate) struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    stop: AtomicBool,
    /// Told at the end; delays wait on it.
    ended: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the request and takes its fault: the first rule that still strikes. Gives the request's number too.
    fn decide(&self, request: &Request) -> (usize, Option<Fault>) {
        let mut state = self.state();
        let mut fault = None;
        for rule in &mut state.rules {
            if !(rule.when)(request) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 && fault.is_none() {
                rule.times = if rule.times == usize::MAX { rule.times } else { rule.times - 1 };
                fault = Some(rule.fault.clone());
            }
        }
        let seen = Seen { request: request.clone(), fault: fault.clone(), answered: None };
        state.seen.push(seen);
        (state.seen.len() - 1, fault)
    }

    fn answered(&self, number: usize, status: u16) {
        if let Some(seen) = self.state().seen.get_mut(number) {
            seen.answered = Some(status);
        }
    }

    /// Waits, but not beyond the proxy's end; whether it has ended.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.stop.load(Ordering::SeqCst) || left.is_zero() {
                return self.stop.load(Ordering::SeqCst);
            }
            let waited = self.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The proxy; stopped when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// On a free loopback port, before `upstream`.
    ///
    /// # Errors
    /// No free port.
    pub fn before(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::default(),
            stop: AtomicBool::new(false),
            ended: Condvar::new(),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    /// Adds a rule behind those there are.
    pub fn add(&self, rule: Rule) {
        self.shared.state().rules.push(rule);
    }
    /// Takes all rules away; what was seen stays.
    pub fn clear(&self) {
        self.shared.state().rules.clear();
    }
    /// Everything seen so far, in order of arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }
    /// Requests so far that match.
    #[must_use]
    pub fn count(&self, matches: impl Fn(&Request) -> bool) -> usize {
        self.shared.state().seen.iter().filter(|seen| matches(&seen.request)).count()
    }
    /// Faults carried out so far.
    #[must_use]
    pub fn struck(&self) -> usize {
        self.shared.state().seen.iter().filter(|seen| seen.fault.is_some()).count()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        {
            let _state = self.shared.state();
            self.shared.stop.store(true, Ordering::SeqCst);
        }
        self.shared.ended.notify_all();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        // A broken connection is the caller's to notice: that is what this is for.
        std::thread::spawn(move || carry::serve(&client, &shared));
    }
}
