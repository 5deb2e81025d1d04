//! When a workload is due: cron lines or an interval, in a time zone, within windows. Pure.
//!
//! Invariants: what is said once a day happens once a day, also on the two days a year on which the clock is changed (a
//! time that is left out is due right after the gap, one that comes twice is due the first time); a tick and the
//! start spread from it are functions of the schedule, the workload and the moment asked about, so that any replica
//! computes the same and nothing has to be remembered.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use api::policy::{Schedule, Weekday, Window};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use domain::{Timestamp, WorkloadId};
use jiff::{
    Zoned,
    civil::{self, Date, Time},
    tz::TimeZone,
};
use sha2::{Digest as _, Sha256};

const MINUTE: Duration = Duration::from_secs(60);
/// Within it a run starts, or it is missed, unless it may be made up for.
const START_WITHIN: Duration = Duration::from_secs(3_600);
/// The rarest days a line of cron can name, past two leap years.
const NINE_YEARS: Duration = Duration::from_secs(9 * 366 * 86_400);
/// How many ticks outside every window are looked at before nothing is said to lie in one: more than a year of days.
const MOST_OUTSIDE: usize = 500;
const MAX_LINES: usize = 10;
const MAX_WINDOWS: usize = 20;

/// Why a schedule is none: the field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub field: String,
    pub detail: String,
}

impl Wrong {
    fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

enum Times {
    Cron(Vec<Cron>),
    Every(Duration),
}

/// A part of the day: begins on these days.
struct Part {
    days: [bool; 7],
    from: Time,
    to: Time,
}

/// A schedule that was read.
pub struct Timetable {
    times: Times,
    zone: TimeZone,
    windows: Vec<Part>,
    jitter: Duration,
    run_if_missed: bool,
    /// What was asked last, and the answer: many workloads ask the same.
    last: Mutex<Option<(Timestamp, Option<Timestamp>)>>,
}

/// A moment the schedule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    pub at: Timestamp,
    /// The workload's own start after it.
    pub start: Timestamp,
    /// Not started by then, the run is missed, or waits for the next window; `None`: it waits.
    pub start_by: Option<Timestamp>,
}

/// A time in which a run may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    opens: Timestamp,
    closes: Timestamp,
}

impl Span {
    fn holds(self, at: Timestamp) -> bool {
        self.opens <= at && at < self.closes
    }
}

impl Timetable {
    /// Reads a schedule that was checked when it was saved.
    ///
    /// # Errors
    /// Every wrong field at once.
    pub fn parse(schedule: &Schedule) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let zone = zone(&schedule.zone).unwrap_or_else(|error| {
            wrong.push(error);
            TimeZone::UTC
        });
        let times = times(schedule).unwrap_or_else(|errors| {
            wrong.extend(errors);
            Times::Every(START_WITHIN)
        });
        if schedule.windows.len() > MAX_WINDOWS {
            wrong.push(Wrong::new("windows", format!("at most {MAX_WINDOWS} windows")));
        }
        let mut windows = Vec::new();
        for (i, window) in schedule.windows.iter().take(MAX_WINDOWS).enumerate() {
            match part(i, window) {
                Ok(part) => windows.push(part),
                Err(errors) => wrong.extend(errors),
            }
        }
        if schedule.jitter_minutes > 720 {
            wrong.push(Wrong::new("jitter_minutes", "0 to 720"));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            times,
            zone,
            windows,
            jitter: MINUTE * schedule.jitter_minutes,
            run_if_missed: schedule.run_if_missed,
            last: Mutex::new(None),
        })
    }

    /// Reads a schedule that is to be saved.
    ///
    /// # Errors
    /// As [`Self::parse`]; and a line of cron that never ticks, a schedule that never ticks within a window, and a
    /// jitter that reaches over the next tick are wrong.
    pub fn read(schedule: &Schedule, now: Timestamp) -> Result<Self, Vec<Wrong>> {
        let table = Self::parse(schedule)?;
        let never: Vec<Wrong> = match &table.times {
            Times::Every(_) => Vec::new(),
            Times::Cron(lines) => {
                let ticks = |line: &Cron| table.line_after(line, now).is_some();
                let never = lines.iter().enumerate().filter(|(_, line)| !ticks(line));
                let wrong = |i| {
                    Wrong::new(
                        format!("cron/{i}"),
                        "names no moment that ever comes, such as 31 February",
                    )
                };
                never.map(|(i, _)| wrong(i)).collect()
            }
        };
        if !never.is_empty() {
            return Err(never);
        }
        let Some(first) = table.tick_after(now) else {
            let words = "no time of the schedule lies in a window, so nothing would ever run";
            return Err(vec![Wrong::new("windows", words)]);
        };
        let (mut shortest, mut at) = (NINE_YEARS, first);
        for _ in 0..20 {
            let Some(next) = table.tick_after(at) else { break };
            shortest = shortest.min(next.since(at));
            at = next;
        }
        if table.jitter > shortest {
            let words =
                format!("at most {}, the shortest time between two ticks", shortest.as_secs() / 60);
            return Err(vec![Wrong::new("jitter_minutes", words)]);
        }
        Ok(table)
    }

    pub const fn run_if_missed(&self) -> bool {
        self.run_if_missed
    }

    /// The tick whose start comes first after `now`; its own moment may be past already.
    pub fn next_start(&self, workload: WorkloadId, now: Timestamp) -> Option<Tick> {
        let mut tick = self.next(workload, now - self.jitter)?;
        // A jitter reaches no further than the next tick.
        for _ in 0..3 {
            if tick.start > now {
                break;
            }
            tick = self.next(workload, tick.at)?;
        }
        Some(tick)
    }

    /// The first tick after `after`, and when this workload starts for it; `None`: never again.
    pub fn next(&self, workload: WorkloadId, after: Timestamp) -> Option<Tick> {
        let at = match self.times {
            Times::Cron(_) => self.tick_after(after)?,
            Times::Every(interval) => self.interval_after(interval, workload, after)?,
        };
        let closes = self.open_until(at);
        let room = closes.map_or(self.jitter, |closes| self.jitter.min(closes.since(at)));
        let start = at + spread(workload, at, room);
        let hour = (!self.run_if_missed).then(|| start + START_WITHIN);
        let start_by = match (closes, hour) {
            (Some(closes), Some(hour)) => Some(closes.min(hour)),
            (closes, hour) => closes.or(hour),
        };
        Some(Tick { at, start, start_by })
    }

    /// The window that is open at `at` or opens next: from when until when a run may start.
    /// `None`: there are no windows, it may start at any time.
    pub fn window(&self, at: Timestamp) -> Option<(Timestamp, Timestamp)> {
        if self.windows.is_empty() {
            return None;
        }
        let opens = self.next_opening(at)?.max(at);
        Some((opens, self.open_until(opens)?))
    }

    /// The moment in the schedule's zone: `2026-03-29T03:00:00+02:00[Europe/Berlin]`.
    pub fn local(&self, at: Timestamp) -> String {
        self.zoned(at).map_or_else(|| at.to_string(), |zoned| zoned.to_string())
    }

    /// The schedule in English.
    pub fn words(&self) -> String {
        let zone = self.zone.iana_name().unwrap_or("UTC");
        let when = match &self.times {
            Times::Cron(lines) => {
                let said: Vec<String> = lines.iter().map(Cron::describe).collect();
                let mut text = said.join(" ");
                if text.ends_with('.') {
                    text.pop();
                }
                text
            }
            Times::Every(interval) => match interval.as_secs() / 60 {
                minutes if minutes % 1_440 == 0 && minutes > 1_440 => {
                    format!("Every {} days", minutes / 1_440)
                }
                1_440 => "Every day".to_owned(),
                60 => "Every hour".to_owned(),
                minutes if minutes % 60 == 0 => format!("Every {} hours", minutes / 60),
                minutes => format!("Every {minutes} minutes"),
            },
        };
        let within = if self.windows.is_empty() { "" } else { ", within its windows" };
        format!("{when}{within} ({zone})")
    }

    /// The first tick after `after` that lies in a window, of no workload in particular.
    fn tick_after(&self, after: Timestamp) -> Option<Timestamp> {
        let lines = match &self.times {
            Times::Every(interval) => {
                return self.interval_after(*interval, WorkloadId::from_bytes([0; 16]), after);
            }
            Times::Cron(lines) => lines,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, tick)) = *last
            && asked == after
        {
            return tick;
        }
        let tick = self.cron_after(lines, after);
        *last = Some((after, tick));
        tick
    }

    fn cron_after(&self, lines: &[Cron], after: Timestamp) -> Option<Timestamp> {
        let mut from = after;
        for _ in 0..MOST_OUTSIDE {
            let at = lines.iter().filter_map(|line| self.line_after(line, from)).min()?;
            if at.since(after) > NINE_YEARS {
                return None;
            }
            if self.windows.is_empty() {
                return Some(at);
            }
            let opens = self.next_opening(at)?;
            if opens <= at {
                return Some(at);
            }
            // A tick at the very moment a window opens lies in it.
            from = opens - Duration::from_secs(1);
        }
        None
    }

    fn line_after(&self, line: &Cron, after: Timestamp) -> Option<Timestamp> {
        let next = line.find_next_occurrence(&self.zoned(after)?, false).ok()?;
        Some(moment(&next)).filter(|at| at.since(after) <= NINE_YEARS)
    }

    /// The interval's next moment. Every workload has its own place in the interval, so that no jitter is needed to spread
    /// them; a moment outside the windows is moved into the next one, where again every workload has its own place.
    fn interval_after(
        &self,
        interval: Duration,
        workload: WorkloadId,
        after: Timestamp,
    ) -> Option<Timestamp> {
        let place = spread(workload, Timestamp::UNIX_EPOCH, interval);
        let at = every(interval, place, after);
        if self.windows.is_empty() {
            return Some(at);
        }
        let opens = self.next_opening(at)?;
        if opens <= at {
            return Some(at);
        }
        let closes = self.open_until(opens)?;
        let inside = every(interval, place, opens - Duration::from_secs(1));
        if inside < closes {
            return Some(inside);
        }
        Some(opens + spread(workload, Timestamp::UNIX_EPOCH, closes.since(opens)))
    }

    fn zoned(&self, at: Timestamp) -> Option<Zoned> {
        let instant =
            jiff::Timestamp::from_millisecond(i64::try_from(at.unix_millis()).ok()?).ok()?;
        Some(instant.to_zoned(self.zone.clone()))
    }

    /// When the windows open at `at`, or next: the opening of the span `at` lies in, if it lies in one.
    fn next_opening(&self, at: Timestamp) -> Option<Timestamp> {
        let spans = self.spans(at);
        let open = spans.iter().filter(|span| span.holds(at)).map(|span| span.opens).min();
        open.or_else(|| spans.iter().map(|span| span.opens).filter(|opens| *opens > at).min())
    }

    /// Until when a run may start that may start at `at`; a week at most. `None`: there are no windows, or none is
    /// open.
    fn open_until(&self, at: Timestamp) -> Option<Timestamp> {
        let spans = self.spans(at);
        let mut until = spans.iter().filter(|span| span.holds(at)).map(|span| span.closes).max()?;
        // One window may go on where another ends.
        while let Some(further) =
            spans.iter().filter(|span| span.holds(until)).map(|span| span.closes).max()
        {
            until = further;
        }
        Some(until)
    }

    /// The spans of the windows that begin between the day before `at` and two weeks after it.
    fn spans(&self, at: Timestamp) -> Vec<Span> {
        let Some(zoned) = self.zoned(at) else { return Vec::new() };
        let mut spans = Vec::new();
        let mut day = zoned.date().yesterday().unwrap_or(zoned.date());
        // A weekly window may fall into the hour that a change of the clock leaves out: the one after it counts.
        for _ in 0..17 {
            let weekday = usize::from(day.weekday().to_monday_zero_offset().unsigned_abs());
            for part in self.windows.iter().filter(|part| part.days[weekday]) {
                let end = if part.to > part.from { Some(day) } else { day.tomorrow().ok() };
                let (opens, closes) =
                    (self.instant(day, part.from), end.and_then(|end| self.instant(end, part.to)));
                if let (Some(opens), Some(closes)) = (opens, closes)
                    && opens < closes
                {
                    spans.push(Span { opens, closes });
                }
            }
            let Ok(next) = day.tomorrow() else { break };
            day = next;
        }
        spans
    }

    /// A time of the wall clock; in a gap the moment after it, the first of two.
    fn instant(&self, day: Date, time: Time) -> Option<Timestamp> {
        let zoned = self
            .zone
            .to_ambiguous_zoned(civil::DateTime::from_parts(day, time))
            .compatible()
            .ok()?;
        Some(moment(&zoned))
    }
}

fn moment(zoned: &Zoned) -> Timestamp {
    let millis = zoned.timestamp().as_millisecond();
    Timestamp::from_unix_millis(u64::try_from(millis).unwrap_or(0))
}

/// The first moment after `after` that is a whole number of intervals, and `place`, after 1970.
fn every(interval: Duration, place: Duration, after: Timestamp) -> Timestamp {
    let interval_s = interval.as_secs().max(1);
    let place_s = place.as_secs() % interval_s;
    let since = after.since(Timestamp::UNIX_EPOCH).as_secs();
    let rounds = if since < place_s { 0 } else { (since - place_s) / interval_s + 1 };
    Timestamp::UNIX_EPOCH + Duration::from_secs(place_s + rounds * interval_s)
}

/// A part of `room` that depends on nothing but workload and tick, in whole seconds.
fn spread(workload: WorkloadId, tick: Timestamp, room: Duration) -> Duration {
    if room.as_secs() == 0 {
        return Duration::ZERO;
    }
    let mut hash = Sha256::new();
    hash.update(workload.into_bytes());
    hash.update(tick.unix_secs().to_be_bytes());
    let digest = hash.finalize();
    let mut first = [0_u8; 8];
    first.copy_from_slice(&digest[..8]);
    Duration::from_secs(u64::from_be_bytes(first) % room.as_secs())
}

fn zone(name: &str) -> Result<TimeZone, Wrong> {
    let said = "a time zone of the IANA list, like Europe/Berlin or UTC";
    // What the machine is set to is nobody's policy.
    if name.is_empty() || name.len() > 64 || !name.is_ascii() {
        return Err(Wrong::new("zone", said));
    }
    TimeZone::get(name).map_err(|_| Wrong::new("zone", said))
}

fn times(schedule: &Schedule) -> Result<Times, Vec<Wrong>> {
    match (schedule.cron.is_empty(), schedule.every_minutes) {
        (true, None) => Err(vec![Wrong::new("cron", "name cron lines, or every_minutes")]),
        (false, Some(_)) => {
            Err(vec![Wrong::new("every_minutes", "either cron lines or every_minutes, not both")])
        }
        (true, Some(minutes)) if (5..=10_080).contains(&minutes) => {
            Ok(Times::Every(MINUTE * minutes))
        }
        (true, Some(_)) => Err(vec![Wrong::new("every_minutes", "5 to 10080 (a week)")]),
        (false, None) if schedule.cron.len() > MAX_LINES => {
            Err(vec![Wrong::new("cron", format!("at most {MAX_LINES} lines"))])
        }
        (false, None) => {
            let (mut lines, mut wrong) = (Vec::new(), Vec::new());
            for (i, text) in schedule.cron.iter().enumerate() {
                match line(text) {
                    Ok(line) => lines.push(line),
                    Err(why) => wrong.push(Wrong::new(format!("cron/{i}"), why)),
                }
            }
            if wrong.is_empty() { Ok(Times::Cron(lines)) } else { Err(wrong) }
        }
    }
}

fn line(text: &str) -> Result<Cron, String> {
    let said = "five fields: minute, hour, day of month, month, weekday; 30 2 * * mon-fri is 02:30 on weekdays";
    if text.len() > 200 {
        return Err(said.to_owned());
    }
    // Without seconds: a backup every second is nobody's wish.
    let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
    parser.parse(text).map_err(|error| format!("{said} ({error})"))
}

fn part(i: usize, window: &Window) -> Result<Part, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let mut time = |name: &str, text: &str| {
        clock_time(text).unwrap_or_else(|| {
            wrong.push(Wrong::new(format!("windows/{i}/{name}"), "a time of day like 22:00"));
            Time::midnight()
        })
    };
    let (from, to) = (time("from", &window.from), time("to", &window.to));
    if wrong.is_empty() && from == to {
        wrong.push(Wrong::new(
            format!("windows/{i}/to"),
            "another time than from; leave windows out to allow any time",
        ));
    }
    let mut days = [window.days.is_empty(); 7];
    for day in &window.days {
        days[*day as usize] = true;
    }
    if wrong.is_empty() { Ok(Part { days, from, to }) } else { Err(wrong) }
}

fn clock_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| (digits.len() == 2).then(|| digits.parse::<i8>().ok()).flatten();
    Time::new(two(hour)?, two(minute)?, 0, 0).ok()
}

const _: () = assert!(Weekday::Mon as usize == 0 && Weekday::Sun as usize == 6);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }
    fn daily(cron: &str, zone: &str) -> Schedule {
        Schedule {
            cron: vec![cron.to_owned()],
            every_minutes: None,
            zone: zone.to_owned(),
            windows: Vec::new(),
            jitter_minutes: 0,
            run_if_missed: false,
        }
    }
    fn every(minutes: u32) -> Schedule {
        Schedule { cron: Vec::new(), every_minutes: Some(minutes), ..daily("", "UTC") }
    }
    fn window(days: &[Weekday], from: &str, to: &str) -> Window {
        Window { days: days.to_vec(), from: from.to_owned(), to: to.to_owned() }
    }
    fn read(schedule: &Schedule) -> Timetable {
        Timetable::read(schedule, at("2026-11-21T00:00:00Z"))
            .unwrap_or_else(|wrong| panic!("{wrong:?}"))
    }
    fn wrong(schedule: &Schedule) -> Vec<String> {
        let read = Timetable::read(schedule, at("2026-11-21T00:00:00Z"));
        read.err().expect("refused").into_iter().map(|wrong| wrong.field).collect()
    }
    fn workload(n: u8) -> WorkloadId {
        WorkloadId::from_bytes([n; 16])
    }
    /// Ticks in local time, without the date's year and the zone's name.
    fn ticks(table: &Timetable, from: &str, how_many: usize) -> Vec<String> {
        let mut after = at(from);
        let mut said = Vec::new();
        for _ in 0..how_many {
            let tick = table.next(workload(1), after).expect("a tick");
            said.push(table.local(tick.at)[5..22].replace('T', " "));
            after = tick.at;
        }
        said
    }

    #[test]
    fn once_a_day_is_once_a_day_across_both_changes_of_the_clock() {
        // 02:30 does not exist on 28 March 2027 and comes twice on 31 October 2027.
        let table = read(&daily("30 2 * * *", "Europe/Berlin"));
        assert_eq!(
            ticks(&table, "2027-03-26T12:00:00Z", 4),
            ["03-27 02:30:00+01", "03-28 03:00:00+02", "03-29 02:30:00+02", "03-30 02:30:00+02"]
        );
        assert_eq!(
            ticks(&table, "2027-10-29T12:00:00Z", 4),
            ["10-30 02:30:00+02", "10-31 02:30:00+02", "11-01 02:30:00+01", "11-02 02:30:00+01"]
        );
        // The other half of the world changes on other days, and half an hour of it by half an hour.
        let table = read(&daily("15 2 * * *", "Australia/Lord_Howe"));
        assert_eq!(
            ticks(&table, "2026-10-02T12:00:00Z", 3),
            ["10-03 02:15:00+10", "10-04 02:30:00+11", "10-05 02:15:00+11"]
        );
    }

    #[test]
    fn hourly_runs_follow_the_hours_that_there_are() {
        let table = read(&daily("0 * * * *", "Europe/Berlin"));
        assert_eq!(
            ticks(&table, "2027-03-27T23:30:00Z", 3),
            ["03-28 01:00:00+01", "03-28 03:00:00+02", "03-28 04:00:00+02"]
        );
        assert_eq!(
            ticks(&table, "2027-10-30T23:30:00Z", 3),
            ["10-31 02:00:00+02", "10-31 02:00:00+01", "10-31 03:00:00+01"]
        );
    }

    #[test]
    fn several_lines_are_one_schedule() {
        let mut both = daily("0 22 * * mon-fri", "UTC");
        both.cron.push("0 6 * * sat,sun".to_owned());
        assert_eq!(
            ticks(&read(&both), "2026-11-20T12:00:00Z", 4),
            ["11-20 22:00:00+00", "11-21 06:00:00+00", "11-22 06:00:00+00", "11-23 22:00:00+00"]
        );
    }

    #[test]
    fn an_interval_gives_every_workload_a_place_of_its_own() {
        let table = read(&every(60));
        let now = at("2026-11-21T10:00:00Z");
        let places: std::collections::BTreeSet<i64> =
            (0..50).map(|n| table.next(workload(n), now).expect("a tick").at.unix_secs()).collect();
        assert!(places.len() > 45, "spread over the hour: {}", places.len());
        let first = table.next(workload(7), now).expect("a tick").at;
        let second = table.next(workload(7), first).expect("a tick").at;
        assert_eq!(second.since(first), Duration::from_secs(3_600));
    }

    #[test]
    fn runs_start_in_windows_only() {
        let mut schedule = every(15);
        schedule.windows = vec![window(&[Weekday::Fri], "22:00", "06:00")];
        let table = read(&schedule);
        // A Friday evening.
        let tick = table.next(workload(1), at("2026-11-20T12:00:00Z")).expect("a tick");
        assert!(
            tick.at >= at("2026-11-20T22:00:00Z") && tick.at < at("2026-11-20T22:15:00Z"),
            "{tick:?}"
        );
        // Past midnight it is still Friday's window, which closes before the hour is over.
        let late = table.next(workload(1), at("2026-11-21T05:30:00Z")).expect("a tick");
        assert_eq!(late.start_by, Some(at("2026-11-21T06:00:00Z")));
        let next_week = table.next(workload(1), at("2026-11-21T05:59:00Z")).expect("a tick");
        assert!(next_week.at >= at("2026-11-27T22:00:00Z"), "{next_week:?}");
        assert_eq!(
            table.window(at("2026-11-21T12:00:00Z")),
            Some((at("2026-11-27T22:00:00Z"), at("2026-11-28T06:00:00Z")))
        );
    }

    #[test]
    fn an_interval_longer_than_its_window_runs_in_it_all_the_same() {
        for minutes in [60, 360, 720, 1_440, 10_080] {
            let mut schedule = every(minutes);
            schedule.windows = vec![window(&[], "22:00", "06:00")];
            let table = read(&schedule);
            let mut starts = std::collections::BTreeSet::new();
            for n in 0..50 {
                let mut after = at("2026-11-21T12:00:00Z");
                for _ in 0..5 {
                    let tick = table.next(workload(n), after).expect("never left out");
                    let (opens, closes) = table.window(tick.at).expect("a window");
                    assert!(opens <= tick.at && tick.at < closes, "{minutes} {tick:?}");
                    let most = Duration::from_secs(u64::from(minutes) * 60 + 24 * 3_600);
                    assert!(
                        tick.at > after && tick.at.since(after) <= most,
                        "{minutes} {n} {tick:?}"
                    );
                    after = tick.at;
                    starts.insert(tick.at);
                }
            }
            assert!(starts.len() > 40, "spread: {minutes} {}", starts.len());
        }
    }

    #[test]
    fn a_weekly_window_in_the_hour_that_is_left_out_comes_again_a_week_later() {
        let mut schedule = Schedule { zone: "Europe/Berlin".into(), ..every(60) };
        schedule.windows = vec![window(&[Weekday::Sun], "02:00", "03:00")];
        let table = read(&schedule);
        let tick = table.next(workload(1), at("2027-03-21T02:30:00Z")).expect("after the change");
        assert!(tick.at >= at("2027-04-04T00:00:00Z"), "{tick:?}");
        assert!(
            Timetable::read(&schedule, at("2027-03-22T12:00:00Z")).is_ok(),
            "saved in that week"
        );
    }

    #[test]
    fn a_start_still_to_come_of_a_tick_that_is_past_is_not_lost() {
        let mut schedule = daily("0 2 * * *", "UTC");
        schedule.jitter_minutes = 720;
        let table = read(&schedule);
        let now = at("2026-11-21T02:05:00Z");
        let tonight = (0..50).filter(|n| {
            let tick = table.next_start(workload(*n), now).expect("a tick");
            assert!(tick.start > now);
            tick.at < now
        });
        assert!(tonight.count() > 40, "most start later tonight");
    }

    #[test]
    fn a_window_goes_on_where_another_ends() {
        let mut schedule = daily("0 23 * * *", "UTC");
        schedule.windows = vec![window(&[], "22:00", "00:00"), window(&[], "00:00", "04:00")];
        schedule.run_if_missed = true;
        let tick = read(&schedule).next(workload(1), at("2026-11-20T12:00:00Z")).expect("a tick");
        assert_eq!(tick.start_by, Some(at("2026-11-21T04:00:00Z")));
    }

    #[test]
    fn jitter_spreads_within_its_bound_and_its_window_and_stays_the_same() {
        let mut schedule = daily("0 2 * * *", "UTC");
        schedule.jitter_minutes = 90;
        schedule.windows = vec![window(&[], "01:00", "02:30")];
        let table = read(&schedule);
        let now = at("2026-11-20T12:00:00Z");
        let starts: Vec<Timestamp> =
            (0..50).map(|n| table.next(workload(n), now).expect("a tick").start).collect();
        assert!(
            starts
                .iter()
                .all(|start| (at("2026-11-21T02:00:00Z")..at("2026-11-21T02:30:00Z"))
                    .contains(start))
        );
        let again: Vec<Timestamp> =
            (0..50).map(|n| table.next(workload(n), now).expect("a tick").start).collect();
        assert_eq!(starts, again);
        let different: std::collections::BTreeSet<Timestamp> = starts.into_iter().collect();
        assert!(different.len() > 40);
    }

    #[test]
    fn what_is_wrong_is_said_by_its_field() {
        assert_eq!(wrong(&daily("0 0 31 2 *", "UTC")), ["cron/0"]);
        let mut one_never = daily("0 12 * * *", "UTC");
        one_never.cron.push("0 0 31 2 *".to_owned());
        assert_eq!(wrong(&one_never), ["cron/1"], "each line is looked at");
        let mut wide = every(30);
        wide.jitter_minutes = 31;
        assert_eq!(wrong(&wide), ["jitter_minutes"]);
        assert_eq!(wrong(&daily("0 2 * *", "UTC")), ["cron/0"]);
        assert_eq!(wrong(&daily("61 2 * * *", "UTC")), ["cron/0"]);
        assert_eq!(wrong(&daily("* * * * * *", "UTC")), ["cron/0"], "no seconds");
        assert_eq!(wrong(&daily("0 2 * * *", "Europe/Atlantis")), ["zone"]);
        assert_eq!(wrong(&daily("0 2 * * *", "../etc/localtime")), ["zone"]);
        assert_eq!(wrong(&daily("0 2 * * *", "")), ["zone"]);
        assert_eq!(wrong(&every(4)), ["every_minutes"]);
        assert_eq!(
            wrong(&Schedule { every_minutes: Some(60), ..daily("0 2 * * *", "UTC") }),
            ["every_minutes"]
        );
        assert_eq!(wrong(&Schedule { cron: Vec::new(), ..daily("", "UTC") }), ["cron"]);
        let mut outside = daily("0 2 * * *", "UTC");
        outside.windows = vec![window(&[], "08:00", "18:00")];
        assert_eq!(wrong(&outside), ["windows"]);
        let mut odd = daily("0 2 * * *", "UTC");
        odd.windows = vec![window(&[], "8:00", "24:00"), window(&[], "08:00", "08:00")];
        odd.jitter_minutes = 721;
        assert_eq!(
            wrong(&odd),
            ["windows/0/from", "windows/0/to", "windows/1/to", "jitter_minutes"]
        );
        let mut many = daily("0 2 * * *", "UTC");
        many.cron = vec!["0 2 * * *".to_owned(); 11];
        assert_eq!(wrong(&many), ["cron"]);
    }

    #[test]
    fn a_schedule_is_said_in_words() {
        assert_eq!(read(&every(90)).words(), "Every 90 minutes (UTC)");
        assert_eq!(read(&every(2_880)).words(), "Every 2 days (UTC)");
        let mut at_night = every(60);
        at_night.windows = vec![window(&[], "22:00", "06:00")];
        assert_eq!(read(&at_night).words(), "Every hour, within its windows (UTC)");
        let words = read(&daily("30 2 * * mon-fri", "Europe/Berlin")).words();
        assert!(words.contains("02:30") && words.ends_with("(Europe/Berlin)"), "{words}");
    }

    proptest! {
        /// Whatever the moment: ticks go forward, lie in a window, and do not depend on where one looked from.
        #[test]
        fn ticks_go_forward_and_stay_in_windows(
            secs in 1_700_000_000_i64..2_000_000_000, hour in 0_u32..24, length in 1_u32..24, zone in 0_usize..4,
        ) {
            let zones = ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"];
            let mut schedule = daily("*/20 * * * *", zones[zone]);
            schedule.windows = vec![window(&[], &format!("{hour:02}:00"), &format!("{:02}:00", (hour + length) % 24))];
            let table = read(&schedule);
            let after = Timestamp::from_unix_secs(secs).expect("in range");
            let tick = table.next(workload(3), after).expect("a tick");
            prop_assert!(tick.at > after);
            prop_assert!(tick.at.since(after) <= Duration::from_secs(49 * 3_600));
            let (opens, closes) = table.window(tick.at).expect("a window");
            prop_assert!(opens <= tick.at && tick.at < closes);
            prop_assert_eq!(table.next(workload(3), tick.at - Duration::from_secs(1)), Some(tick));
        }
    }
}
