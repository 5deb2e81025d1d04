/** "Run now": asks for a run and hands it to whoever shows its progress. */
import { Button } from '@mantine/core';
import { IconPlayerPlay } from '@tabler/icons-react';
import { useMutation, useQueryClient, type InfiniteData } from '@tanstack/react-query';
import { runQuery, startRun } from '../api/queries';
import type { Page, Run, Workload } from '../api/types';
import { useApi } from '../app/context';
import { useWords } from '../i18n/useWords';

type Runs = InfiniteData<Page<Run>>;

function withRun(runs: Runs | undefined, run: Run): Runs | undefined {
  const [first, ...rest] = runs?.pages ?? [];
  if (!runs || !first) return runs;
  const others = first.items.filter((other) => other.id !== run.id);
  return { ...runs, pages: [{ ...first, items: [run, ...others] }, ...rest] };
}

interface RunNowProps {
  workload: Workload;
  /** A run under way already. */
  busy: boolean;
  onError: (error: unknown) => void;
  prominent?: boolean;
}

export function RunNow({ workload, busy, onError, prominent = false }: RunNowProps) {
  const { t } = useWords();
  const { api } = useApi();
  const client = useQueryClient();
  const start = useMutation({
    mutationFn: () => startRun(api, workload.tenant_id, workload.id),
    onMutate: () => onError(null),
    onError,
    onSuccess: (run: Run) => {
      client.setQueryData(runQuery(api, run.tenant_id, run.id).queryKey, run);
      // Into the lists at once: a short run may be over before they are read again.
      client.setQueriesData<Runs>({ queryKey: [run.tenant_id, 'runs', 'of', null] }, (runs) => withRun(runs, run));
      client.setQueriesData<Runs>({ queryKey: [run.tenant_id, 'runs', 'of', workload.id] }, (runs) =>
        withRun(runs, run),
      );
    },
  });
  return (
    <Button
      variant={prominent ? 'filled' : 'default'}
      size={prominent ? 'sm' : 'xs'}
      leftSection={<IconPlayerPlay size={15} aria-hidden="true" />}
      aria-label={t('run.nowFor', { name: workload.name })}
      loading={start.isPending}
      disabled={busy}
      onClick={() => start.mutate()}
    >
      {t('run.now')}
    </Button>
  );
}
