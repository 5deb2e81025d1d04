//! The console: an administrator's work from the command line, as a person or a script does it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Agent, Platform, Said, Stop, bin, folder, wait_for};

/// `everhold` for one person.
struct Console {
    session: PathBuf,
}

impl Console {
    fn sign_in(platform: &Platform, who: &str, session: &Path) -> Self {
        let console = Self { session: session.to_owned() };
        let email = platform.get(&format!("{who}/email"));
        let args =
            ["login", "--server", platform.get("/api_url"), "--email", email, "--password-stdin"];
        console.told(&args, platform.get(&format!("{who}/password"))).expect(0);
        console
    }
    fn command(&self) -> Command {
        let mut command = Command::new(bin("everhold"));
        command.env("EVERHOLD_SESSION", &self.session).stdin(Stdio::null());
        command
    }
    fn run(&self, args: &[&str]) -> Said {
        Said::of(&self.command().args(args).output().expect("everhold runs"))
    }
    /// The same, with something on standard input.
    fn told(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("everhold runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("hears");
        Said::of(&child.wait_with_output().expect("its output"))
    }
}

const EVERY_MINUTE: &str = r#"
name = "every minute"
default = true

[settings]
rpo_minutes = 60

[settings.source]
paths = ["SOURCE"]

[settings.schedule]
cron = ["* * * * *"]
zone = "Europe/Berlin"
"#;

#[test]
fn a_policy_applied_from_a_file_protects_a_machine_that_is_enrolled_later() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let admin = Console::sign_in(&platform, "/tenant", &dir.path().join("session.json"));
    let mode = fs::metadata(&admin.session).expect("kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a refresh token is nobody else's");
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("source");
    fs::write(source.join("file"), "something").expect("file");
    let file = dir.path().join("policy.toml");
    let text = EVERY_MINUTE.replace("SOURCE", source.to_str().expect("UTF-8"));
    fs::write(&file, &text).expect("policy");
    let path = file.to_str().expect("UTF-8");
    let shown =
        admin.run(&["policy", "simulate", path, "--ticks", "3", "--from", "2027-03-28T00:58:30Z"]);
    let shown = shown.expect(0).stdout;
    assert!(shown.contains("2027-03-28T03:00:00+02:00[Europe/Berlin]"), "{shown}");
    let made = admin.run(&["policy", "apply", path]).expect(0).stdout;
    assert!(made.contains("made; Every minute (Europe/Berlin)"), "{made}");
    let again = admin.run(&["policy", "apply", path]).expect(0).stdout;
    assert!(again.contains("as it was"), "{again}");
    // What is wrong is said by its field, and nothing is changed.
    fs::write(&file, text.replace("* * * * *", "0 0 31 2 *")).expect("policy");
    let refused = admin.run(&["policy", "apply", path]).expect(1).stderr;
    assert!(refused.contains("settings/schedule/cron"), "{refused}");
    fs::write(&file, text.replace("rpo_minutes", "rpo_hours")).expect("policy");
    let refused = admin.run(&["policy", "apply", path]).expect(2).stderr;
    assert!(refused.contains("rpo_hours"), "{refused}");
    // The machine comes later, and nobody starts a backup on it.
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let mut daemon = agent.command();
    let daemon = Stop(
        daemon.arg("daemon").stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("starts"),
    );
    let row = wait_for("a successful run by schedule", Duration::from_secs(150), || {
        let listed = admin.run(&["run", "list", "--json"]).expect(0).json();
        let runs = listed.as_array().expect("a list").clone();
        runs.into_iter().find(|run| run["state"] == "succeeded")
    });
    assert_eq!(row["trigger"], "schedule");
    let stands = admin.run(&["workload", "list", "--json"]).expect(0).json();
    assert_eq!(stands[0]["policy"], "every minute");
    assert!(stands[0]["protection"]["protected_at"].is_string(), "{stands}");
    let table = admin.run(&["workload", "list"]).expect(0).stdout;
    assert!(table.contains("every minute") && table.contains("kept until"), "{table}");
    drop(daemon);
    let snapshots = agent.run(["snapshots", "--json"]).expect(0).json();
    assert!(!snapshots.as_array().expect("a list").is_empty());
    // Signed out, here and there.
    admin.run(&["logout"]).expect(0);
    let gone = admin.run(&["whoami"]).expect(2).stderr;
    assert!(gone.contains("everhold login --server"), "{gone}");
}

#[test]
fn commands_at_once_take_turns_with_the_sign_in_and_an_msp_names_its_tenant() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let msp = Console::sign_in(&platform, "/msp", &dir.path().join("session.json"));
    // Without its access token every command has to rotate the refresh token, and a second use of one ends the
    // session for good.
    let forget = || {
        let mut kept: Value =
            serde_json::from_slice(&fs::read(&msp.session).expect("kept")).expect("JSON");
        kept["access"] = Value::Null;
        fs::write(&msp.session, kept.to_string()).expect("written");
    };
    for _ in 0..3 {
        forget();
        let children: Vec<_> = (0..6)
            .map(|_| msp.command().arg("whoami").stdout(Stdio::null()).spawn().expect("starts"))
            .collect();
        for mut child in children {
            assert!(child.wait().expect("ends").success());
        }
    }
    let tenants = msp.run(&["tenant", "list", "--json"]).expect(0).json();
    let below =
        tenants.as_array().expect("a list").iter().find(|tenant| tenant["kind"] == "tenant");
    let name = below.expect("one")["name"].as_str().expect("a name").to_uppercase();
    let there = msp.run(&["whoami", "--tenant", &name, "--json"]).expect(0).json();
    assert_eq!(there["tenant"]["kind"], "tenant");
    let here = msp.run(&["whoami", "--json"]).expect(0).json();
    assert_eq!(here["tenant"]["kind"], "msp", "the next command is at home again");
    let none = msp.run(&["agent", "list", "--tenant", "nobody"]).expect(2).stderr;
    assert!(none.contains("everhold tenant list"), "{none}");
    // A new password ends every other sign-in, and this one goes on.
    let elsewhere = Console::sign_in(&platform, "/msp", &dir.path().join("elsewhere.json"));
    let shown = msp.run(&["session", "list", "--json"]).expect(0).json();
    assert!(shown.as_array().expect("a list").len() >= 2, "{shown}");
    let old = platform.get("/msp/password");
    let said = format!("{old}\nfünf Kraniche über dem Watt\n");
    msp.told(&["password", "--password-stdin"], &said).expect(0);
    msp.run(&["whoami"]).expect(0);
    let mut kept: Value =
        serde_json::from_slice(&fs::read(&elsewhere.session).expect("kept")).expect("JSON");
    kept["access"] = Value::Null;
    fs::write(&elsewhere.session, kept.to_string()).expect("written");
    let ended = elsewhere.run(&["whoami"]).expect(2).stderr;
    assert!(ended.contains("everhold login --server"), "{ended}");
    // A password that is wrong keeps nothing.
    let other = Console { session: dir.path().join("other.json") };
    let args = [
        "login",
        "--server",
        platform.get("/api_url"),
        "--email",
        platform.get("/msp/email"),
        "--password-stdin",
    ];
    other.told(&args, "not the password at all").expect(1);
    assert!(!other.session.exists());
}
