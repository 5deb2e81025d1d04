/** Where pages end: no such page, and a page that broke. */
import { IconMapOff } from '@tabler/icons-react';
import { useRouter, type ErrorComponentProps } from '@tanstack/react-router';
import { LinkButton } from '../components/LinkButton';
import { Empty, Page } from '../components/Page';
import { ProblemNote } from '../components/Problem';
import { useWords } from '../i18n/useWords';
import classes from './Shell.module.css';

export function NotFoundPage() {
  const { t } = useWords();
  return (
    <main className={classes.main}>
      <Page title={t('problem.notFoundPage')}>
        <Empty icon={<IconMapOff size={24} />} title={t('problem.notFoundPageNext')}>
          <LinkButton to="/" variant="default">
            {t('problem.home')}
          </LinkButton>
        </Empty>
      </Page>
    </main>
  );
}

export function RouteError({ error, reset }: ErrorComponentProps) {
  const router = useRouter();
  const retry = () => {
    reset();
    void router.invalidate();
  };
  return (
    <main className={classes.main}>
      <ProblemNote error={error} onRetry={retry} />
    </main>
  );
}
