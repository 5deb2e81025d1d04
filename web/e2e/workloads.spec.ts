import { dev, descend, expect, openSnapshot, openWorkload, signIn, test } from './portal';

test('a workload shows that it is protected, and until when', async ({ page }) => {
  await signIn(page, dev().tenant);
  const row = page.getByRole('row').filter({ has: page.getByRole('rowheader') }).first();
  await expect(row).toContainText('Protected');
  await expect(row.getByRole('button', { name: /^Run now/ })).toBeEnabled();
});

test('run now is followed live to a new snapshot', async ({ page }) => {
  await signIn(page, dev().tenant);
  await openWorkload(page);
  const heading = await page.getByRole('heading', { level: 1 }).innerText();
  const stream = page.waitForRequest((request) => /\/runs\/run_[0-9a-f]{32}\/events$/.test(request.url()));
  await page.getByRole('button', { name: `Run now: ${heading}` }).click();
  expect((await stream).headers().authorization).toMatch(/^Bearer /);
  await expect(page.getByTestId('announcer')).toHaveText(new RegExp(`The run of ${heading} has ended: (Succeeded|With exceptions)\\.`), {
    timeout: 45_000,
  });
  await expect(page.getByRole('progressbar')).toHaveCount(0);
  await page.getByRole('tab', { name: 'Runs' }).click();
  const newest = page.getByRole('row').filter({ has: page.getByRole('rowheader') }).first();
  await expect(newest).toContainText('Started from the portal');
  await newest.getByRole('link').click();
  await page.getByRole('link', { name: 'Browse the snapshot' }).click();
  await expect(page.getByRole('grid')).toBeVisible();
});

test('a stream that breaks is replaced by asking, and said so', async ({ page }) => {
  await page.route(/\/runs\/[^/]+\/events$/, (route) => route.abort());
  await signIn(page, dev().tenant);
  await openWorkload(page);
  await page.getByRole('button', { name: /^Run now/ }).click();
  await expect(page.getByTestId('announcer')).toContainText('has ended', { timeout: 45_000 });
});

test('a snapshot is browsed by mouse and by keyboard, and the address says where', async ({ page }) => {
  await signIn(page, dev().tenant);
  await openSnapshot(page);
  await descend(page);
  expect(new URL(page.url()).searchParams.get('path')).toMatch(/^\//);
  const crumbs = page.getByRole('navigation', { name: 'Folder' });
  const here = await crumbs.locator('[aria-current]').innerText();
  await page.reload();
  await expect(crumbs.locator('[aria-current]')).toHaveText(here);
  const grid = page.getByRole('grid');
  await grid.focus();
  await page.keyboard.press('End');
  const rows = grid.getByRole('row');
  await expect(rows.last()).toHaveAttribute('aria-selected', 'true');
  await page.keyboard.press('Home');
  await expect(rows.first()).toHaveAttribute('aria-selected', 'true');
  await page.keyboard.press('Backspace');
  await expect(crumbs.locator('[aria-current]')).not.toHaveText(here);
});

test('a folder of many entries holds few rows and loads the rest while one scrolls', async ({ page }) => {
  await signIn(page, dev().tenant);
  await openSnapshot(page);
  await descend(page);
  // The folder made by e2e/setup.ts, and the stub's.
  const folders = page.getByRole('row').filter({ has: page.getByRole('img', { name: 'Folder' }) });
  for (const name of ['documents', 'many']) await folders.filter({ hasText: name }).click();
  const grid = page.getByRole('grid');
  const status = page.getByText(/entries/);
  await expect(status).toHaveText(/^500 entries so far/);
  await grid.press('End');
  await expect(status).toHaveText(/^1,[05]00 entries/);
  expect(await grid.getByRole('row').count()).toBeLessThan(80);
});

test('the first use offers one action: a machine, by a command to copy', async ({ page, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await signIn(page, dev().other_tenant);
  await expect(page.getByRole('heading', { name: 'Nothing is protected here yet' })).toBeVisible();
  await page.getByRole('button', { name: 'Enrol a machine' }).click();
  await page.getByRole('button', { name: 'Make the command' }).click();
  await expect(page.getByText('Waiting for the machine')).toBeVisible();
  await page.getByRole('dialog').getByRole('button', { name: 'Copy' }).first().click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied).toMatch(/^sudo everhold-agent enroll --server http\S+ --token evh_en_[0-9a-f]{32}_[\w-]{43} --kit-out \S+$/);
});

test('an MSP views a tenant, and the tenant can read that it did', async ({ page }) => {
  await signIn(page, dev().msp);
  await expect(page.getByRole('heading', { name: 'Tenants', level: 1 })).toBeVisible();
  const link = page.getByRole('link', { name: /^View as tenant/ }).and(page.locator(`[href*="${dev().tenant.id}"]`));
  await link.click();
  await expect(page.getByRole('complementary', { name: 'Viewing as another tenant' })).toBeVisible();
  await expect(page.getByRole('rowheader').first()).toBeVisible();
  await page.getByRole('link', { name: 'Activity' }).click();
  await expect(page.getByText('Tenant viewed by its provider').first()).toBeVisible();
  await page.getByRole('link', { name: 'Back to tenants' }).click();
  await expect(page.getByRole('heading', { name: 'Tenants', level: 1 })).toBeVisible();
});
