/** Sign in. After it one is where one wanted to be. */
import { Button, PasswordInput, TextInput } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { getRouteApi, useRouter } from '@tanstack/react-router';
import { useEffect, useRef, useState, type FormEvent } from 'react';
import { useApi } from '../app/context';
import { Mark } from '../components/Mark';
import { ProblemNote } from '../components/Problem';
import { useWords } from '../i18n/useWords';
import classes from './SignIn.module.css';

const route = getRouteApi('/sign-in');

export function SignInPage() {
  const { t } = useWords();
  const { session } = useApi();
  const router = useRouter();
  const { next, why } = route.useSearch();
  const [missing, setMissing] = useState<{ email?: string; password?: string }>({});
  const email = useRef<HTMLInputElement>(null);
  const password = useRef<HTMLInputElement>(null);

  useEffect(() => {
    document.title = `${t('signIn.title')} · Everhold`;
  }, [t]);

  const signIn = useMutation({
    mutationFn: (form: { email: string; password: string }) => session.signIn(form.email, form.password),
    onSuccess: () => router.navigate({ href: next ?? '/', replace: true }),
  });

  const submit = (event: FormEvent) => {
    event.preventDefault();
    const form = { email: email.current?.value.trim() ?? '', password: password.current?.value ?? '' };
    const lacks = {
      ...(form.email ? {} : { email: t('signIn.emailMissing') }),
      ...(form.password ? {} : { password: t('signIn.passwordMissing') }),
    };
    setMissing(lacks);
    if (!form.email) email.current?.focus();
    else if (!form.password) password.current?.focus();
    else signIn.mutate(form);
  };

  return (
    <div className={classes.split}>
      <aside className={classes.aside}>
        <div className={classes.brand}>
          <Mark size={36} />
          <span>Everhold</span>
        </div>
        <div className={classes.pitch}>
          <p className={classes.claim}>{t('signIn.pitch')}</p>
          <p>{t('signIn.pitchBody')}</p>
        </div>
        <Layers />
      </aside>
      <main className={classes.main}>
        <form onSubmit={submit} noValidate className={classes.form}>
          <h1 className={classes.title}>{t('signIn.title')}</h1>
          {why && !signIn.error && (
            <p role="status" className={classes.why}>
              {why === 'expired' ? t('signIn.expired') : t('signIn.signedOut')}
            </p>
          )}
          {signIn.error && <ProblemNote error={signIn.error} />}
          <TextInput
            ref={email}
            label={t('signIn.email')}
            name="email"
            type="email"
            autoComplete="username"
            size="md"
            error={missing.email}
          />
          <PasswordInput
            ref={password}
            label={t('signIn.password')}
            name="password"
            autoComplete="current-password"
            size="md"
            error={missing.password}
          />
          <Button type="submit" size="md" fullWidth loading={signIn.isPending}>
            {t('signIn.submit')}
          </Button>
        </form>
      </main>
    </div>
  );
}

/** Layers under a clasp, as in the mark: the picture of what the product does. */
function Layers() {
  const widths = [86, 62, 94, 48, 78, 90, 56, 70];
  return (
    <svg viewBox="0 0 120 96" preserveAspectRatio="xMinYMax slice" aria-hidden="true" className={classes.layers}>
      {widths.map((width, i) => (
        <rect key={i} x="14" y={6 + i * 11} width={width} height="6" rx="3" opacity={0.2 + i * 0.09} />
      ))}
      <path d="M9 2.5H4.5v91H9" />
    </svg>
  );
}
