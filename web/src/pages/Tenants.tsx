/** The tenants an MSP looks after, and the way into each. */
import { IconBuildings, IconEye } from '@tabler/icons-react';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { meQuery, tenantsQuery } from '../api/queries';
import type { Me, Tenant } from '../api/types';
import { useApi } from '../app/context';
import { DataTable, type Column } from '../components/DataTable';
import { LinkButton } from '../components/LinkButton';
import { Loaded, LoadMore } from '../components/Loaded';
import { Card, Empty, Page } from '../components/Page';
import { When } from '../components/When';
import { useWords } from '../i18n/useWords';
import classes from './pages.module.css';

const route = getRouteApi('/inside/tenants');

/** The platform's own people run it; they do not see into tenants. */
const mayView = (me: Me | undefined, tenant: Tenant): boolean =>
  me?.tenant.kind === 'msp' && tenant.kind === 'tenant';

export function TenantsPage() {
  const { t, locale } = useWords();
  const { api } = useApi();
  const { sort } = route.useSearch();
  const navigate = route.useNavigate();
  const me = useQuery(meQuery(api, null));
  const tenants = useInfiniteQuery(tenantsQuery(api));

  const columns: Column<Tenant>[] = [
    {
      id: 'name',
      header: t('tenants.name'),
      isName: true,
      sortBy: (tenant) => tenant.name.toLocaleLowerCase(locale),
      cell: (tenant) => (
        <span className={classes.named}>
          {mayView(me.data, tenant) ? (
            <Link to="/t/$tenant/workloads" params={{ tenant: tenant.id }} className={classes.strong}>
              {tenant.name}
            </Link>
          ) : (
            <span className={classes.strong}>{tenant.name}</span>
          )}
          <span className={classes.sub}>{t(`tenants.kindOf.${tenant.kind}`)}</span>
        </span>
      ),
    },
    {
      id: 'created',
      header: t('tenants.created'),
      sortBy: (tenant) => tenant.created_at,
      cell: (tenant) => <When at={tenant.created_at} as="date" />,
    },
    {
      id: 'view',
      header: t('tenants.view'),
      headerHidden: true,
      align: 'end',
      cell: (tenant) =>
        mayView(me.data, tenant) && (
          <LinkButton
            to="/t/$tenant/workloads"
            params={{ tenant: tenant.id }}
            variant="default"
            size="xs"
            leftSection={<IconEye size={15} aria-hidden="true" />}
            aria-label={t('tenants.viewFor', { name: tenant.name })}
          >
            {t('tenants.view')}
          </LinkButton>
        ),
    },
  ];

  return (
    <Page title={t('tenants.title')} below={t('tenants.intro')}>
      <Loaded query={tenants}>
        {(data) => {
          const rows = data.pages.flatMap((page) => page.items).filter((x) => x.id !== me.data?.home_tenant_id);
          if (rows.length === 0) {
            return (
              <Empty icon={<IconBuildings size={24} />} title={t('tenants.empty')}>
                <p>{t('tenants.emptyBody')}</p>
              </Empty>
            );
          }
          return (
            <Card flush>
              <DataTable
                label={t('tenants.title')}
                columns={columns}
                rows={rows}
                rowId={(tenant) => tenant.id}
                sort={sort}
                onSort={(next) => void navigate({ search: next ? { sort: next } : {}, replace: true })}
              />
            </Card>
          );
        }}
      </Loaded>
      <LoadMore query={tenants} />
    </Page>
  );
}
