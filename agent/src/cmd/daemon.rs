//! `daemon`: waits for runs and carries them out, one at a time, until told to stop.
//!
//! A control plane that is away is waited for, however long. SIGTERM and SIGINT end the run under way
//! at a safe point (it is told as canceled) and then the daemon.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Result, anyhow};
use api::scheduler::Assignment;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Share, backup};
use crate::{
    control::{pause, retryable},
    output::{Exit, Output, plain},
    pipeline::{
        backup::{Watch, bury_predecessor, execute, refuse},
        member::Member,
    },
};

/// Seconds one long poll waits.
const WAIT_S: u32 = 30;

/// Resolves at SIGTERM or SIGINT.
pub async fn stop_signal() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process as they always did.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

pub async fn run(member: Member, share: &Share, output: &Output) -> Result<Exit> {
    let member = Arc::new(member);
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            stop_signal().await;
            stop.cancel();
        }
    });
    if let Ok(_lock) = member.home.lock_for_run() {
        bury_predecessor(&member).await;
    }
    output.note(format_args!("waiting for runs from {}", member.identity.server));
    let mut failures = 0;
    while !stop.is_cancelled() {
        let polled = tokio::select! {
            () = stop.cancelled() => break,
            polled = member.control.poll_lease(WAIT_S) => polled,
        };
        match polled {
            Ok(Some(assignment)) => {
                failures = 0;
                carry_out(&member, assignment, share, &stop, output).await;
            }
            Ok(None) => failures = 0,
            Err(error) if retryable(&error) => {
                failures += 1;
                if failures == 1 {
                    output.note(format_args!("{error}; waiting for it to come back"));
                }
                let pause = pause(failures, member.control.world().ids.as_ref());
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            // Revoked or unknown: waiting would not help.
            Err(error) => return Err(error.into()),
        }
    }
    output.note("stopped");
    Ok(Exit::Good)
}

async fn carry_out(
    member: &Arc<Member>,
    assignment: Assignment,
    share: &Share,
    stop: &CancellationToken,
    output: &Output,
) {
    let run = assignment.run.id;
    output.note(format_args!("{run}: started"));
    match attempt(member, &assignment, share, stop).await {
        Ok(done) => {
            for warning in &done.warnings {
                output.note(format_args!("{run}: warning: {}", plain(warning)));
            }
            output.note(format_args!("{run}: {} as {}", done.status, done.snapshot_id));
        }
        Err(error) => output.note(format_args!("{run}: {error:#}")),
    }
}

async fn attempt(
    member: &Arc<Member>,
    assignment: &Assignment,
    share: &Share,
    stop: &CancellationToken,
) -> Result<crate::pipeline::backup::Done> {
    let prepared = prepare(member, assignment, share);
    let (plan, _lock) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            refuse(member, assignment, &error.to_string()).await;
            return Err(error);
        }
    };
    let watch = Watch { cancel: stop.child_token(), ..Watch::default() };
    Ok(execute(member, plan, assignment, &watch).await?)
}

fn prepare(
    member: &Member,
    assignment: &Assignment,
    share: &Share,
) -> Result<(crate::pipeline::backup::Plan, crate::state::RunLock)> {
    let source = assignment.run.source.clone();
    if source.paths.iter().any(|path| !path.starts_with('/')) {
        return Err(anyhow!("a run from the portal names absolute paths only"));
    }
    let paths: Vec<PathBuf> = source.paths.iter().map(PathBuf::from).collect();
    let plan = backup::plan(&member.home, &paths, source, std::path::Path::new("/"), share)?;
    Ok((plan, member.home.lock_for_run()?))
}
