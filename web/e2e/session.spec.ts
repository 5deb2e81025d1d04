import { dev, expect, fillSignIn, signIn, test } from './portal';

test('a wrong password is told in words, with a request id', async ({ page }) => {
  await page.goto('/');
  await fillSignIn(page, { email: dev().tenant.email, password: 'not the password' });
  await expect(page.getByRole('alert')).toContainText('Email or password is wrong');
  await expect(page.getByRole('button', { name: 'Copy the request id' })).toBeVisible();
});

test('an address is kept through the sign-in', async ({ page }) => {
  const path = `/t/${dev().tenant.id}/workloads?sort=-name`;
  await signIn(page, dev().tenant, path);
  await expect(page).toHaveURL(path);
  await expect(page.getByRole('heading', { name: 'Workloads', level: 1 })).toBeVisible();
});

test('a reload stays signed in, and no access token is ever stored', async ({ page }) => {
  await signIn(page, dev().tenant);
  await page.reload();
  await expect(page.getByRole('navigation', { name: 'Main' })).toBeVisible();
  const stored = await page.evaluate(() => JSON.stringify([{ ...sessionStorage }, { ...localStorage }]));
  expect(stored).not.toMatch(/eyJ/);
});

test('a copied tab does not spend the refresh token of the first', async ({ page, context }) => {
  await signIn(page, dev().tenant);
  const stored = await page.evaluate(() => Object.entries({ ...sessionStorage }));
  const copy = await context.newPage();
  // What "duplicate tab" does: the new tab starts with a copy of the storage.
  await copy.addInitScript((entries) => {
    for (const [key, value] of entries) sessionStorage.setItem(key, String(value));
  }, stored);
  await copy.goto('/');
  await expect(copy.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await page.reload();
  await expect(page.getByRole('navigation', { name: 'Main' })).toBeVisible();
});

test('a session that has ended leads to the sign-in and back', async ({ page }) => {
  await signIn(page, dev().tenant);
  await page.evaluate(() => {
    const stored = JSON.parse(sessionStorage.getItem('everhold.session') ?? '{}') as { refreshToken: string };
    stored.refreshToken = stored.refreshToken.replace(/.{6}$/, 'AAAAAA');
    sessionStorage.setItem('everhold.session', JSON.stringify(stored));
  });
  const path = `/t/${dev().tenant.id}/activity`;
  await page.goto(path);
  await expect(page.getByText('Your session has ended')).toBeVisible();
  await fillSignIn(page, dev().tenant);
  await expect(page).toHaveURL(path);
});

test('signing out ends the session', async ({ page }) => {
  await signIn(page, dev().tenant);
  await page.getByRole('button', { name: /^Account and settings/ }).click();
  await page.getByRole('menuitem', { name: 'Sign out' }).click();
  await expect(page.getByText('You are signed out.')).toBeVisible();
  await page.goto(`/t/${dev().tenant.id}/workloads`);
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
});

test('the ids of another tenant answer as if they did not exist', async ({ page }) => {
  await signIn(page, dev().tenant, `/t/${dev().other_tenant.id}/workloads`);
  await expect(page.getByRole('alert').first()).toContainText('There is no such thing here');
});

test('colour scheme and language are chosen and kept', async ({ page }) => {
  await signIn(page, dev().tenant);
  await page.getByRole('button', { name: /^Account and settings/ }).click();
  await page.getByRole('menuitemradio', { name: 'Dark' }).click();
  await expect(page.locator('html')).toHaveAttribute('data-mantine-color-scheme', 'dark');
  await page.getByRole('button', { name: /^Account and settings/ }).click();
  await page.getByRole('menuitemradio', { name: 'Deutsch' }).click();
  await expect(page.getByRole('link', { name: 'Aktivität' })).toBeVisible();
  await page.reload();
  await expect(page.getByRole('link', { name: 'Aktivität' })).toBeVisible();
  await expect(page.locator('html')).toHaveAttribute('data-mantine-color-scheme', 'dark');
  await expect(page.locator('html')).toHaveAttribute('lang', 'de');
});
