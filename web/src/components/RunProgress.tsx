/**
 * A run under way: phase, figures, and how fresh they are. The amount of work is not known before the agent
 * has walked the folders, so there is no percentage to promise.
 */
import { IconPlugConnectedX } from '@tabler/icons-react';
import { Link } from '@tanstack/react-router';
import type { Run } from '../api/types';
import { useRunLive, type Live } from '../api/useRunLive';
import { formatDuration, formatRelative } from '../format/time';
import { useWords } from '../i18n/useWords';
import { useAnnounce } from './Announcer';
import { useNow, useSecond } from './useNow';
import classes from './RunProgress.module.css';

const PHASES = ['scanning', 'uploading', 'committing'] as const;

function usePhase(live: Live): string {
  const { t } = useWords();
  if (live.run.cancel_requested) return t('run.canceling');
  if (live.run.state === 'queued') return t('run.waiting');
  const phase = PHASES.find((name) => name === live.run.progress.phase);
  return t(`run.phase.${phase ?? 'other'}`);
}

export function FeedBanner({ live }: { live: Live }) {
  const { t, locale } = useWords();
  const now = useNow();
  if (live.feed !== 'polling' && live.feed !== 'stale') return null;
  return (
    <p role="status" className={classes.banner} data-feed={live.feed}>
      <IconPlugConnectedX size={16} aria-hidden="true" />
      {live.feed === 'polling'
        ? t('feed.polling')
        : t('feed.stale', { when: formatRelative(live.heardAt, now, locale) })}
    </p>
  );
}

interface RunProgressProps {
  live: Live;
  name: string;
  /** Link to the run's own page, where this is not it. */
  linked?: boolean;
}

export function RunProgress({ live, name, linked = false }: RunProgressProps) {
  const { t, bytes, plural, locale } = useWords();
  const now = useSecond();
  const phase = usePhase(live);
  const { run } = live;
  const { progress } = run;
  const running = run.state === 'running';
  const elapsed = run.started_at ? Math.max(0, now - Date.parse(run.started_at)) : 0;
  return (
    <div className={classes.progress}>
      <div className={classes.words}>
        <span className={classes.phase}>{phase}</span>
        {live.feed === 'live' && (
          <span className={classes.live}>
            <span className={classes.dot} aria-hidden="true" />
            {t('feed.live')}
          </span>
        )}
        {running && (
          <span className={classes.figures}>
            <span>{t('run.filesOf', plural(progress.files))}</span>
            <span>
              {t('run.read')} {bytes(progress.source_bytes)}
            </span>
            <span>
              {t('run.stored')} {bytes(progress.stored_bytes)}
            </span>
            {run.started_at && <span>{formatDuration(elapsed, locale)}</span>}
          </span>
        )}
        {linked && (
          <Link to="/t/$tenant/runs/$run" params={{ tenant: run.tenant_id, run: run.id }} className={classes.link}>
            {t('run.follow')}
          </Link>
        )}
      </div>
      {/* No value: the work ahead is unknown. */}
      <div
        role="progressbar"
        aria-label={`${t('run.progress')}: ${name}`}
        aria-valuetext={phase}
        className={classes.track}
        data-waiting={!running || undefined}
      />
      <FeedBanner live={live} />
    </div>
  );
}

/** Follows a run of the workload called `name` and says its end aloud, once; figures stay silent. */
export function useNamedRun(run: Run, name: string, enabled = true): Live {
  const { t } = useWords();
  const announce = useAnnounce();
  return useRunLive(run, {
    enabled,
    onEnd: ({ state }) => announce(t('run.announceEnd', { name, state: t(`runState.${state}`) })),
  });
}
