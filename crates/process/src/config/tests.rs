//! Claims about the configuration loader.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sample {
    #[serde(default = "eight")]
    port: u16,
    #[serde(default)]
    store: Option<Store>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    peers: BTreeMap<String, String>,
    token: Option<Secret>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Store {
    region: String,
    secret_key: Secret,
    #[serde(default)]
    path_style: bool,
}

fn eight() -> u16 {
    8
}

fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn later_layers_win_and_defaults_fill_the_rest() {
    let toml = "port = 1\nhosts = ['a']\n[store]\nregion = 'x'\nsecret_key = 's'";
    let env = vars(&[
        ("EVERHOLD__PORT", "2"),
        ("EVERHOLD__STORE__PATH_STYLE", "true"),
        ("EVERHOLD__STORE__SECRET_KEY", "123456"),
        ("EVERHOLD__PEERS__AUDIT", "http://a"),
        ("OTHER", "x"),
    ]);
    let sample: Sample = load_from(Some(toml), env).expect("fits");
    assert_eq!((sample.port, sample.hosts.len()), (2, 1));
    let store = sample.store.expect("given");
    assert!(store.path_style);
    assert_eq!(store.region, "x");
    assert_eq!(store.secret_key.expose(), "123456", "digits stay text where text is wanted");
    assert_eq!(sample.peers["audit"], "http://a");
    let empty: Sample = load_from(None, vars(&[])).expect("defaults");
    assert_eq!(empty.port, 8);
}

#[test]
fn all_problems_are_reported_at_once_and_no_value_is_shown() {
    let toml = "prot = 1\nport = 'hunter2'\n[store]\nregoin = 'x'";
    let env = vars(&[("EVERHOLD__HOSTS", "5")]);
    let error = load_from::<Sample>(Some(toml), env).expect_err("wrong");
    let text = error.to_string();
    for part in [
        "prot: there is no",
        "port: must be",
        "store.regoin: there",
        "store.region: is missing",
        "store.secret_key: is missing",
        "hosts: must be",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(error.problems.len(), 6);
    assert!(!text.contains("hunter2"));
}

#[test]
fn a_secret_may_come_from_a_file_but_not_from_both() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "from file\n").expect("written");
    let path = file.path().display().to_string();
    let env = || vec![("EVERHOLD__TOKEN_FILE".to_owned(), path.clone())];
    let sample: Sample = load_from(None, env()).expect("fits");
    let token = sample.token.expect("read");
    assert_eq!(token.expose(), "from file");
    assert!(!format!("{token:?}").contains("from"));
    let both = load_from::<Sample>(Some("token = 'x'"), env()).expect_err("two");
    assert_eq!(both.problems, ["token_file: token is given too; keep one of them"]);
    let gone = vars(&[("EVERHOLD__TOKEN_FILE", "/nonexistent/x")]);
    assert!(load_from::<Sample>(None, gone).is_err());
}

#[test]
fn the_schema_offers_a_file_for_every_secret() {
    let schema = schema::<Sample>().to_string();
    assert!(schema.contains("token_file") && schema.contains("secret_key_file"));
}

#[test]
fn a_broken_file_is_reported_without_its_text() {
    let error = load_from::<Sample>(Some("token = 'hunter2"), vars(&[])).expect_err("broken");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
