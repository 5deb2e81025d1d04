/** From nothing to a machine: makes a one-time token, shows the command, waits for the machine to appear. */
import { Button, Loader, TextInput } from '@mantine/core';
import { IconCircleCheck } from '@tabler/icons-react';
import { useMutation, useQuery } from '@tanstack/react-query';
import { useRef } from 'react';
import { agentsQuery, mintEnrolmentToken } from '../api/queries';
import type { EnrolmentToken } from '../api/types';
import { useApi } from '../app/context';
import { useWords } from '../i18n/useWords';
import { CommandLine } from './Copy';
import { Dialog } from './Dialog';
import classes from './EnrolDialog.module.css';
import { ProblemNote } from './Problem';
import { When } from './When';

const LOOK_MS = 3_000;

export const enrolCommand = (origin: string, token: string): string =>
  `sudo everhold-agent enroll --server ${origin} --token ${token} --kit-out everhold-recovery-kit.json`;

const FIRST_BACKUP = 'sudo everhold-agent backup /etc /home && sudo everhold-agent daemon';

/** Machines enrolled since the token was made; its own machine is the first of them. */
function Arrival({ tenant, token }: { tenant: string; token: EnrolmentToken }) {
  const { t } = useWords();
  const { api } = useApi();
  const agents = useQuery({ ...agentsQuery(api, tenant), refetchInterval: LOOK_MS });
  const arrived = agents.data?.items.find((agent) => agent.enrolled_at >= token.created_at);
  return (
    <p role="status" className={classes.arrival} data-arrived={arrived ? true : undefined}>
      {arrived ? <IconCircleCheck size={20} aria-hidden="true" /> : <Loader size={16} aria-hidden="true" />}
      {arrived ? t('enrol.arrived', { name: arrived.name }) : t('enrol.waiting')}
    </p>
  );
}

function Steps({ tenant, token, onClose }: { tenant: string; token: EnrolmentToken; onClose: () => void }) {
  const { t } = useWords();
  const command = enrolCommand(window.location.origin, token.token ?? '');
  return (
    <div className={classes.stack}>
      <ol className={classes.steps}>
        <li>{t('enrol.step1')}</li>
        <li>
          {t('enrol.step2')}
          <CommandLine command={command} label={t('enrol.step2')} />
          <p className={classes.note}>{t('enrol.kit')}</p>
        </li>
        <li>
          {t('enrol.step3')}
          <CommandLine command={FIRST_BACKUP} label={t('enrol.step3')} />
        </li>
      </ol>
      <p className={classes.note}>
        {t('enrol.once')} <When at={token.expires_at} />.
      </p>
      <Arrival tenant={tenant} token={token} />
      <Button variant="default" onClick={onClose} className={classes.done}>
        {t('enrol.done')}
      </Button>
    </div>
  );
}

interface EnrolDialogProps {
  tenant: string;
  opened: boolean;
  onClose: () => void;
}

export function EnrolDialog({ tenant, opened, onClose }: EnrolDialogProps) {
  const { t } = useWords();
  const { api } = useApi();
  const label = useRef<HTMLInputElement>(null);
  const mint = useMutation({ mutationFn: (note: string) => mintEnrolmentToken(api, tenant, note) });
  const close = () => {
    onClose();
    mint.reset();
  };
  return (
    <Dialog opened={opened} onClose={close} title={t('enrol.title')} size="lg">
      {mint.data ? (
        <Steps tenant={tenant} token={mint.data} onClose={close} />
      ) : (
        <form
          className={classes.stack}
          onSubmit={(event) => {
            event.preventDefault();
            mint.mutate(label.current?.value.trim() ?? '');
          }}
        >
          <p className={classes.intro}>{t('enrol.intro')}</p>
          {mint.error && <ProblemNote error={mint.error} />}
          <TextInput ref={label} label={t('enrol.label')} maxLength={200} data-autofocus />
          <Button type="submit" loading={mint.isPending} className={classes.done}>
            {t('enrol.create')}
          </Button>
        </form>
      )}
    </Dialog>
  );
}
