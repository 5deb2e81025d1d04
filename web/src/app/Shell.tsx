/** The frame around every page behind the sign-in: where one can go, who one is, whom one acts for. */
import { IconActivity, IconBuildings, IconEye, IconServer2 } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { Link, Outlet, useLocation, useParams } from '@tanstack/react-router';
import { meQuery } from '../api/queries';
import type { Me } from '../api/types';
import { Announcer } from '../components/Announcer';
import { LinkButton } from '../components/LinkButton';
import { Mark } from '../components/Mark';
import { useWords } from '../i18n/useWords';
import { AccountMenu } from './AccountMenu';
import { useApi } from './context';
import classes from './Shell.module.css';

function Navigation({ me, tenant }: { me: Me; tenant: string }) {
  const { t } = useWords();
  const link = { className: classes.link, activeProps: { 'data-active': true } };
  const overseer = me.tenant.kind !== 'tenant';
  // Runs and snapshots belong to a workload.
  const inWorkloads = /^\/t\/[^/]+\/(?:workloads|runs|snapshots)/.test(useLocation().pathname);
  const inTenant = !overseer || tenant !== me.home_tenant_id;
  return (
    <nav aria-label={t('app.navigation')} className={classes.nav}>
      {overseer && (
        <Link to="/tenants" {...link}>
          <IconBuildings size={18} aria-hidden="true" />
          {t('nav.tenants')}
        </Link>
      )}
      {inTenant && (
        <Link to="/t/$tenant/workloads" params={{ tenant }} {...link} data-active={inWorkloads || undefined}>
          <IconServer2 size={18} aria-hidden="true" />
          {t('nav.workloads')}
        </Link>
      )}
      <Link to="/t/$tenant/activity" params={{ tenant }} {...link}>
        <IconActivity size={18} aria-hidden="true" />
        {t('nav.activity')}
      </Link>
    </nav>
  );
}

/** Told on every page while an MSP's person looks at a tenant, as the tenant is told in its activity. */
function ActingBanner({ tenant }: { tenant: string }) {
  const { t } = useWords();
  const { api } = useApi();
  const acting = useQuery(meQuery(api, tenant));
  if (!acting.data) return null;
  return (
    <aside aria-label={t('acting.label')} className={classes.acting}>
      <IconEye size={18} aria-hidden="true" />
      <span>{t('acting.banner', { tenant: acting.data.tenant.name })}</span>
      <LinkButton to="/tenants" size="compact-sm" variant="default">
        {t('acting.leave')}
      </LinkButton>
    </aside>
  );
}

export function Shell() {
  const { t } = useWords();
  const { api, session } = useApi();
  const params = useParams({ strict: false });
  const me = useQuery(meQuery(api, null));
  const home = session.home ?? '';
  const tenant = params.tenant ?? home;
  return (
    <Announcer>
      <div className={classes.shell}>
        <a href="#content" className={classes.skip}>
          {t('app.skip')}
        </a>
        <header className={classes.side}>
          <Link to="/" className={classes.brand}>
            <Mark />
            <span>Everhold</span>
          </Link>
          {me.data && <Navigation me={me.data} tenant={tenant} />}
          <div className={classes.account}>{me.data && <AccountMenu me={me.data} />}</div>
        </header>
        <main id="content" tabIndex={-1} className={classes.main}>
          {tenant !== home && <ActingBanner tenant={tenant} />}
          <Outlet />
        </main>
      </div>
    </Announcer>
  );
}
