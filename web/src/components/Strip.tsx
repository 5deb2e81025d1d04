/** Thirty days as thirty marks: where snapshots are, and where none is. */
import type { Snapshot } from '../api/types';
import { dayKey, formatDay } from '../format/time';
import { useWords } from '../i18n/useWords';
import { useNow } from './useNow';
import classes from './Strip.module.css';

const DAYS = 30;
const DAY_MS = 86_400_000;

interface Day {
  key: string;
  at: number;
  count: number;
  exceptions: boolean;
}

/** The last thirty days, oldest first, in the reader's time zone. */
export function daysOf(snapshots: Snapshot[], now: number): Day[] {
  const byDay = new Map<string, Snapshot[]>();
  for (const snapshot of snapshots) {
    const key = dayKey(Date.parse(snapshot.committed_at));
    byDay.set(key, [...(byDay.get(key) ?? []), snapshot]);
  }
  // Noon, so that a day with a clock change is still one step.
  const noon = new Date(now).setHours(12, 0, 0, 0);
  return Array.from({ length: DAYS }, (_, i) => {
    const at = noon - (DAYS - 1 - i) * DAY_MS;
    const found = byDay.get(dayKey(at)) ?? [];
    return {
      key: dayKey(at),
      at,
      count: found.length,
      exceptions: found.some((s) => s.status === 'succeeded_with_exceptions'),
    };
  });
}

export function Strip({ snapshots }: { snapshots: Snapshot[] }) {
  const { t, locale, count } = useWords();
  const days = daysOf(snapshots, useNow());
  const held = days.filter((day) => day.count > 0).length;
  return (
    <figure className={classes.figure}>
      <figcaption className={classes.caption}>
        <span>{t('workload.strip')}</span>
        <span>{t('workload.stripSummary', { days: count(held) })}</span>
      </figcaption>
      <div className={classes.days} aria-hidden="true">
        {days.map((day) => (
          <span
            key={day.key}
            data-level={Math.min(day.count, 3)}
            data-exceptions={day.exceptions || undefined}
            title={t('workload.stripDay', {
              day: formatDay(day.at, locale),
              what: day.count > 0 ? t('workload.stripCount', { count: day.count }) : t('workload.stripNone'),
            })}
          />
        ))}
      </div>
    </figure>
  );
}
