/** "Run now": asks for a run and hands it to whoever shows its progress. */
import { Button } from '@mantine/core';
import { IconPlayerPlay } from '@tabler/icons-react';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { runQuery, startRun } from '../api/queries';
import type { Run, Workload } from '../api/types';
import { useApi } from '../app/context';
import { useWords } from '../i18n/useWords';

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
      return client.invalidateQueries({ queryKey: [run.tenant_id, 'runs', 'of'] });
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
