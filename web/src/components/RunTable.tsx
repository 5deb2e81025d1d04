/** Runs of a workload, newest first. */
import { Link } from '@tanstack/react-router';
import type { Run } from '../api/types';
import { formatDuration } from '../format/time';
import { useWords } from '../i18n/useWords';
import classes from '../pages/pages.module.css';
import { DataTable, type Column } from './DataTable';
import { RunStatus } from './Status';
import { When } from './When';

/** How long a run took; null while it has not both begun and ended. */
export function tookMs(run: Run): number | null {
  if (!run.started_at || !run.ended_at) return null;
  return Math.max(0, Date.parse(run.ended_at) - Date.parse(run.started_at));
}

export function RunTable({ runs }: { runs: Run[] }) {
  const { t, bytes, count, locale } = useWords();
  const columns: Column<Run>[] = [
    {
      id: 'started',
      header: t('workload.runStarted'),
      isName: true,
      cell: (run) => (
        <span className={classes.named}>
          <Link to="/t/$tenant/runs/$run" params={{ tenant: run.tenant_id, run: run.id }} className={classes.strong}>
            <When at={run.started_at ?? run.created_at} />
          </Link>
          <span className={classes.sub}>{t(`run.trigger.${run.trigger}`)}</span>
        </span>
      ),
    },
    { id: 'state', header: t('workload.runState'), cell: (run) => <RunStatus state={run.state} /> },
    {
      id: 'took',
      header: t('workload.runTook'),
      align: 'end',
      cell: (run) => {
        const took = tookMs(run);
        return took === null ? '–' : formatDuration(took, locale);
      },
    },
    {
      id: 'read',
      header: t('workload.runRead'),
      align: 'end',
      cell: (run) => bytes(run.progress.source_bytes),
    },
    {
      id: 'stored',
      header: t('workload.runStored'),
      align: 'end',
      cell: (run) => bytes(run.progress.stored_bytes),
    },
    {
      id: 'exceptions',
      header: t('workload.runExceptions'),
      align: 'end',
      cell: (run) => count(run.progress.exceptions),
    },
  ];
  return <DataTable label={t('workload.runs')} columns={columns} rows={runs} rowId={(run) => run.id} />;
}
