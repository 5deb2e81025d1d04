/** What a query shows while it has nothing yet: quiet bars, or why it has nothing. */
import { Button, Skeleton } from '@mantine/core';
import type { ReactNode } from 'react';
import { useWords } from '../i18n/useWords';
import { ProblemNote } from './Problem';

interface Query<T> {
  data: T | undefined;
  error: unknown;
  refetch: () => unknown;
}

interface LoadedProps<T> {
  query: Query<T>;
  children: (data: T) => ReactNode;
}

/** Keeps what was read when a later read fails, and says so above it. */
export function Loaded<T>({ query, children }: LoadedProps<T>) {
  const { t } = useWords();
  const retry = () => void query.refetch();
  if (query.data === undefined && query.error) return <ProblemNote error={query.error} onRetry={retry} />;
  if (query.data === undefined) {
    return (
      <div role="status" aria-label={t('app.loading')}>
        <Skeleton height={18} width="38%" mb={14} />
        <Skeleton height={52} mb={8} />
        <Skeleton height={52} mb={8} />
        <Skeleton height={52} />
      </div>
    );
  }
  return (
    <>
      {query.error ? <ProblemNote error={query.error} onRetry={retry} /> : null}
      {children(query.data)}
    </>
  );
}

interface Pages {
  hasNextPage: boolean;
  isFetchingNextPage: boolean;
  fetchNextPage: () => unknown;
}

export function LoadMore({ query }: { query: Pages }) {
  const { t } = useWords();
  if (!query.hasNextPage) return null;
  return (
    <Button
      variant="default"
      loading={query.isFetchingNextPage}
      onClick={() => void query.fetchNextPage()}
      style={{ alignSelf: 'center' }}
    >
      {t('app.loadMore')}
    </Button>
  );
}
