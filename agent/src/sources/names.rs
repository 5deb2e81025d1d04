//! Names of users and groups, from the machine's own files.
//!
//! Read once per run from `/etc/passwd` and `/etc/group`. Directory services are not asked: the number
//! is what counts, the name is a help when the numbers differ on another machine.

use std::{collections::HashMap, fs, path::Path};

/// Number to name, and back.
#[derive(Debug, Clone, Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// What this machine says; empty where it says nothing.
    pub fn of_this_machine() -> Self {
        let read = |path: &str| parse(&fs::read(Path::new(path)).unwrap_or_default());
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }
    pub fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }
    pub fn group(&self, gid: u32) -> Option<&str> {
        self.groups.get(&gid).map(String::as_str)
    }
}

/// `name:password:number:…` lines; the first name of a number wins, as the C library has it.
fn parse(text: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if let Ok(number) = number.parse() {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_wins_and_odd_lines_are_skipped() {
        let names = parse(b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0\n+::::\nbad\nme:x:1000:\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.get(&1000).map(String::as_str), Some("me"));
        assert_eq!(names.len(), 2);
    }
}
