//! The sign-in that is kept on this machine, and the client that speaks with it.
//!
//! A refresh token is good once, and using one twice ends the session: two commands at once take turns under a lock on
//! the file, and a fresh token is on disk before the old one's successor is used for anything. Access tokens are kept
//! for as long as they live, so that a row of commands rotates nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use api::{
    auth::{ChangePassword, Me, RevokeRequest, Tenant, TokenReply, TokenRequest},
    client::{Client, Identity},
};
use domain::{Clock as _, SystemClock, TenantId, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::args::{Kept, Login, Password};
use crate::commands::{Usage, say};

const SIGN_IN_FIRST: &str = "sign in first: everhold login --server URL --email NAME@EXAMPLE.COM";
/// An access token that lives no longer than this is not used any more.
const TOO_SHORT_S: u64 = 20;

/// Where the sign-in is kept.
struct Place(PathBuf);

/// What is kept, mode 0600.
#[derive(Serialize, Deserialize)]
struct Signed {
    server: String,
    /// Where the account lives.
    home: TenantId,
    refresh_token: String,
    access: Option<Access>,
}

#[derive(Serialize, Deserialize)]
struct Access {
    token: String,
    tenant_id: TenantId,
    expires_at: Timestamp,
}

impl Place {
    fn of(kept: &Kept) -> anyhow::Result<Self> {
        let folder = match (&kept.session, &kept.config_home, &kept.home) {
            (Some(file), ..) => return Ok(Self(file.clone())),
            (None, Some(config), _) => config.join("everhold"),
            (None, None, Some(home)) => home.join(".config/everhold"),
            (None, None, None) => {
                return Err(
                    Usage("say where the sign-in is kept: --session FILE".to_owned()).into()
                );
            }
        };
        Ok(Self(folder.join("session.json")))
    }

    /// Others wait until it is dropped.
    fn lock(&self) -> anyhow::Result<File> {
        let name = self.0.with_extension("lock");
        if let Some(folder) = self.0.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
        let file = file.with_context(|| format!("cannot open {}", name.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", name.display()))?;
        Ok(file)
    }

    fn read(&self) -> anyhow::Result<Signed> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Usage(SIGN_IN_FIRST.to_owned()).into());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.0.display()));
            }
        };
        serde_json::from_slice(&text).map_err(|_| {
            Usage(format!("{} is no sign-in of ours; {SIGN_IN_FIRST}", self.0.display())).into()
        })
    }

    fn write(&self, signed: &Signed) -> anyhow::Result<()> {
        let fresh = self.0.with_extension("new");
        let written = || -> std::io::Result<()> {
            let _ = fs::remove_file(&fresh);
            let mut file =
                OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
            file.write_all(&serde_json::to_vec(signed)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &self.0)
        };
        written().with_context(|| format!("cannot write {}", self.0.display()))
    }
}

/// Signs in and keeps it.
pub async fn login(args: &Login) -> anyhow::Result<ExitCode> {
    let place = Place::of(&args.kept)?;
    let server = args.server.trim_end_matches('/').to_owned();
    let password = match args.password_stdin {
        true => lines(1)?.remove(0),
        false => ask(&format!("Password of {}: ", args.email))?,
    };
    let client = Client::http(&server, Identity::Anonymous)?;
    let request = TokenRequest::Password { email: args.email.clone(), password, tenant_id: None };
    let reply: TokenReply = client.post("/v1/auth/token", &request).await?;
    let me: Me =
        client.with_identity(Identity::Bearer(reply.access_token.clone())).get("/v1/me").await?;
    let _lock = place.lock()?;
    place.write(&Signed {
        server,
        home: me.home_tenant_id,
        refresh_token: reply.refresh_token.clone(),
        access: Some(access(reply, me.tenant.id)),
    })?;
    say(format_args!("signed in as {} of {}", me.email, me.tenant.name))?;
    Ok(ExitCode::SUCCESS)
}

/// Changes the password of who is signed in, and keeps the sign-in that follows.
pub async fn password(args: &Password) -> anyhow::Result<ExitCode> {
    let (current, new) = if args.password_stdin {
        let mut said = lines(2)?;
        (said.remove(0), said.remove(0))
    } else {
        let (current, new) = (ask("Current password: ")?, ask("New password: ")?);
        if ask("New password, once more: ")? != new {
            return Err(
                Usage("the two new passwords differ; nothing was changed".to_owned()).into()
            );
        }
        (current, new)
    };
    let place = Place::of(&args.kept)?;
    let _lock = place.lock()?;
    let mut signed = place.read()?;
    let home = signed.home;
    let session = signed.enter(&place, home).await?;
    let reply: TokenReply =
        session.post("/v1/me/password", &ChangePassword { current, new }).await?;
    signed.refresh_token.clone_from(&reply.refresh_token);
    signed.access = Some(access(reply, home));
    place.write(&signed)?;
    say("the password is changed; every other sign-in has ended")?;
    Ok(ExitCode::SUCCESS)
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    rpassword::prompt_password(prompt)
        .context("cannot ask for a password here; hand it over with --password-stdin")
}

/// So many lines of standard input.
fn lines(wanted: usize) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.len() < wanted {
        return Err(Usage(format!("{wanted} lines are wanted on standard input")).into());
    }
    Ok(lines)
}

/// Ends the session, here and at the server.
pub async fn logout(kept: &Kept) -> anyhow::Result<ExitCode> {
    let place = Place::of(kept)?;
    let _lock = place.lock()?;
    let signed = place.read()?;
    // First here: what cannot be reached must not keep a token on this machine.
    fs::remove_file(&place.0)?;
    let client = Client::http(&signed.server, Identity::Anonymous)?;
    let request = RevokeRequest { refresh_token: signed.refresh_token };
    client.post::<_, ()>("/v1/auth/revoke", &request).await.context(
        "the sign-in is removed from this machine, but the server was not told and keeps it for up to 30 days",
    )?;
    say("signed out")?;
    Ok(ExitCode::SUCCESS)
}

fn access(reply: TokenReply, tenant_id: TenantId) -> Access {
    let lives = std::time::Duration::from_secs(u64::from(reply.expires_in));
    Access { token: reply.access_token, tenant_id, expires_at: SystemClock.now() + lives }
}

/// A signed-in person, acting in one tenant.
pub struct Session {
    client: Client,
    pub tenant: TenantId,
}

impl Session {
    /// Speaks for who signed in, in their own tenant or in the one named (by its id or name).
    ///
    /// # Errors
    /// [`Usage`] when nobody signed in, or there is no such tenant.
    pub async fn open(kept: &Kept, tenant: Option<&str>) -> anyhow::Result<Self> {
        let place = &Place::of(kept)?;
        let _lock = place.lock()?;
        let mut signed = place.read()?;
        let home = signed.home;
        let Some(name) = tenant else { return signed.enter(place, home).await };
        if let Ok(id) = name.parse::<TenantId>() {
            return signed.enter(place, id).await;
        }
        let at_home = signed.enter(place, home).await?;
        let tenants: Vec<Tenant> = super::all(&at_home, "/v1/tenants").await?;
        let found = super::find("tenant", &tenants, name, |t| t.id.to_string(), |t| &t.name)?;
        if found.id == home { Ok(at_home) } else { signed.enter(place, found.id).await }
    }

    /// A path of the tenant: `/v1/tenants/{tenant_id}/…`.
    pub fn path(&self, rest: impl std::fmt::Display) -> String {
        format!("/v1/tenants/{}/{rest}", self.tenant)
    }
    pub async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, api::client::Error> {
        self.client.get(path).await
    }
    pub async fn post<B: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<R, api::client::Error> {
        self.client.post(path, body).await
    }
    pub async fn put<B: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<R, api::client::Error> {
        self.client.put(path, body).await
    }
    pub async fn delete(&self, path: &str) -> Result<(), api::client::Error> {
        self.client.delete(path).await
    }
}

impl Signed {
    /// A client that acts in `tenant`. What the server gave is kept before it is used.
    async fn enter(&mut self, place: &Place, tenant: TenantId) -> anyhow::Result<Session> {
        let anonymous = Client::http(&self.server, Identity::Anonymous)?;
        if let Some(access) = &self.access
            && access.expires_at.since(SystemClock.now()).as_secs() > TOO_SHORT_S
            && access.tenant_id == tenant
        {
            let client = anonymous.with_identity(Identity::Bearer(access.token.clone()));
            return Ok(Session { client, tenant });
        }
        let request = TokenRequest::RefreshToken {
            refresh_token: self.refresh_token.clone(),
            tenant_id: Some(tenant),
        };
        let reply: TokenReply = match anonymous.post("/v1/auth/token", &request).await {
            Ok(reply) => reply,
            // Expired, ended elsewhere, or of a platform that was set up anew.
            Err(error) if error.code().is_some_and(|code| code.status() == 401) => {
                return Err(Usage(format!("{error}; {SIGN_IN_FIRST}")).into());
            }
            Err(error) => return Err(error.into()),
        };
        self.refresh_token.clone_from(&reply.refresh_token);
        let client = anonymous.with_identity(Identity::Bearer(reply.access_token.clone()));
        self.access = Some(access(reply, tenant));
        place.write(self)?;
        Ok(Session { client, tenant })
    }
}
