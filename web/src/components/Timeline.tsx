/** Snapshots on a line, day by day, newest first. */
import { IconFolderOpen, IconLock } from '@tabler/icons-react';
import type { Snapshot } from '../api/types';
import { dayKey, formatAbsolute, formatClock, formatDate, formatDateTime, formatDay } from '../format/time';
import { useWords } from '../i18n/useWords';
import classes from '../pages/pages.module.css';
import { LinkButton } from './LinkButton';
import { RunStatus } from './Status';
import { useNow } from './useNow';

function byDay(snapshots: Snapshot[]): [string, Snapshot[]][] {
  const days = new Map<string, Snapshot[]>();
  for (const snapshot of snapshots) {
    const key = dayKey(Date.parse(snapshot.committed_at));
    days.set(key, [...(days.get(key) ?? []), snapshot]);
  }
  return [...days];
}

function Moment({ snapshot }: { snapshot: Snapshot }) {
  const { t, locale, bytes, plural } = useWords();
  const at = Date.parse(snapshot.committed_at);
  return (
    <li className={classes.moment} data-exceptions={snapshot.status === 'succeeded_with_exceptions' || undefined}>
      <time dateTime={snapshot.committed_at} title={formatAbsolute(at, locale)} className={classes.clock}>
        {formatClock(at, locale)}
      </time>
      <div className={classes.named}>
        <div className={classes.momentFacts}>
          <RunStatus state={snapshot.status} />
          <span>{t('run.filesOf', plural(snapshot.stats.files))}</span>
          <span>
            {t('snapshot.size')} {bytes(snapshot.stats.source_bytes)}
          </span>
          <span>
            {t('snapshot.stored')} {bytes(snapshot.stats.stored_bytes)}
          </span>
          <span title={t('snapshot.lockHint')}>
            <IconLock size={14} aria-hidden="true" />
            {t('snapshot.lockedShort', { date: formatDate(Date.parse(snapshot.locked_until), locale) })}
          </span>
        </div>
        {snapshot.paths.length > 0 && <span className={classes.code}>{snapshot.paths.join('  ')}</span>}
      </div>
      <LinkButton
        to="/t/$tenant/snapshots/$snapshot"
        params={{ tenant: snapshot.tenant_id, snapshot: snapshot.id }}
        variant="default"
        size="xs"
        leftSection={<IconFolderOpen size={15} aria-hidden="true" />}
        aria-label={t('snapshot.browseFrom', { when: formatDateTime(at, locale) })}
      >
        {t('snapshot.browse')}
      </LinkButton>
    </li>
  );
}

export function Timeline({ snapshots }: { snapshots: Snapshot[] }) {
  const { t, locale } = useWords();
  const now = useNow();
  const names = new Map([
    [dayKey(now - 86_400_000), t('workload.yesterday')],
    [dayKey(now), t('workload.today')],
  ]);
  return (
    <div className={classes.timeline}>
      {byDay(snapshots).map(([key, items]) => (
        <section key={key}>
          <h2 className={classes.day}>
            {names.get(key) ?? formatDay(Date.parse(items[0]?.committed_at ?? ''), locale)}
          </h2>
          <ul className={classes.moments}>
            {items.map((snapshot) => (
              <Moment key={snapshot.id} snapshot={snapshot} />
            ))}
          </ul>
        </section>
      ))}
    </div>
  );
}
