/**
 * Routes. Every page is its own chunk; the URL holds whatever state a page has, so that it can be kept
 * through a sign-in, sent to a colleague and read again.
 */
import type { QueryClient } from '@tanstack/react-query';
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Outlet,
  redirect,
} from '@tanstack/react-router';
import { meQuery } from '../api/queries';
import type { App } from './context';

export interface RouterContext extends App {
  queries: QueryClient;
}

/** A search value as text: `?q=2024` arrives as a number. */
function text(value: unknown): string | undefined {
  if (typeof value === 'number') return String(value);
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function oneOf<const T extends string>(value: unknown, allowed: readonly T[]): T | undefined {
  return allowed.find((candidate) => candidate === value);
}

/**
 * What a page reads from the URL. Validators name every key, also those that are not set: the router lays
 * their result over the raw search, so a key left out would let the raw value through.
 */
type Raw = Record<string, unknown>;
type Search<T> = { [K in keyof T]?: T[K] | undefined };

/** Only a path of this portal: `next` must not lead anywhere else. */
function ownPath(value: unknown): string | undefined {
  const path = text(value);
  return path && /^\/(?![/\\])/.test(path) ? path : undefined;
}

const root = createRootRouteWithContext<RouterContext>()({
  component: Outlet,
  notFoundComponent: lazyRouteComponent(() => import('./edges'), 'NotFoundPage'),
  errorComponent: lazyRouteComponent(() => import('./edges'), 'RouteError'),
});

export const signInRoute = createRoute({
  getParentRoute: () => root,
  path: '/sign-in',
  validateSearch: (search: Raw): Search<{ next: string; why: 'expired' | 'signed_out' }> => ({
    next: ownPath(search.next),
    why: oneOf(search.why, ['expired', 'signed_out']),
  }),
  beforeLoad: ({ context, search }) => {
    if (context.session.signedIn) throw redirect({ href: search.next ?? '/' });
  },
  component: lazyRouteComponent(() => import('../pages/SignIn'), 'SignInPage'),
});

const inside = createRoute({
  getParentRoute: () => root,
  id: 'inside',
  beforeLoad: ({ context, location }) => {
    if (!context.session.signedIn) {
      throw redirect({ to: '/sign-in', search: location.href === '/' ? {} : { next: location.href } });
    }
  },
  component: lazyRouteComponent(() => import('./Shell'), 'Shell'),
});

const startRoute = createRoute({
  getParentRoute: () => inside,
  path: '/',
  beforeLoad: async ({ context }) => {
    const me = await context.queries.ensureQueryData(meQuery(context.api, null));
    throw me.tenant.kind === 'tenant'
      ? redirect({ to: '/t/$tenant/workloads', params: { tenant: me.home_tenant_id } })
      : redirect({ to: '/tenants' });
  },
});

export const tenantsRoute = createRoute({
  getParentRoute: () => inside,
  path: '/tenants',
  validateSearch: (search: Raw): Search<{ sort: string }> => ({ sort: text(search.sort) }),
  component: lazyRouteComponent(() => import('../pages/Tenants'), 'TenantsPage'),
});

export const tenantRoute = createRoute({
  getParentRoute: () => inside,
  path: '/t/$tenant',
  component: Outlet,
});

export const workloadsRoute = createRoute({
  getParentRoute: () => tenantRoute,
  path: 'workloads',
  validateSearch: (search: Raw): Search<{ q: string; sort: string; enrol: true }> => ({
    q: text(search.q),
    sort: text(search.sort),
    enrol: search.enrol === true ? true : undefined,
  }),
  component: lazyRouteComponent(() => import('../pages/Workloads'), 'WorkloadsPage'),
});

export const workloadRoute = createRoute({
  getParentRoute: () => tenantRoute,
  path: 'workloads/$workload',
  validateSearch: (search: Raw): Search<{ tab: 'runs' }> => ({ tab: oneOf(search.tab, ['runs']) }),
  component: lazyRouteComponent(() => import('../pages/Workload'), 'WorkloadPage'),
});

export const runRoute = createRoute({
  getParentRoute: () => tenantRoute,
  path: 'runs/$run',
  component: lazyRouteComponent(() => import('../pages/Run'), 'RunPage'),
});

export const snapshotRoute = createRoute({
  getParentRoute: () => tenantRoute,
  path: 'snapshots/$snapshot',
  validateSearch: (search: Raw): Search<{ path: string; path_b64: string }> => ({
    path: text(search.path),
    path_b64: text(search.path_b64),
  }),
  component: lazyRouteComponent(() => import('../pages/Snapshot'), 'SnapshotPage'),
});

export const activityRoute = createRoute({
  getParentRoute: () => tenantRoute,
  path: 'activity',
  validateSearch: (search: Raw): Search<{ open: string }> => ({ open: text(search.open) }),
  component: lazyRouteComponent(() => import('../pages/Activity'), 'ActivityPage'),
});

const tree = root.addChildren([
  signInRoute,
  inside.addChildren([
    startRoute,
    tenantsRoute,
    tenantRoute.addChildren([workloadsRoute, workloadRoute, runRoute, snapshotRoute, activityRoute]),
  ]),
]);

export function createAppRouter(context: RouterContext) {
  return createRouter({ routeTree: tree, context, defaultPreload: 'intent', scrollRestoration: true });
}

declare module '@tanstack/react-router' {
  interface Register {
    router: ReturnType<typeof createAppRouter>;
  }
}
