/** One workload: is it held, since when, until when; its snapshots on a line and its runs in a table. */
import { Tabs } from '@mantine/core';
import { IconChevronLeft, IconHistory, IconTimeline } from '@tabler/icons-react';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useState } from 'react';
import { agentsQuery, runsQuery, snapshotQuery, snapshotsQuery, workloadQuery } from '../api/queries';
import { isActive, type Run, type Workload } from '../api/types';
import { useApi } from '../app/context';
import { Loaded, LoadMore } from '../components/Loaded';
import { Card, Empty, Facts, Page } from '../components/Page';
import { ProblemNote } from '../components/Problem';
import { protectionOf } from '../components/protection';
import { RunProgress, useNamedRun } from '../components/RunProgress';
import { RunNow } from '../components/RunNow';
import { ProtectionStatus } from '../components/Status';
import { Strip } from '../components/Strip';
import { Timeline } from '../components/Timeline';
import { RunTable } from '../components/RunTable';
import { useNow } from '../components/useNow';
import { When } from '../components/When';
import { useWords } from '../i18n/useWords';
import classes from './pages.module.css';

const route = getRouteApi('/inside/t/$tenant/workloads/$workload');

function Current({ run, name }: { run: Run; name: string }) {
  const live = useNamedRun(run, name);
  if (!isActive(live.run)) return null;
  return (
    <Card>
      <RunProgress live={live} name={name} linked />
    </Card>
  );
}

function MachineFacts({ workload }: { workload: Workload }) {
  const { t, count } = useWords();
  const { api } = useApi();
  const agents = useQuery(agentsQuery(api, workload.tenant_id));
  const last = useQuery({
    ...snapshotQuery(api, workload.tenant_id, workload.last_snapshot_id ?? ''),
    enabled: Boolean(workload.last_snapshot_id),
  });
  const agent = agents.data?.items.find((candidate) => candidate.id === workload.agent_id);
  return (
    <Facts
      items={[
        { label: t('workload.machine'), value: agent ? `${agent.hostname} (${agent.os})` : '–' },
        agent?.revoked_at
          ? { label: t('workload.removed'), value: <When at={agent.revoked_at} /> }
          : { label: t('workload.seen'), value: agent?.last_seen_at ? <When at={agent.last_seen_at} /> : '–' },
        { label: t('workload.since'), value: <When at={workload.created_at} as="date" /> },
        { label: t('workload.snapshots'), value: count(workload.snapshots) },
        {
          label: t('snapshot.lock'),
          value: last.data ? <When at={last.data.locked_until} as="date" /> : '–',
          hint: t('snapshot.lockHint'),
        },
      ]}
    />
  );
}

function SnapshotsTab({ workload }: { workload: Workload }) {
  const { t } = useWords();
  const { api } = useApi();
  const snapshots = useInfiniteQuery(snapshotsQuery(api, workload.tenant_id, workload.id));
  return (
    <Loaded query={snapshots}>
      {(data) => {
        const items = data.pages.flatMap((page) => page.items);
        if (items.length === 0) {
          return (
            <Empty icon={<IconTimeline size={24} />} title={t('workload.noSnapshots')}>
              <p className={classes.quiet}>{t('workload.noSnapshotsBody')}</p>
            </Empty>
          );
        }
        return (
          <div className={classes.timeline}>
            <Card>
              <Strip snapshots={items} />
            </Card>
            <Timeline snapshots={items} />
            <LoadMore query={snapshots} />
          </div>
        );
      }}
    </Loaded>
  );
}

function RunsTab({ workload }: { workload: Workload }) {
  const { t } = useWords();
  const { api } = useApi();
  const runs = useInfiniteQuery(runsQuery(api, workload.tenant_id, workload.id));
  return (
    <Loaded query={runs}>
      {(data) => {
        const items = data.pages.flatMap((page) => page.items);
        if (items.length === 0) {
          return (
            <Empty icon={<IconHistory size={24} />} title={t('workload.noRuns')}>
              <p className={classes.quiet}>{t('workload.noRunsBody')}</p>
            </Empty>
          );
        }
        return (
          <div className={classes.timeline}>
            <Card flush>
              <RunTable runs={items} />
            </Card>
            <LoadMore query={runs} />
          </div>
        );
      }}
    </Loaded>
  );
}

function WorkloadView({ workload }: { workload: Workload }) {
  const { t } = useWords();
  const { api } = useApi();
  const now = useNow();
  const { tab } = route.useSearch();
  const navigate = route.useNavigate();
  const [error, setError] = useState<unknown>(null);
  const runs = useInfiniteQuery(runsQuery(api, workload.tenant_id, workload.id));
  const last = useQuery({
    ...snapshotQuery(api, workload.tenant_id, workload.last_snapshot_id ?? ''),
    enabled: Boolean(workload.last_snapshot_id),
  });
  const active = runs.data?.pages[0]?.items.find(isActive);
  return (
    <Page
      title={workload.name}
      above={<BackToWorkloads tenant={workload.tenant_id} />}
      below={<ProtectionStatus state={protectionOf(workload, last.data, now)} />}
      actions={<RunNow workload={workload} busy={active !== undefined} onError={setError} prominent />}
    >
      {error ? <ProblemNote error={error} /> : null}
      {active && <Current run={active} name={workload.name} />}
      <Card>
        <MachineFacts workload={workload} />
      </Card>
      <Tabs
        value={tab ?? 'snapshots'}
        onChange={(value) => void navigate({ search: value === 'runs' ? { tab: 'runs' } : {}, replace: true })}
        keepMounted={false}
      >
        <Tabs.List mb="lg">
          <Tabs.Tab value="snapshots" leftSection={<IconTimeline size={16} aria-hidden="true" />}>
            {t('workload.snapshots')}
          </Tabs.Tab>
          <Tabs.Tab value="runs" leftSection={<IconHistory size={16} aria-hidden="true" />}>
            {t('workload.runs')}
          </Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="snapshots">
          <SnapshotsTab workload={workload} />
        </Tabs.Panel>
        <Tabs.Panel value="runs">
          <RunsTab workload={workload} />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}

function BackToWorkloads({ tenant }: { tenant: string }) {
  const { t } = useWords();
  return (
    <Link to="/t/$tenant/workloads" params={{ tenant }} className={classes.back}>
      <IconChevronLeft size={16} aria-hidden="true" />
      {t('workload.back')}
    </Link>
  );
}

export function WorkloadPage() {
  const { api } = useApi();
  const { tenant, workload } = route.useParams();
  const query = useQuery(workloadQuery(api, tenant, workload));
  return <Loaded query={query}>{(data) => <WorkloadView workload={data} />}</Loaded>;
}
