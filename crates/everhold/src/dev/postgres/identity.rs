//! Under which user PostgreSQL runs.
//!
//! A normal user runs it as itself. Root runs it in a user namespace as nobody: outside, every file still
//! belongs to root, so nothing changes hands. Where namespaces are forbidden, `setpriv` and a change of
//! owner do it. A cluster made one way is always opened that way: the owner of its files says which.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::find::Binaries;

/// The id of `nobody`, which owns nothing.
pub const NOBODY: u32 = 65_534;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    Myself,
    /// `unshare -U --map-user=65534 --map-group=65534`.
    Namespace,
    /// `setpriv --reuid=65534 …`, with the folder given to that id.
    Setpriv,
}

impl RunAs {
    pub fn choose(data: &Path, binaries: &Binaries) -> anyhow::Result<Self> {
        let me = rustix::process::geteuid().as_raw();
        let owner = std::fs::symlink_metadata(data).ok().map(|facts| facts.uid());
        match (me, owner) {
            (0, Some(NOBODY)) => Ok(Self::Setpriv),
            (0, None | Some(0)) if Self::Namespace.works(binaries) => Ok(Self::Namespace),
            (0, None) if Self::Setpriv.works(binaries) => Ok(Self::Setpriv),
            (0, None | Some(0)) => bail!(
                "PostgreSQL refuses to run as root, and this machine offers neither user namespaces \
                 (unshare) nor setpriv to root: start as a normal user"
            ),
            (me, Some(owner)) if me != owner => bail!(
                "{} belongs to user {owner}, not to you ({me}): start as that user, or choose another \
                 state folder",
                data.display()
            ),
            _ => Ok(Self::Myself),
        }
    }

    pub fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Myself => return Command::new(program),
            Self::Namespace => {
                let mut unshare = Command::new("unshare");
                unshare.args(["-U", "--map-user=65534", "--map-group=65534"]);
                unshare
            }
            Self::Setpriv => {
                let mut setpriv = Command::new("setpriv");
                setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
                setpriv
            }
        };
        command.arg(program);
        command
    }

    /// Lets the server's id write into `folder`; only `setpriv` needs that.
    pub fn give(self, folder: &Path) -> anyhow::Result<()> {
        if self == Self::Setpriv {
            std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))
                .with_context(|| format!("cannot give {} to nobody", folder.display()))?;
        }
        Ok(())
    }

    fn works(self, binaries: &Binaries) -> bool {
        self.command(&binaries.tool("postgres"))
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}
