/** Moments and durations in words. */
const STEPS: readonly [limitS: number, unitS: number, unit: Intl.RelativeTimeFormatUnit][] = [
  [45, 1, 'second'],
  [45 * 60, 60, 'minute'],
  [22 * 3600, 3600, 'hour'],
  [26 * 86_400, 86_400, 'day'],
  [320 * 86_400, 30.44 * 86_400, 'month'],
  [Infinity, 365.25 * 86_400, 'year'],
];

/** `3 minutes ago`, `in 30 days`. */
export function formatRelative(moment: number, now: number, locale: string): string {
  const seconds = (moment - now) / 1000;
  const distance = Math.abs(seconds);
  const format = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });
  if (distance < 10) return format.format(0, 'second');
  for (const [limit, size, unit] of STEPS) {
    if (distance < limit) return format.format(Math.sign(seconds) * Math.round(distance / size), unit);
  }
  return '';
}

/** Date, time and zone. */
export const formatAbsolute = (moment: number, locale: string): string =>
  new Intl.DateTimeFormat(locale, { dateStyle: 'full', timeStyle: 'long' }).format(moment);

export const formatDay = (moment: number, locale: string): string =>
  new Intl.DateTimeFormat(locale, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' }).format(
    moment,
  );

export const formatDate = (moment: number, locale: string): string =>
  new Intl.DateTimeFormat(locale, { dateStyle: 'medium' }).format(moment);

export const formatDateTime = (moment: number, locale: string): string =>
  new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short' }).format(moment);

export const formatClock = (moment: number, locale: string): string =>
  new Intl.DateTimeFormat(locale, { timeStyle: 'short' }).format(moment);

/** `850 ms`, `42 s`, `3 min 5 s`, `2 h 10 min`: units are the SI signs, alike in every language. */
export function formatDuration(ms: number, locale: string): string {
  const n = (value: number, digits = 0) =>
    new Intl.NumberFormat(locale, { maximumFractionDigits: digits }).format(value);
  if (ms < 1_000) return `${n(Math.round(ms))}\u00a0ms`;
  const s = ms / 1_000;
  if (s < 10) return `${n(s, 1)}\u00a0s`;
  if (s < 60) return `${n(Math.floor(s))}\u00a0s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${n(minutes)}\u00a0min ${n(Math.floor(s % 60))}\u00a0s`;
  return `${n(Math.floor(minutes / 60))}\u00a0h ${n(minutes % 60)}\u00a0min`;
}

/** The day a moment lies in, in the reader's time zone, as a key that sorts. */
export function dayKey(moment: number): string {
  const d = new Date(moment);
  const two = (n: number) => String(n).padStart(2, '0');
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}
