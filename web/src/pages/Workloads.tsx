/** Am I protected? One sentence, then every workload with its newest snapshot and what runs right now. */
import { Button, TextInput } from '@mantine/core';
import { IconAlertTriangle, IconPlus, IconSearch, IconServer2, IconShieldCheck } from '@tabler/icons-react';
import { useInfiniteQuery, useQueries, useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useState } from 'react';
import { agentsQuery, runsQuery, snapshotQuery, workloadsQuery } from '../api/queries';
import { hasFailed, isActive, type Agent, type Run, type Snapshot, type Workload } from '../api/types';
import { useApi } from '../app/context';
import { DataTable, type Column } from '../components/DataTable';
import { EnrolDialog } from '../components/EnrolDialog';
import { Loaded, LoadMore } from '../components/Loaded';
import { Card, Empty, Page } from '../components/Page';
import { ProblemNote } from '../components/Problem';
import { protectionOf, type Protection } from '../components/protection';
import { RunProgress, useNamedRun } from '../components/RunProgress';
import { RunNow } from '../components/RunNow';
import { ProtectionStatus, RunStatus } from '../components/Status';
import { useNow } from '../components/useNow';
import { When } from '../components/When';
import { useWords } from '../i18n/useWords';
import classes from './pages.module.css';

const route = getRouteApi('/inside/t/$tenant/workloads');

/** A browser opens six connections to a host; streams beyond these two would starve everything else. */
const MAX_STREAMS = 2;

interface Row {
  workload: Workload;
  agent: Agent | undefined;
  last: Snapshot | undefined;
  protection: Protection;
  /** Under way, or the newest one if it came to nothing. */
  run: Run | undefined;
  streamed: boolean;
}

/** Everything the page knows about each workload, joined. */
function useRows(tenant: string, workloads: Workload[]): Row[] {
  const { api } = useApi();
  const now = useNow();
  const agents = useQuery(agentsQuery(api, tenant));
  const runs = useInfiniteQuery(runsQuery(api, tenant));
  const lastIds = workloads.flatMap((workload) => workload.last_snapshot_id ?? []);
  const lasts = useQueries({ queries: lastIds.map((id) => snapshotQuery(api, tenant, id)) });
  const snapshots = new Map(lasts.flatMap(({ data }) => (data ? [[data.id, data] as const] : [])));
  const recent = runs.data?.pages[0]?.items ?? [];
  const active = recent.filter(isActive);
  const streams = new Set(active.slice(0, MAX_STREAMS).map((run) => run.id));
  return workloads.map((workload) => {
    const last = snapshots.get(workload.last_snapshot_id ?? '');
    const own = recent.filter((candidate) => candidate.workload_id === workload.id);
    const run = own.find(isActive) ?? own.slice(0, 1).find(hasFailed);
    return {
      workload,
      last,
      run,
      agent: agents.data?.items.find((agent) => agent.id === workload.agent_id),
      protection: protectionOf(workload, last, now),
      streamed: run !== undefined && streams.has(run.id),
    };
  });
}

function LiveRow({ run, row }: { run: Run; row: Row }) {
  const { name } = row.workload;
  const live = useNamedRun(run, name, row.streamed);
  return isActive(live.run) ? <RunProgress live={live} name={name} linked /> : null;
}

/** The newest run came to nothing: said here, where one looks for "am I protected?". */
function FailedRow({ run }: { run: Run }) {
  const { t } = useWords();
  return (
    <div className={classes.failed}>
      <RunStatus state={run.state} />
      {run.error && <span lang="en">{run.error}</span>}
      <Link to="/t/$tenant/runs/$run" params={{ tenant: run.tenant_id, run: run.id }} className={classes.link}>
        {t('run.details')}
      </Link>
    </div>
  );
}

function BelowRow({ row }: { row: Row }) {
  if (!row.run) return null;
  return isActive(row.run) ? <LiveRow run={row.run} row={row} /> : <FailedRow run={row.run} />;
}

function Verdict({ rows, machines }: { rows: Row[]; machines: number }) {
  const { t, count } = useWords();
  const open = rows.filter((row) => row.protection === 'open' || row.protection === 'lapsed').length;
  // Nothing is called protected before its newest snapshot has been seen.
  const unsure = rows.some((row) => row.protection === 'unknown');
  const newest = rows.map((row) => row.workload.last_snapshot_at ?? '').reduce((a, b) => (a > b ? a : b), '');
  const total = rows.reduce((sum, row) => sum + row.workload.snapshots, 0);
  return (
    <Card>
      <div className={classes.verdict}>
        <p className={classes.sentence}>
          <span className={classes.shield} data-tone={open > 0 ? 'warn' : unsure ? 'idle' : 'ok'} aria-hidden="true">
            {open > 0 ? <IconAlertTriangle size={24} /> : <IconShieldCheck size={24} />}
          </span>
          {open > 0
            ? t('workloads.someOpen', { count: open })
            : unsure
              ? t('protection.unknown')
              : t('workloads.allHeld', { count: rows.length })}
        </p>
        <dl className={classes.tallies}>
          {newest && (
            <div>
              <dt>{t('workloads.newest')}</dt>
              <dd>
                <When at={newest} />
              </dd>
            </div>
          )}
          <div>
            <dt>{t('workloads.snapshots')}</dt>
            <dd>{count(total)}</dd>
          </div>
          <div>
            <dt>{t('workloads.machines')}</dt>
            <dd>{count(machines)}</dd>
          </div>
        </dl>
      </div>
    </Card>
  );
}

function useColumns(onError: (error: unknown) => void): Column<Row>[] {
  const { t, bytes, locale } = useWords();
  return [
    {
      id: 'name',
      header: t('workloads.name'),
      isName: true,
      sortBy: ({ workload }) => workload.name.toLocaleLowerCase(locale),
      cell: ({ workload, agent }) => (
        <span className={classes.named}>
          <Link
            to="/t/$tenant/workloads/$workload"
            params={{ tenant: workload.tenant_id, workload: workload.id }}
            className={classes.strong}
          >
            {workload.name}
          </Link>
          <span className={classes.sub}>
            {[t(`workloads.kind.${workload.kind as 'files'}`, { defaultValue: workload.kind }), agent?.hostname]
              .filter(Boolean)
              .join(' · ')}
          </span>
        </span>
      ),
    },
    {
      id: 'state',
      header: t('workloads.state'),
      cell: ({ protection }) => <ProtectionStatus state={protection} />,
    },
    {
      id: 'last',
      header: t('workloads.last'),
      sortBy: ({ workload }) => workload.last_snapshot_at ?? '',
      cell: ({ workload, last }) =>
        workload.last_snapshot_at ? (
          <span className={classes.stacked}>
            <When at={workload.last_snapshot_at} />
            {last && <span className={classes.sub}>{bytes(last.stats.source_bytes)}</span>}
          </span>
        ) : (
          <span className={classes.sub}>{t('workloads.never')}</span>
        ),
    },
    {
      id: 'locked',
      header: t('workloads.lockedUntil'),
      sortBy: ({ last }) => last?.locked_until ?? '',
      cell: ({ last }) => (last ? <When at={last.locked_until} as="date" /> : <span className={classes.sub}>–</span>),
    },
    {
      id: 'actions',
      header: t('workloads.actions'),
      headerHidden: true,
      align: 'end',
      cell: ({ workload, run }) => <RunNow workload={workload} busy={run !== undefined && isActive(run)} onError={onError} />,
    },
  ];
}

function WorkloadTable({ rows }: { rows: Row[] }) {
  const { t } = useWords();
  const { q, sort } = route.useSearch();
  const navigate = route.useNavigate();
  const [error, setError] = useState<unknown>(null);
  const columns = useColumns(setError);
  const wanted = (q ?? '').toLocaleLowerCase();
  const shown = rows.filter(({ workload, agent }) =>
    `${workload.name} ${agent?.hostname ?? ''}`.toLocaleLowerCase().includes(wanted),
  );
  const filter = (value: string) =>
    void navigate({ search: ({ q: _, ...rest }) => (value ? { ...rest, q: value } : rest), replace: true });
  return (
    <>
      {error ? <ProblemNote error={error} /> : null}
      <Card flush>
        {(rows.length > 5 || q) && (
          <div className={classes.toolbar}>
            <TextInput
              aria-label={t('workloads.search')}
              placeholder={t('workloads.search')}
              leftSection={<IconSearch size={16} aria-hidden="true" />}
              value={q ?? ''}
              onChange={(event) => filter(event.currentTarget.value)}
            />
          </div>
        )}
        {shown.length > 0 ? (
          <DataTable
            label={t('workloads.title')}
            columns={columns}
            rows={shown}
            rowId={({ workload }) => workload.id}
            sort={sort}
            onSort={(next) =>
              void navigate({ search: ({ sort: _, ...rest }) => (next ? { ...rest, sort: next } : rest), replace: true })
            }
            below={(row) => row.run && <BelowRow row={row} />}
          />
        ) : (
          <div className={classes.toolbar}>
            <span>{t('workloads.noMatch', { filter: q })}</span>
            <Button variant="default" size="xs" onClick={() => filter('')}>
              {t('workloads.clear')}
            </Button>
          </div>
        )}
      </Card>
    </>
  );
}

function FirstUse({ onEnrol }: { onEnrol: () => void }) {
  const { t } = useWords();
  return (
    <Empty icon={<IconServer2 size={24} />} title={t('workloads.emptyTitle')}>
      <p className={classes.quiet}>{t('workloads.emptyBody')}</p>
      <ol className={classes.steps}>
        <li>{t('workloads.emptyStep1')}</li>
        <li>{t('workloads.emptyStep2')}</li>
        <li>{t('workloads.emptyStep3')}</li>
      </ol>
      <Button leftSection={<IconPlus size={16} aria-hidden="true" />} onClick={onEnrol} mt={8}>
        {t('workloads.enrol')}
      </Button>
    </Empty>
  );
}

function Overview({ tenant, workloads, onEnrol }: { tenant: string; workloads: Workload[]; onEnrol: () => void }) {
  const rows = useRows(tenant, workloads);
  if (rows.length === 0) return <FirstUse onEnrol={onEnrol} />;
  const machines = new Set(workloads.map((workload) => workload.agent_id)).size;
  return (
    <>
      <Verdict rows={rows} machines={machines} />
      <WorkloadTable rows={rows} />
    </>
  );
}

export function WorkloadsPage() {
  const { t } = useWords();
  const { api } = useApi();
  const { tenant } = route.useParams();
  const { enrol } = route.useSearch();
  const navigate = route.useNavigate();
  const workloads = useInfiniteQuery(workloadsQuery(api, tenant));
  const setEnrol = (open: boolean) =>
    void navigate({ search: ({ enrol: _, ...rest }) => (open ? { ...rest, enrol: true as const } : rest) });
  const some = (workloads.data?.pages[0]?.items.length ?? 0) > 0;
  return (
    <Page
      title={t('workloads.title')}
      actions={
        some && (
          <Button leftSection={<IconPlus size={16} aria-hidden="true" />} onClick={() => setEnrol(true)}>
            {t('workloads.enrol')}
          </Button>
        )
      }
    >
      <Loaded query={workloads}>
        {(data) => (
          <Overview
            tenant={tenant}
            workloads={data.pages.flatMap((page) => page.items)}
            onEnrol={() => setEnrol(true)}
          />
        )}
      </Loaded>
      <LoadMore query={workloads} />
      <EnrolDialog tenant={tenant} opened={enrol === true} onClose={() => setEnrol(false)} />
    </Page>
  );
}
