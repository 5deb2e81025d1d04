/** What happened, as the audit role recorded it. */
import { UnstyledButton } from '@mantine/core';
import { IconActivity, IconChevronDown, IconChevronUp } from '@tabler/icons-react';
import { useInfiniteQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { auditQuery } from '../api/queries';
import type { RecordedEvent } from '../api/types';
import { useApi } from '../app/context';
import { CopyButton } from '../components/Copy';
import { DataTable, type Column } from '../components/DataTable';
import { Loaded, LoadMore } from '../components/Loaded';
import { Card, Empty, Page } from '../components/Page';
import { When } from '../components/When';
import { formatAbsolute } from '../format/time';
import { useWords } from '../i18n/useWords';
import classes from './pages.module.css';

const route = getRouteApi('/inside/t/$tenant/activity');

/** Words for an action; one the portal does not know yet shows as it is recorded. */
function useActionWords(): (action: string) => string {
  const { t } = useWords();
  return (action) => t(`audit.${action.replaceAll('.', '_') as 'run_queued'}`, { defaultValue: action });
}

const shown = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

function Details({ event }: { event: RecordedEvent }) {
  const { t, locale } = useWords();
  const facts: [string, string][] = [
    [t('activity.when'), formatAbsolute(Date.parse(event.occurred_at), locale)],
    [t('activity.recorded'), formatAbsolute(Date.parse(event.recorded_at), locale)],
    [t('activity.eventId'), event.id],
    [event.subject_kind, event.subject_id],
    [t(`activity.actor.${event.actor.kind as 'user'}`, { defaultValue: event.actor.kind }), event.actor.id],
    ...Object.entries(event.details).map(([key, value]): [string, string] => [key, shown(value)]),
  ];
  return (
    <dl className={classes.details} id={`event-${event.seq}`}>
      {facts.map(([label, value]) => (
        <Fact key={label} label={label}>
          {value}
        </Fact>
      ))}
      {event.request_id && (
        <Fact label={t('activity.request')}>
          <span className={classes.withIcon}>
            <code>{event.request_id}</code>
            <CopyButton text={event.request_id} label={t('problem.copyId')} />
          </span>
        </Fact>
      )}
    </dl>
  );
}

function Fact({ label, children }: { label: string; children: React.ReactNode }) {
  return (
    <>
      <dt>{label}</dt>
      <dd>{children}</dd>
    </>
  );
}

export function ActivityPage() {
  const { t } = useWords();
  const { api } = useApi();
  const { tenant } = route.useParams();
  const { open } = route.useSearch();
  const navigate = route.useNavigate();
  const words = useActionWords();
  const events = useInfiniteQuery(auditQuery(api, tenant));

  const columns: Column<RecordedEvent>[] = [
    {
      id: 'what',
      header: t('activity.what'),
      isName: true,
      cell: (event) => (
        <span className={classes.named}>
          <span className={classes.strong}>{words(event.action)}</span>
          <span className={classes.sub}>
            {t('activity.seq')} {event.seq}
          </span>
        </span>
      ),
    },
    { id: 'when', header: t('activity.when'), cell: (event) => <When at={event.occurred_at} /> },
    {
      id: 'who',
      header: t('activity.who'),
      cell: (event) => (
        <span className={classes.stacked}>
          {t(`activity.actor.${event.actor.kind as 'user'}`, { defaultValue: event.actor.kind })}
          {event.actor.home_tenant_id && event.actor.home_tenant_id !== event.tenant_id && (
            <span className={classes.sub}>{t('activity.outside')}</span>
          )}
        </span>
      ),
    },
    {
      id: 'about',
      header: t('activity.about'),
      cell: (event) => (
        <span className={classes.code} title={event.subject_id}>
          {event.subject_kind} …{event.subject_id.slice(-8)}
        </span>
      ),
    },
    {
      id: 'open',
      header: t('activity.details'),
      headerHidden: true,
      align: 'end',
      cell: (event) => {
        const expanded = open === event.id;
        return (
          <UnstyledButton
            className={classes.expand}
            aria-expanded={expanded}
            aria-controls={expanded ? `event-${event.seq}` : undefined}
            aria-label={t('activity.more', { seq: event.seq })}
            onClick={() => void navigate({ search: expanded ? {} : { open: event.id }, replace: true, resetScroll: false })}
          >
            {expanded ? <IconChevronUp size={18} /> : <IconChevronDown size={18} />}
          </UnstyledButton>
        );
      },
    },
  ];

  return (
    <Page title={t('activity.title')} below={t('activity.intro')}>
      <Loaded query={events}>
        {(data) => {
          const rows = data.pages.flatMap((page) => page.items);
          if (rows.length === 0) {
            return (
              <Empty icon={<IconActivity size={24} />} title={t('activity.empty')}>
                <p className={classes.quiet}>{t('activity.emptyBody')}</p>
              </Empty>
            );
          }
          return (
            <Card flush>
              <DataTable
                label={t('activity.title')}
                columns={columns}
                rows={rows}
                rowId={(event) => event.id}
                below={(event) => (event.id === open ? <Details event={event} /> : null)}
              />
            </Card>
          );
        }}
      </Loaded>
      <LoadMore query={events} />
    </Page>
  );
}
