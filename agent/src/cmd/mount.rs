//! `mount`: until Ctrl-C, SIGTERM, or somebody unmounts.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use domain::SnapshotId;
use serde::Serialize;
use vault::snapshot::Reader;

use super::{Mount, open};
use crate::{
    mount::{Dated, Left, Library, LibraryError, View, mount, prepare},
    output::{Exit, Output, plain},
    pipeline::{member::Member, source::Caching},
};

/// The snapshots of this machine, by the control plane and the store.
struct Platform {
    member: Member,
    runtime: tokio::runtime::Handle,
}

impl Library for Platform {
    fn list(&self) -> Result<Vec<Dated>, LibraryError> {
        let call = self.member.control.snapshots(self.member.identity.workload_id);
        let all = self.runtime.block_on(call).map_err(|error| LibraryError(error.to_string()))?;
        let dated = all.into_iter();
        Ok(dated
            .map(|snapshot| Dated { id: snapshot.id, committed_at: snapshot.committed_at })
            .collect())
    }

    fn open(&self, id: SnapshotId) -> Result<Arc<Reader>, LibraryError> {
        let opened = self.runtime.block_on(async {
            let snapshot = self.member.control.snapshot(id).await?;
            open::reader(&self.member, &snapshot, Caching::Use).await
        });
        opened.map_err(|error| LibraryError(format!("{error:#}")))
    }
}

#[derive(Serialize)]
struct Told {
    mounted: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<SnapshotId>,
    snapshots: usize,
}

pub async fn run(member: Member, args: Mount, output: &Output) -> Result<Exit> {
    let prepared = prepare(&args.dir)?;
    let point = prepared.path.clone();
    let shown = plain(&point.display().to_string());
    if prepared.cleaned {
        output.note(format_args!("{shown}: the mount of an agent that was killed is taken away"));
    }
    let only = match &args.snapshot {
        Some(text) => Some(open::find(&member, text).await?.id),
        None => None,
    };
    let library = Platform { member, runtime: tokio::runtime::Handle::current() };
    let allow_other = args.allow_other;
    let stop = super::daemon::stop_signal();
    let (mounted, snapshots) = open::blocking(move || {
        let view = View::new(Box::new(library), only);
        let snapshots = view.check()?;
        Ok((mount(view, &point, allow_other)?, snapshots))
    })
    .await?;
    if output.is_json() {
        output.json(&Told { mounted: shown.clone(), snapshot_id: only, snapshots });
    } else {
        output.line(format_args!(
            "{shown}: {}, read-only. Ctrl-C, or umount {shown}, ends it.",
            match only {
                Some(id) => id.to_string(),
                None => format!("{snapshots} snapshots by date, and latest"),
            }
        ));
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = ticks.tick() => if mounted.has_ended() { break },
        }
    }
    let left = open::blocking(move || Ok(mounted.leave()?)).await?;
    if left == Left::Detached {
        output.note(format_args!("{shown}: unmounted while in use; whoever was in it gets errors"));
    }
    Ok(Exit::Good)
}
