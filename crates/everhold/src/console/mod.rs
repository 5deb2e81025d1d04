//! What a person does with a platform from the command line: signs in once, then everything an administrator needs.
//!
//! Speaks the public API and nothing else, as any client could. Owns the words and tables people see; knows no role's
//! business. A thing is named by its id, or by its name where that is clear.

mod args;
mod fleet;
mod people;
mod policy;
mod run;
mod session;
mod table;

use std::process::ExitCode;

use api::Page;
use serde::{Serialize, de::DeserializeOwned};

use args::Common;
pub use args::Noun;
use session::Session;
use table::Table;

use crate::commands::{Usage, say};

pub async fn run(noun: &Noun) -> anyhow::Result<ExitCode> {
    match noun {
        Noun::Login(args) => return session::login(args).await,
        Noun::Logout { kept } => return session::logout(kept).await,
        Noun::Password(args) => return session::password(args).await,
        Noun::Session { common, command } => {
            let (session, out) = open(common).await?;
            people::session(&session, &out, command).await?;
        }
        Noun::Whoami { common } => {
            let (session, out) = open(common).await?;
            people::whoami(&session, &out).await?;
        }
        Noun::Tenant { common, command } => {
            let (session, out) = open(common).await?;
            people::tenant(&session, &out, command).await?;
        }
        Noun::User { common, command } => {
            let (session, out) = open(common).await?;
            people::user(&session, &out, command).await?;
        }
        Noun::Agent { common, command } => {
            let (session, out) = open(common).await?;
            fleet::agent(&session, &out, command).await?;
        }
        Noun::Token { common, command } => {
            let (session, out) = open(common).await?;
            fleet::token(&session, &out, command).await?;
        }
        Noun::Workload { common, command } => {
            let (session, out) = open(common).await?;
            fleet::workload(&session, &out, command).await?;
        }
        Noun::Policy { common, command } => {
            let (session, out) = open(common).await?;
            policy::run(&session, &out, command).await?;
        }
        Noun::Run { common, command } => {
            let (session, out) = open(common).await?;
            run::run(&session, &out, command).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(common: &Common) -> anyhow::Result<(Session, Out)> {
    let session = Session::open(&common.kept, common.tenant.as_deref()).await?;
    Ok((session, Out { is_json: common.json }))
}

/// How answers are shown.
struct Out {
    is_json: bool,
}

impl Out {
    /// A list: as a table, or as JSON.
    fn list<T: Serialize>(
        &self,
        items: &[T],
        table: impl FnOnce(&[T]) -> Table,
    ) -> anyhow::Result<()> {
        if self.is_json {
            return Ok(say(serde_json::to_string_pretty(items)?)?);
        }
        Ok(say(table(items))?)
    }
    /// One thing: in a line, or as JSON.
    fn one<T: Serialize>(&self, item: &T, line: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.is_json {
            return Ok(say(serde_json::to_string_pretty(item)?)?);
        }
        Ok(say(table::shown(&line(item)))?)
    }
}

/// Every item of a list, page by page.
async fn all<T: DeserializeOwned>(session: &Session, path: &str) -> anyhow::Result<Vec<T>> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let next = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page: Page<T> = session.get(&format!("{path}?limit=1000{next}")).await?;
        items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

/// The one item that is called so, by its id or by its name whatever its case.
fn find<'a, T>(
    what: &str,
    items: &'a [T],
    wanted: &str,
    id: impl Fn(&T) -> String,
    name: impl Fn(&T) -> &str,
) -> anyhow::Result<&'a T> {
    if let Some(item) = items.iter().find(|item| id(item) == wanted) {
        return Ok(item);
    }
    let key = api::names::key(wanted);
    let named: Vec<&T> = items.iter().filter(|item| api::names::key(name(item)) == key).collect();
    match named[..] {
        [item] => Ok(item),
        [] => {
            Err(Usage(format!("there is no {what} {wanted:?}; see `everhold {what} list`")).into())
        }
        _ => {
            let ids: Vec<String> = named.iter().map(|item| id(item)).collect();
            Err(Usage(format!("{} are called {wanted:?}: name one by its id", ids.join(", ")))
                .into())
        }
    }
}
