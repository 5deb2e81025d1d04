//! The main job.
use std::path::Path;
use crate::{commands::dev::Job, dev::manifest::Manifest};
pub async fn run(_state: &Path, _manifest: &Manifest, _job: &Job) -> anyhow::Result<()> {
    Ok(())
}
