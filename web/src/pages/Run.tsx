/** One run at its own address: live while it goes, a record once it has ended, with every exception named. */
import { Button } from '@mantine/core';
import { IconChevronLeft, IconFolderOpen } from '@tabler/icons-react';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useState } from 'react';
import { cancelRun, runQuery, workloadQuery } from '../api/queries';
import { isActive, type Run, type RunException } from '../api/types';
import { useApi } from '../app/context';
import { DataTable, type Column } from '../components/DataTable';
import { Dialog } from '../components/Dialog';
import { LinkButton } from '../components/LinkButton';
import { Loaded } from '../components/Loaded';
import { Card, Facts, Page } from '../components/Page';
import { ProblemNote } from '../components/Problem';
import { RunProgress, useNamedRun } from '../components/RunProgress';
import { tookMs } from '../components/RunTable';
import { RunStatus } from '../components/Status';
import { When } from '../components/When';
import { formatDuration } from '../format/time';
import { useWords } from '../i18n/useWords';
import classes from './pages.module.css';

const route = getRouteApi('/inside/t/$tenant/runs/$run');

function CancelRun({ run, name }: { run: Run; name: string }) {
  const { t } = useWords();
  const { api } = useApi();
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const cancel = useMutation({
    mutationFn: () => cancelRun(api, run.tenant_id, run.id),
    onSuccess: () => {
      setAsking(false);
      return client.invalidateQueries({ queryKey: [run.tenant_id, 'runs'] });
    },
  });
  return (
    <>
      <Button variant="default" disabled={run.cancel_requested} onClick={() => setAsking(true)}>
        {run.cancel_requested ? t('run.canceling') : t('run.cancel')}
      </Button>
      <Dialog opened={asking} onClose={() => setAsking(false)} title={t('run.cancelTitle', { name })}>
        <div className={classes.section}>
          <p className={classes.quiet}>{t('run.cancelBody')}</p>
          {cancel.error && <ProblemNote error={cancel.error} />}
          <div className={classes.dialogActions}>
            <Button variant="default" data-autofocus onClick={() => setAsking(false)}>
              {t('run.cancelNo')}
            </Button>
            <Button color="red.9" loading={cancel.isPending} onClick={() => cancel.mutate()}>
              {t('run.cancel')}
            </Button>
          </div>
        </div>
      </Dialog>
    </>
  );
}

function Figures({ run }: { run: Run }) {
  const { t, bytes, count, locale } = useWords();
  const took = tookMs(run);
  return (
    <Facts
      items={[
        run.started_at ? { label: t('run.startedAt'), value: <When at={run.started_at} /> } : null,
        took === null ? null : { label: t('run.took'), value: formatDuration(took, locale) },
        { label: t('run.files'), value: count(run.progress.files) },
        { label: t('run.read'), value: bytes(run.progress.source_bytes) },
        { label: t('run.new'), value: bytes(run.progress.new_bytes) },
        { label: t('run.stored'), value: bytes(run.progress.stored_bytes) },
        { label: t('run.exceptions'), value: count(run.progress.exceptions) },
      ]}
    />
  );
}

function Exceptions({ run }: { run: Run }) {
  const { t, plural, count } = useWords();
  const total = run.progress.exceptions;
  if (total === 0 && run.exceptions.length === 0) {
    return run.state === 'succeeded' ? <p className={classes.quiet}>{t('run.noExceptions')}</p> : null;
  }
  const columns: Column<RunException>[] = [
    {
      id: 'path',
      header: t('exception.path'),
      isName: true,
      cell: (exception) => <span className={classes.code}>{exception.path}</span>,
    },
    { id: 'kind', header: t('exception.kind'), cell: (exception) => t(`exception.${exception.kind}`) },
    {
      id: 'detail',
      header: t('exception.detail'),
      cell: (exception) => <span className={classes.sub}>{exception.detail}</span>,
    },
  ];
  return (
    <section className={classes.section}>
      <h2 className={classes.heading}>{t('run.exceptions')}</h2>
      <p className={classes.quiet}>
        {t('run.exceptionsBody', plural(total))}{' '}
        {total > run.exceptions.length &&
          run.exceptions.length > 0 &&
          t('run.exceptionsFirst', { formatted: count(run.exceptions.length) })}
      </p>
      {run.exceptions.length > 0 && (
        <Card flush>
          <DataTable
            label={t('run.exceptions')}
            columns={columns}
            rows={run.exceptions}
            rowId={(exception) => `${exception.path_b64 ?? exception.path} ${exception.kind}`}
          />
        </Card>
      )}
    </section>
  );
}

function RunView({ run: given }: { run: Run }) {
  const { t } = useWords();
  const { api } = useApi();
  const workload = useQuery(workloadQuery(api, given.tenant_id, given.workload_id));
  const name = workload.data?.name ?? '…';
  const live = useNamedRun(given, name);
  const { run } = live;
  const active = isActive(run);
  return (
    <Page
      title={`${t('run.title')}: ${name}`}
      above={
        <Link
          to="/t/$tenant/workloads/$workload"
          params={{ tenant: run.tenant_id, workload: run.workload_id }}
          search={{ tab: 'runs' }}
          className={classes.back}
        >
          <IconChevronLeft size={16} aria-hidden="true" />
          {name}
        </Link>
      }
      below={
        <>
          <RunStatus state={run.state} />
          <span>{t(`run.trigger.${run.trigger}`)}</span>
        </>
      }
      actions={
        active ? (
          <CancelRun run={run} name={name} />
        ) : (
          run.snapshot_id && (
            <LinkButton
              to="/t/$tenant/snapshots/$snapshot"
              params={{ tenant: run.tenant_id, snapshot: run.snapshot_id }}
              leftSection={<IconFolderOpen size={16} aria-hidden="true" />}
            >
              {t('run.snapshot')}
            </LinkButton>
          )
        )
      }
    >
      {active && (
        <Card>
          <RunProgress live={live} name={name} />
        </Card>
      )}
      {run.error && (
        <div role="alert" className={classes.error}>
          <strong>{t('run.failed')}</strong>
          <p lang="en">{run.error}</p>
        </div>
      )}
      <Card>
        <Figures run={run} />
      </Card>
      {run.source.paths.length > 0 && (
        <section className={classes.section}>
          <h2 className={classes.heading}>{t('run.paths')}</h2>
          <p className={classes.code}>{run.source.paths.join('  ')}</p>
          {(run.source.excludes ?? []).length > 0 && (
            <p className={classes.quiet}>
              {t('run.excludes')}: <span className={classes.code}>{run.source.excludes?.join('  ')}</span>
            </p>
          )}
        </section>
      )}
      <Exceptions run={run} />
    </Page>
  );
}

export function RunPage() {
  const { api } = useApi();
  const { tenant, run } = route.useParams();
  const query = useQuery(runQuery(api, tenant, run));
  return <Loaded query={query}>{(data) => <RunView key={data.id} run={data} />}</Loaded>;
}
