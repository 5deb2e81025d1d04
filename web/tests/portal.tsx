/** The whole portal over a recorded network, signed in or not. */
import { MantineProvider } from '@mantine/core';
import { QueryClientProvider } from '@tanstack/react-query';
import { createMemoryHistory, RouterProvider } from '@tanstack/react-router';
import { render } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import axe from 'axe-core';
import { vi } from 'vitest';
import { createPortal } from '../src/app/App';
import { AppProvider } from '../src/app/context';
import { cssVariablesResolver, theme } from '../src/app/theme';
import { Session } from '../src/auth/session';
import { HOME, Network, page, tokens } from './network';

export const AT = '2026-11-20T10:00:00Z';
const FUTURE = '2199-01-01T00:00:00Z';

export const tenant = (id: string, kind: string, name: string) => ({ id, kind, name, created_at: AT });
export const me = (kind = 'tenant') => ({
  id: 'usr_1',
  email: 'jana@nordwind.test',
  name: 'Jana Petersen',
  home_tenant_id: HOME,
  tenant: tenant(HOME, kind, 'Nordwind'),
  roles: [],
});
export const agent = {
  id: 'agt_1', name: 'files-01', hostname: 'files-01.local', os: 'linux', arch: 'x86_64', agent_version: '1',
  verify_key: '', hpke_key: '', enrolled_at: AT, last_seen_at: AT,
};
export const workload = {
  id: 'wkl_1', tenant_id: HOME, kind: 'files', name: 'files-01', agent_id: 'agt_1', vault_id: 'vlt_1', created_at: AT,
  last_snapshot_at: AT, last_snapshot_id: 'snp_1', snapshots: 1,
};
export const snapshot = {
  id: 'snp_1', tenant_id: HOME, workload_id: 'wkl_1', vault_id: 'vlt_1', agent_id: 'agt_1', run_id: 'run_1',
  committed_at: AT, status: 'succeeded', paths: ['/srv'], tags: {}, slots: [],
  stats: {
    files: 12, directories: 3, others: 0, source_bytes: 5 * 1024 ** 3, new_bytes: 2048, stored_bytes: 1024,
    exceptions: 0, duration_ms: 900,
  },
  protect_until: FUTURE, locked_until: FUTURE,
};
export const run = (state: string, more: object = {}) => ({
  id: 'run_9', tenant_id: HOME, workload_id: 'wkl_1', agent_id: 'agt_1', trigger: 'manual', state,
  source: { paths: ['/srv'] }, created_at: AT, cancel_requested: false, exceptions: [],
  progress: { files: 41, source_bytes: 1024 ** 2, new_bytes: 10, stored_bytes: 5, exceptions: 0, phase: 'uploading' },
  ...more,
});

/** What a tenant with one protected workload answers. */
export function recorded(more: ConstructorParameters<typeof Network>[0] = {}): Network {
  let n = 0;
  const at = `GET /v1/tenants/${HOME}`;
  return new Network({
    'POST /v1/auth/token': ({ body }) => tokens(++n, (body as { tenant_id?: string }).tenant_id ?? HOME),
    'POST /v1/auth/revoke': null,
    'GET /v1/me': me(),
    'GET /v1/tenants': page(),
    [`${at}/workloads`]: page(workload),
    [`${at}/workloads/wkl_1`]: workload,
    [`${at}/agents`]: page(agent),
    [`${at}/snapshots`]: page(snapshot),
    [`${at}/snapshots/snp_1`]: snapshot,
    [`${at}/runs`]: page(),
    [`${at}/audit/events`]: page(),
    ...more,
  });
}

export async function open(url: string, network: Network, signedIn = true) {
  vi.stubGlobal('fetch', network.fetch);
  const session = new Session({ fetch: network.fetch, storage: sessionStorage, now: () => 0 });
  if (signedIn) await session.signIn('jana@nordwind.test', 'secret');
  const { app, queries, router } = createPortal(session);
  queries.setDefaultOptions({ queries: { retry: false } });
  router.update({ ...router.options, history: createMemoryHistory({ initialEntries: [url] }) });
  const view = render(
    <MantineProvider env="test" theme={theme} cssVariablesResolver={cssVariablesResolver}>
      <QueryClientProvider client={queries}>
        <AppProvider value={app}>
          <RouterProvider router={router} />
        </AppProvider>
      </QueryClientProvider>
    </MantineProvider>,
  );
  return { ...view, router, session, network, user: userEvent.setup() };
}

/** Violations axe finds without layout; contrast is checked in the browser (e2e). */
export async function violations(element: Element = document.body): Promise<string[]> {
  const { violations: found } = await axe.run(element, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    rules: { 'color-contrast': { enabled: false }, region: { enabled: false } },
  });
  return found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' | ')}`);
}
