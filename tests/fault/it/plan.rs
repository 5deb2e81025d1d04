//! Which change of state is broken, and how: the one place that decides.
//!
//! Owns the count of operations and the fault at one of them. Invariant: an operation is known by its seam,
//! its name and its number among those of that name, so that the same point is met again in another run.
//! It must not know how an operation is carried out.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// Where operations pass by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seam {
    /// The agent's machine: journal, home, cache, restored files.
    Disk,
    /// The agent's requests to the control plane.
    Api,
    /// The agent's presigned requests.
    AgentStore,
    /// The server's commits.
    Sql,
    /// The server's own calls of the store.
    ServerStore,
}

impl Seam {
    pub const fn is_agent(self) -> bool {
        matches!(self, Self::Disk | Self::Api | Self::AgentStore)
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "agent's disk",
            Self::Api => "agent to control plane",
            Self::AgentStore => "agent to store",
            Self::Sql => "server's SQL",
            Self::ServerStore => "server to store",
        }
    }
}

/// One kind of operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op {
    pub seam: Seam,
    pub name: String,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.seam.as_str(), self.name)
    }
}

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The process dies before the operation takes effect.
    Kill,
    /// The process dies after it took effect, before it knows.
    KillAfter,
    /// Refused once: 503, a full disk, a broken connection.
    FailOnce,
    /// Refused once with 500.
    Fail500,
    /// Refused from here to the end of the run.
    FailForever,
    /// It takes effect; the answer is lost.
    LoseAck,
    /// It takes effect late.
    Delay,
    /// Half of what is sent arrives.
    Tear,
    /// Half of what is answered arrives, under a status of success.
    TearAnswer,
    /// A page of a captive portal, as 200.
    Html,
    /// No answer.
    Stall,
}

impl Fault {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill before",
            Self::KillAfter => "kill after",
            Self::FailOnce => "fail once",
            Self::Fail500 => "fail once, 500",
            Self::FailForever => "fail for ever",
            Self::LoseAck => "lose the answer",
            Self::Delay => "delay",
            Self::Tear => "tear the body",
            Self::TearAnswer => "tear the answer",
            Self::Html => "HTML page as 200",
            Self::Stall => "stall",
        }
    }

    /// What makes sense at an operation.
    pub fn at(op: &Op) -> Vec<Self> {
        use Fault::{
            Delay, Fail500, FailForever, FailOnce, Html, Kill, KillAfter, LoseAck, Stall, Tear,
            TearAnswer,
        };
        let is_read = op.name.starts_with("GET") || op.name.starts_with("HEAD");
        match op.seam {
            Seam::Disk if op.name.ends_with(": write") => {
                vec![Kill, FailOnce, FailForever, Delay, Tear]
            }
            Seam::Disk => vec![Kill, FailOnce, FailForever, Delay],
            Seam::Sql => vec![Kill, KillAfter, FailOnce, FailForever, LoseAck, Delay],
            // An answer without a body is not torn.
            Seam::ServerStore if op.name.starts_with("HEAD") => {
                vec![Kill, FailOnce, Fail500, FailForever, LoseAck, Delay, Html, Stall]
            }
            Seam::AgentStore | Seam::ServerStore if is_read => {
                vec![Kill, FailOnce, Fail500, FailForever, LoseAck, Delay, TearAnswer, Html, Stall]
            }
            Seam::Api | Seam::AgentStore | Seam::ServerStore => vec![
                Kill,
                KillAfter,
                FailOnce,
                Fail500,
                FailForever,
                LoseAck,
                Delay,
                Tear,
                TearAnswer,
                Html,
                Stall,
            ],
        }
    }
}

/// An operation of a run, and what is to happen there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub op: Op,
    /// From 1, among operations of that name.
    pub nth: u32,
    pub fault: Fault,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} no. {}", self.fault.as_str(), self.op, self.nth)
    }
}

/// What the seam does with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// Its process is dead: nothing happens and nobody hears of it.
    Dead,
    Do(Fault),
}

#[derive(Default)]
struct State {
    counts: BTreeMap<Op, u32>,
    point: Option<Point>,
    hit: bool,
    agent_dead: bool,
}

/// One life of the server.
pub struct Life(watch::Receiver<u64>);

impl Life {
    /// Waits for its end.
    pub async fn over(&mut self) {
        // The sender lives as long as the plan.
        let _ = self.0.changed().await;
    }
}

/// The plan of one run. Shared by every seam.
pub struct Plan {
    state: Mutex<State>,
    /// Counts the server's deaths: whoever works for it stops when this changes.
    lives: watch::Sender<u64>,
}

impl Plan {
    pub fn new() -> Self {
        Self { state: Mutex::default(), lives: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from nothing, with everybody alive; `point` is what to break, if anything.
    pub fn arm(&self, point: Option<Point>) {
        *self.state() = State { point, ..State::default() };
    }

    /// Whether the point was met since it was armed.
    pub fn was_hit(&self) -> bool {
        self.state().hit
    }

    /// What happened so often since it was armed.
    pub fn counts(&self) -> BTreeMap<Op, u32> {
        self.state().counts.clone()
    }

    pub fn ask(&self, op: &Op) -> Verdict {
        let mut state = self.state();
        if op.seam.is_agent() && state.agent_dead {
            return Verdict::Dead;
        }
        let count = state.counts.entry(op.clone()).or_default();
        *count += 1;
        let count = *count;
        let Some(point) = state.point.clone().filter(|point| point.op == *op) else {
            return Verdict::Pass;
        };
        let here = point.nth == count;
        state.hit |= here;
        drop(state);
        match point.fault {
            Fault::FailForever if count >= point.nth => Verdict::Do(Fault::FailForever),
            _ if !here => Verdict::Pass,
            Fault::Kill => {
                self.kill(op.seam);
                Verdict::Dead
            }
            fault => Verdict::Do(fault),
        }
    }

    /// The process on this side of the seam dies. The server is started again at once; the agent when
    /// the plan is armed anew.
    pub fn kill(&self, seam: Seam) {
        if seam.is_agent() {
            self.state().agent_dead = true;
        } else {
            self.lives.send_modify(|lives| *lives += 1);
        }
    }

    /// The server as it lives now.
    pub fn life(&self) -> Life {
        Life(self.lives.subscribe())
    }
}
