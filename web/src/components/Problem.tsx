/** A failure in words: what happened, what to do next, and the request id to quote. */
import { Button } from '@mantine/core';
import { IconAlertCircle, IconPlugConnectedX } from '@tabler/icons-react';
import { ApiProblem, isRetryable, SignedOut, Unreachable } from '../api/problem';
import { useWords } from '../i18n/useWords';
import { CopyButton } from './Copy';
import classes from './Problem.module.css';

interface ProblemProps {
  error: unknown;
  onRetry?: (() => void) | undefined;
}

function useProblemWords(error: unknown): { title: string; next: string; detail: string | undefined } {
  const { t } = useWords();
  if (error instanceof ApiProblem) {
    const { code, title, advice, detail } = error.problem;
    // Codes this page has no own words for speak in the server's.
    return {
      title: t(`problem.code.${code as 'internal'}.title`, { defaultValue: title }),
      next: t(`problem.code.${code as 'internal'}.next`, { defaultValue: t(`problem.next.${advice}`) }),
      detail: detail ?? undefined,
    };
  }
  if (error instanceof Unreachable) {
    return { title: t('problem.unreachable'), next: t('problem.unreachableNext'), detail: undefined };
  }
  return { title: t('problem.unexpected'), next: t('problem.unexpectedNext'), detail: undefined };
}

export function ProblemNote({ error, onRetry }: ProblemProps) {
  const { t } = useWords();
  const words = useProblemWords(error);
  // The way to the sign-in page is under way; a red box would only flash.
  if (error instanceof SignedOut) return null;
  const problem = error instanceof ApiProblem ? error : null;
  const Shape = error instanceof Unreachable ? IconPlugConnectedX : IconAlertCircle;
  return (
    <div role="alert" className={classes.note}>
      <Shape size={20} aria-hidden="true" className={classes.icon} />
      <div className={classes.body}>
        <p className={classes.title}>{words.title}</p>
        <p>{words.next}</p>
        {words.detail && (
          <p className={classes.detail} lang="en">
            {words.detail}
          </p>
        )}
        {(problem?.problem.fields ?? []).map((field) => (
          <p key={field.field} className={classes.detail} lang="en">
            <code>{field.field}</code>: {field.detail}
          </p>
        ))}
        {problem?.requestId && (
          <p className={classes.request}>
            {t('problem.requestId')} <code>{problem.requestId}</code>
            <CopyButton text={problem.requestId} label={t('problem.copyId')} />
          </p>
        )}
        {onRetry && (problem === null || isRetryable(error) || problem.problem.advice === 'bug') && (
          <Button variant="default" size="xs" onClick={onRetry} mt={6}>
            {t('app.retry')}
          </Button>
        )}
      </div>
    </div>
  );
}
