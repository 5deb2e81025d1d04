//! Reading a folder page by page, however large it is.
//!
//! The kernel asks for what comes after a cookie; it goes back within what it was given last, and rarely to anywhere
//! else. Invariant: no more than a page and what was given last is held; any cookie leads to the same entry.

use std::collections::VecDeque;

use super::view::{Listed, Page, Trouble};

/// Entries fetched at a time.
const PAGE_ENTRIES: usize = 256;
/// `.` and `..` come first; an entry's cookie says what comes after it.
const DOTS: u64 = 2;

/// An open folder.
#[derive(Default)]
pub struct Stream {
    /// Entries that may still be asked for, with their cookies.
    held: VecDeque<(u64, Listed)>,
    /// The cookie before the first held one.
    before: u64,
    /// Name and cookie of the last one fetched.
    last: Option<(Vec<u8>, u64)>,
    ended: bool,
    /// Entries are missing.
    lost: bool,
}

impl Stream {
    /// Calls `each` for the entries after `cookie` (without `.` and `..`, whose cookies are 1 and 2) with their own
    /// cookies until it says that there is no more room. `page` gives up to so many entries after a name.
    ///
    /// # Errors
    /// What `page` says; [`Trouble::Unreadable`] behind the last entry of a folder of which a part is lost: who reads
    /// it has all the others by then, and is told.
    pub fn read(
        &mut self,
        cookie: u64,
        mut page: impl FnMut(Option<&[u8]>, usize) -> Result<Page, Trouble>,
        mut each: impl FnMut(u64, &Listed) -> bool,
    ) -> Result<(), Trouble> {
        let cookie = cookie.max(DOTS);
        if self.before < DOTS || cookie < self.before {
            *self = Self { before: DOTS, ..Self::default() };
        }
        // What lies before the cookie was taken.
        self.drop_until(cookie);
        let (mut given, mut told) = (0, false);
        loop {
            while let Some((own, listed)) = self.held.get(given) {
                if *own <= cookie {
                    given += 1;
                    continue;
                }
                if each(*own, listed) {
                    return Ok(());
                }
                told = true;
                given += 1;
            }
            if self.ended {
                return if self.lost && !told { Err(Trouble::Unreadable) } else { Ok(()) };
            }
            let after = self.last.as_ref().map(|(name, _)| name.as_slice());
            let fetched = page(after, PAGE_ENTRIES)?;
            self.ended = fetched.entries.len() < PAGE_ENTRIES;
            self.lost |= fetched.lost;
            for listed in fetched.entries {
                let own = self.last.as_ref().map_or(DOTS, |(_, own)| *own) + 1;
                self.last = Some((listed.name.clone(), own));
                self.held.push_back((own, listed));
            }
            // On the way to a far place nothing is kept.
            let dropped = self.held.len();
            self.drop_until(cookie);
            given = given.saturating_sub(dropped - self.held.len());
        }
    }

    fn drop_until(&mut self, cookie: u64) {
        while self.held.front().is_some_and(|(own, _)| *own <= cookie) {
            self.before = self.held.pop_front().map_or(self.before, |(own, _)| own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{nodes::Place, view::Kind};

    fn listed(number: usize) -> Listed {
        let name = format!("{number:06}").into_bytes();
        Listed { name, kind: Kind::File, place: Place::Latest, entry: None }
    }

    /// A folder of so many entries.
    fn page(count: usize) -> impl Fn(Option<&[u8]>, usize) -> Result<Page, Trouble> {
        move |after, most| {
            let text = after.map(|name| String::from_utf8_lossy(name).into_owned());
            let from = text.and_then(|text| text.parse::<usize>().ok()).map_or(0, |last| last + 1);
            Ok(Page { entries: (from..count).take(most).map(listed).collect(), lost: false })
        }
    }

    fn names(stream: &mut Stream, cookie: u64, room: usize, count: usize) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        let each = |cookie: u64, listed: &Listed| {
            if found.len() == room {
                return true;
            }
            found.push((cookie, listed.name.clone()));
            false
        };
        stream.read(cookie, page(count), each).expect("read");
        found
    }

    #[test]
    fn every_entry_comes_once_whatever_is_asked_at_a_time() {
        for room in [1, 7, 100, 5_000] {
            let mut stream = Stream::default();
            let (mut cookie, mut all) = (0, Vec::new());
            loop {
                let part = names(&mut stream, cookie, room, 1_000);
                let Some((last, _)) = part.last() else { break };
                cookie = *last;
                assert!(stream.held.len() <= PAGE_ENTRIES + room, "{} held", stream.held.len());
                all.extend(part.into_iter().map(|(_, name)| name));
            }
            assert_eq!(all, (0..1_000).map(|n| listed(n).name).collect::<Vec<_>>(), "{room}");
        }
    }

    #[test]
    fn a_cookie_leads_to_the_same_entry_wherever_one_comes_from() {
        let mut stream = Stream::default();
        let all = names(&mut stream, 0, usize::MAX, 700);
        for cookie in [10, 650, 3, 2, 0, 400, 401, 390] {
            let expected = &all[usize::try_from(cookie.max(DOTS) - DOTS).expect("small")..][..5];
            assert_eq!(names(&mut stream, cookie, 5, 700), expected, "{cookie}");
        }
        assert!(names(&mut stream, 702, 5, 700).is_empty());
        assert!(names(&mut stream, 9_999, 5, 700).is_empty());
    }

    #[test]
    fn a_folder_of_which_a_part_is_lost_gives_the_rest_and_then_says_so() {
        // The lost part lies before the first page, between two pages, behind the last one; nothing is left of it.
        for (count, at) in [(700, 0), (700, 256), (700, 600), (512, 500), (0, 0)] {
            let lossy = |after: Option<&[u8]>, most: usize| {
                let mut page = page(count)(after, most)?;
                let from =
                    after.map_or(0, |name| String::from_utf8_lossy(name).parse().unwrap_or(0));
                page.lost = (from..from + most).contains(&at);
                Ok(page)
            };
            let (mut stream, mut found) = (Stream::default(), Vec::new());
            let end = loop {
                let mut room = 0;
                let cookie = DOTS + found.len() as u64;
                let end = stream.read(cookie, lossy, |_, listed| {
                    room += 1;
                    if room <= 100 {
                        found.push(listed.name.clone());
                    }
                    room > 100
                });
                if room == 0 {
                    break end;
                }
                assert!(end.is_ok(), "before the end nobody is disturbed");
            };
            assert!(matches!(end, Err(Trouble::Unreadable)), "{count} {at}");
            assert_eq!(found.len(), count);
        }
    }
}
