/** Every question the portal asks, with its cache key. Keys start with the tenant, so none can be mixed up. */
import { infiniteQueryOptions, queryOptions, type QueryClient } from '@tanstack/react-query';
import { ACTING_HEADER, unwrap, type Api } from './client';
import { isActive, type Page, type Run } from './types';

/** While something runs, lists follow at this pace; otherwise they idle. */
const BUSY_MS = 3_000;
const IDLE_MS = 20_000;
const ENTRIES_PAGE = 500;

const nextCursor = (page: Page<unknown>): string | undefined => page.next_cursor ?? undefined;
const firstCursor: string | undefined = undefined;
const page = (cursor: string | undefined, limit: number) => ({ limit, ...(cursor ? { cursor } : {}) });

/** Whom the token speaks for, in one's own tenant (null) or in one below it. */
export const meQuery = (api: Api, tenant: string | null) =>
  queryOptions({
    queryKey: ['me', tenant],
    staleTime: 5 * 60_000,
    queryFn: ({ signal }) =>
      unwrap(api.GET('/v1/me', { signal, ...(tenant ? { headers: { [ACTING_HEADER]: tenant } } : {}) })),
  });

export const tenantsQuery = (api: Api) =>
  infiniteQueryOptions({
    queryKey: ['tenants'],
    initialPageParam: firstCursor,
    getNextPageParam: nextCursor,
    queryFn: ({ signal, pageParam }) =>
      unwrap(api.GET('/v1/tenants', { signal, params: { query: page(pageParam, 200) } })),
  });

export const workloadsQuery = (api: Api, tenant_id: string) =>
  infiniteQueryOptions({
    queryKey: [tenant_id, 'workloads'],
    initialPageParam: firstCursor,
    getNextPageParam: nextCursor,
    refetchInterval: IDLE_MS,
    queryFn: ({ signal, pageParam }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/workloads', {
          signal,
          params: { path: { tenant_id }, query: page(pageParam, 200) },
        }),
      ),
  });

export const workloadQuery = (api: Api, tenant_id: string, workload_id: string) =>
  queryOptions({
    queryKey: [tenant_id, 'workloads', workload_id],
    queryFn: ({ signal }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/workloads/{workload_id}', {
          signal,
          params: { path: { tenant_id, workload_id } },
        }),
      ),
  });

export const agentsQuery = (api: Api, tenant_id: string) =>
  queryOptions({
    queryKey: [tenant_id, 'agents'],
    queryFn: ({ signal }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/agents', {
          signal,
          params: { path: { tenant_id }, query: { limit: 1000 } },
        }),
      ),
  });

/** Snapshots of one workload, newest first. */
export const snapshotsQuery = (api: Api, tenant_id: string, workload_id: string) =>
  infiniteQueryOptions({
    queryKey: [tenant_id, 'snapshots', 'of', workload_id],
    initialPageParam: firstCursor,
    getNextPageParam: nextCursor,
    queryFn: ({ signal, pageParam }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/snapshots', {
          signal,
          params: { path: { tenant_id }, query: { workload_id, ...page(pageParam, 100) } },
        }),
      ),
  });

export const snapshotQuery = (api: Api, tenant_id: string, snapshot_id: string) =>
  queryOptions({
    queryKey: [tenant_id, 'snapshots', snapshot_id],
    staleTime: 60_000,
    queryFn: ({ signal }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/snapshots/{snapshot_id}', {
          signal,
          params: { path: { tenant_id, snapshot_id } },
        }),
      ),
  });

/** Which folder: text where the name is text, bytes (base64) where it is not. */
export interface Folder {
  path: string;
  pathB64?: string | undefined;
}

export const entriesQuery = (api: Api, tenant_id: string, snapshot_id: string, folder: Folder) =>
  infiniteQueryOptions({
    queryKey: [tenant_id, 'snapshots', snapshot_id, 'entries', folder.pathB64 ?? folder.path],
    initialPageParam: firstCursor,
    getNextPageParam: nextCursor,
    // A snapshot never changes.
    staleTime: Infinity,
    queryFn: ({ signal, pageParam }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/entries', {
          signal,
          params: {
            path: { tenant_id, snapshot_id },
            query: {
              ...(folder.pathB64 ? { path_b64: folder.pathB64 } : { path: folder.path }),
              ...page(pageParam, ENTRIES_PAGE),
            },
          },
        }),
      ),
  });

/** The newest runs of the tenant, or of one workload. Follows closely while one of them is under way. */
export const runsQuery = (api: Api, tenant_id: string, workload_id?: string) =>
  infiniteQueryOptions({
    queryKey: [tenant_id, 'runs', 'of', workload_id ?? null],
    initialPageParam: firstCursor,
    getNextPageParam: nextCursor,
    refetchInterval: (query: { state: { data: { pages: Page<Run>[] } | undefined } }) =>
      query.state.data?.pages.some((p) => p.items.some(isActive)) ? BUSY_MS : IDLE_MS,
    queryFn: ({ signal, pageParam }): Promise<Page<Run>> =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/runs', {
          signal,
          params: {
            path: { tenant_id },
            query: { ...(workload_id ? { workload_id } : {}), ...page(pageParam, 50) },
          },
        }),
      ),
  });

export const runQuery = (api: Api, tenant_id: string, run_id: string) =>
  queryOptions({
    queryKey: [tenant_id, 'runs', run_id],
    queryFn: ({ signal }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/runs/{run_id}', {
          signal,
          params: { path: { tenant_id, run_id } },
        }),
      ),
  });

export const auditQuery = (api: Api, tenant_id: string) =>
  infiniteQueryOptions({
    queryKey: [tenant_id, 'audit'],
    initialPageParam: firstCursor,
    getNextPageParam: nextCursor,
    queryFn: ({ signal, pageParam }) =>
      unwrap(
        api.GET('/v1/tenants/{tenant_id}/audit/events', {
          signal,
          params: { path: { tenant_id }, query: page(pageParam, 100) },
        }),
      ),
  });

export const startRun = (api: Api, tenant_id: string, workload_id: string): Promise<Run> =>
  unwrap(
    api.POST('/v1/tenants/{tenant_id}/runs', { params: { path: { tenant_id } }, body: { workload_id } }),
  );

export const cancelRun = (api: Api, tenant_id: string, run_id: string) =>
  unwrap(
    api.POST('/v1/tenants/{tenant_id}/runs/{run_id}/cancel', { params: { path: { tenant_id, run_id } } }),
  );

export const mintEnrolmentToken = (api: Api, tenant_id: string, label: string) =>
  unwrap(
    api.POST('/v1/tenants/{tenant_id}/enrolment-tokens', {
      params: { path: { tenant_id } },
      body: { max_uses: 1, ttl_s: 86_400, label },
    }),
  );

/** A run has ended: whatever lists runs, workloads or snapshots of the tenant is out of date. */
export function refreshAfterRun(client: QueryClient, tenant_id: string): void {
  for (const list of ['workloads', 'snapshots', 'runs']) {
    void client.invalidateQueries({ queryKey: [tenant_id, list] });
  }
}
