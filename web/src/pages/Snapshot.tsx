/** A snapshot, browsed folder by folder, and the command that brings it back. */
import { Button } from '@mantine/core';
import { IconAlertTriangle, IconArrowBackUp, IconChevronLeft, IconLock } from '@tabler/icons-react';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { hasCode } from '../api/problem';
import { entriesQuery, snapshotQuery, workloadQuery, type Folder } from '../api/queries';
import type { Snapshot } from '../api/types';
import { useApi } from '../app/context';
import { CommandLine } from '../components/Copy';
import { Dialog } from '../components/Dialog';
import { Crumbs } from '../components/Crumbs';
import { FileList } from '../components/FileList';
import { Loaded } from '../components/Loaded';
import { Card, Empty, Facts, Page } from '../components/Page';
import { RunStatus } from '../components/Status';
import { When } from '../components/When';
import { crumbs } from '../format/folder';
import { useWords } from '../i18n/useWords';
import classes from './pages.module.css';
import { restoreCommand } from './restoreCommand';

const route = getRouteApi('/inside/t/$tenant/snapshots/$snapshot');

function Restore({ snapshot, folder }: { snapshot: Snapshot; folder: Folder }) {
  const { t } = useWords();
  const [open, setOpen] = useState(false);
  // A name that is not UTF-8 cannot be written into a command line.
  const part = folder.path !== '/' && !folder.pathB64;
  return (
    <>
      <Button
        variant="default"
        leftSection={<IconArrowBackUp size={16} aria-hidden="true" />}
        onClick={() => setOpen(true)}
      >
        {t('snapshot.restore')}
      </Button>
      <Dialog opened={open} onClose={() => setOpen(false)} title={t('snapshot.restoreTitle')} size="lg">
        <div className={classes.section}>
          <p className={classes.quiet}>{t('snapshot.restoreBody')}</p>
          {part && (
            <>
              <h3 className={classes.heading}>{t('snapshot.restorePart')}</h3>
              <CommandLine
                command={restoreCommand(snapshot.id, folder.path)}
                label={t('snapshot.restorePart')}
              />
            </>
          )}
          <h3 className={classes.heading}>{t('snapshot.restoreAll')}</h3>
          <CommandLine command={restoreCommand(snapshot.id)} label={t('snapshot.restoreAll')} />
        </div>
      </Dialog>
    </>
  );
}

function SnapshotFacts({ snapshot }: { snapshot: Snapshot }) {
  const { t, bytes, count } = useWords();
  return (
    <Facts
      items={[
        { label: t('snapshot.files'), value: count(snapshot.stats.files) },
        { label: t('snapshot.size'), value: bytes(snapshot.stats.source_bytes) },
        { label: t('snapshot.newContent'), value: bytes(snapshot.stats.new_bytes) },
        { label: t('snapshot.stored'), value: bytes(snapshot.stats.stored_bytes) },
        {
          label: t('snapshot.lock'),
          value: (
            <span className={classes.withIcon}>
              <IconLock size={15} aria-hidden="true" />
              <When at={snapshot.locked_until} as="date" />
            </span>
          ),
          hint: t('snapshot.lockHint'),
        },
      ]}
    />
  );
}

/** Above a folder of which a part is lost. */
function Incomplete({ snapshot }: { snapshot: Snapshot }) {
  const { t } = useWords();
  return (
    <div role="alert" className={classes.damaged}>
      <strong className={classes.withIcon}>
        <IconAlertTriangle size={18} aria-hidden="true" />
        {t('browse.incomplete')}
      </strong>
      <p>{t('browse.incompleteBody')}</p>
      <CommandLine command={`everhold-agent verify ${snapshot.id}`} label={t('browse.incompleteBody')} />
    </div>
  );
}

function Contents({ snapshot, folder }: { snapshot: Snapshot; folder: Folder }) {
  const { t } = useWords();
  const { api } = useApi();
  const navigate = route.useNavigate();
  const entries = useInfiniteQuery(entriesQuery(api, snapshot.tenant_id, snapshot.id, folder));
  const trail = useMemo(() => crumbs(folder) ?? [], [folder]);
  const open = (next: Folder) =>
    void navigate({
      search: next.pathB64 ? { path_b64: next.pathB64 } : next.path === '/' ? {} : { path: next.path },
      resetScroll: false,
    });
  if (entries.error && hasCode(entries.error, 'customer_held')) {
    return (
      <Empty icon={<IconLock size={24} />} title={t('browse.customerHeld')}>
        <p className={classes.quiet}>{t('browse.customerHeldBody')}</p>
        <CommandLine command={`everhold-agent ls ${snapshot.id}`} label={t('browse.customerHeldBody')} />
      </Empty>
    );
  }
  return (
    <Card flush>
      <Crumbs tenant={snapshot.tenant_id} snapshot={snapshot.id} trail={trail} />
      <Loaded query={entries}>
        {(data) => {
          const incomplete = data.pages.some((page) => page.incomplete);
          return (
            <>
              {incomplete && <Incomplete snapshot={snapshot} />}
              <FileList
                key={folder.pathB64 ?? folder.path}
                folder={trail.at(-1)?.name ?? t('browse.top')}
                entries={data.pages.flatMap((page) => page.items)}
                incomplete={incomplete}
                more={entries}
                onOpen={open}
                onUp={trail.length > 0 ? () => open(trail.at(-2) ?? { path: '/' }) : undefined}
              />
            </>
          );
        }}
      </Loaded>
    </Card>
  );
}

function SnapshotView({ snapshot }: { snapshot: Snapshot }) {
  const { t } = useWords();
  const { api } = useApi();
  const { path, path_b64 } = route.useSearch();
  const folder = useMemo<Folder>(() => ({ path: path ?? '/', pathB64: path_b64 }), [path, path_b64]);
  const workload = useQuery(workloadQuery(api, snapshot.tenant_id, snapshot.workload_id));
  const name = workload.data?.name ?? '…';
  return (
    <Page
      title={t('snapshot.of', { name })}
      above={
        <Link
          to="/t/$tenant/workloads/$workload"
          params={{ tenant: snapshot.tenant_id, workload: snapshot.workload_id }}
          className={classes.back}
        >
          <IconChevronLeft size={16} aria-hidden="true" />
          {name}
        </Link>
      }
      below={
        <>
          <RunStatus state={snapshot.status} />
          <When at={snapshot.committed_at} />
          <Link
            to="/t/$tenant/runs/$run"
            params={{ tenant: snapshot.tenant_id, run: snapshot.run_id }}
            className={classes.link}
          >
            {t('run.details')}
          </Link>
        </>
      }
      actions={<Restore snapshot={snapshot} folder={folder} />}
    >
      <Card>
        <SnapshotFacts snapshot={snapshot} />
      </Card>
      <Contents snapshot={snapshot} folder={folder} />
    </Page>
  );
}

export function SnapshotPage() {
  const { api } = useApi();
  const { tenant, snapshot } = route.useParams();
  const query = useQuery(snapshotQuery(api, tenant, snapshot));
  return <Loaded query={query}>{(data) => <SnapshotView snapshot={data} />}</Loaded>;
}
