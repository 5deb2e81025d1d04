/** Puts session, queries, routes and looks together. */
import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { createApi } from '../api/client';
import { isRetryable } from '../api/problem';
import type { Session } from '../auth/session';
import { AppProvider, type App } from './context';
import { createAppRouter } from './router';
import { colorSchemeManager, cssVariablesResolver, theme } from './theme';

const MAX_RETRIES = 2;

export function createQueries(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        staleTime: 2_000,
        // The server's advice decides, never the bare status.
        retry: (failures, error) => failures < MAX_RETRIES && isRetryable(error),
      },
    },
  });
}

/** Everything of one tab. The end of the session clears what was read and leads to the sign-in page. */
export function createPortal(session: Session) {
  const app: App = { api: createApi(session), session };
  const queries = createQueries();
  const router = createAppRouter({ ...app, queries });
  session.subscribe((reason) => {
    if (reason === null) return;
    queries.clear();
    const here = router.state.location.href;
    void router.navigate({
      to: '/sign-in',
      replace: true,
      search: reason === 'expired' ? { why: 'expired', next: here } : { why: 'signed_out' },
    });
  });
  return { app, queries, router };
}

export function Portal({ app, queries, router }: ReturnType<typeof createPortal>) {
  return (
    <MantineProvider
      theme={theme}
      cssVariablesResolver={cssVariablesResolver}
      colorSchemeManager={colorSchemeManager}
      defaultColorScheme="auto"
      // The policy allows no style elements: theme-variables.css holds what these would write.
      withCssVariables={false}
      withGlobalClasses={false}
    >
      <QueryClientProvider client={queries}>
        <AppProvider value={app}>
          <RouterProvider router={router} />
        </AppProvider>
      </QueryClientProvider>
    </MantineProvider>
  );
}
