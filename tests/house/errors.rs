//! `docs/errors.md` is the list of problem codes, generated: `UPDATE=1 cargo nextest run --test house` rewrites it.

use std::{fmt::Write as _, fs};

use api::problem::{Advice, Code};

fn rendered() -> String {
    let mut page = String::from(
        "# Problem codes\n\nGenerated from `crates/api/src/problem.rs`; the list is closed and its names are stable. `advice` says what a \
         caller can do: **retry** the same request later, **reject** (the request must change), or report a **bug** \
         with the request id.\n\n| code | status | advice | meaning |\n| --- | --- | --- | --- |\n",
    );
    for code in Code::ALL {
        let advice = match code.advice() {
            Advice::Retry => "retry",
            Advice::Reject => "reject",
            Advice::Bug => "bug",
        };
        writeln!(page, "| `{}` | {} | {advice} | {} |", code.as_str(), code.status(), code.title())
            .expect("writing to a string");
    }
    page
}

#[test]
fn the_page_of_problem_codes_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, rendered()).expect("write");
    }
    let page = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        page,
        rendered(),
        "stale: UPDATE=1 cargo nextest run -p everhold-tests --test house"
    );
}
