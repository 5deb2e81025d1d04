/** What the specs share: a page that fails on policy violations, sign-in, and the way around. */
import AxeBuilder from '@axe-core/playwright';
import { expect, test as base, type Page } from '@playwright/test';
import { dev, type Account } from './platform';

export const test = base.extend<{ page: Page }>({
  page: async ({ page }, run) => {
    const violations: string[] = [];
    page.on('console', (message) => {
      if (message.text().includes('Content Security Policy')) violations.push(message.text());
    });
    page.on('pageerror', (error) => violations.push(error.message));
    await run(page);
    expect(violations, 'policy violations and uncaught errors').toEqual([]);
  },
});

export { expect, dev };

export async function fillSignIn(page: Page, who: Account): Promise<void> {
  await page.getByLabel('Email').fill(who.email);
  await page.getByRole('textbox', { name: 'Password' }).fill(who.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

export async function signIn(page: Page, who: Account, path = '/'): Promise<void> {
  await page.goto(path);
  await fillSignIn(page, who);
  await expect(page.getByRole('navigation', { name: 'Main' })).toBeVisible();
}

/** Opens the first workload of the tenant. */
export async function openWorkload(page: Page): Promise<void> {
  await page.getByRole('rowheader').getByRole('link').first().click();
  await expect(page.getByRole('tab', { name: 'Snapshots' })).toBeVisible();
}

export async function openSnapshot(page: Page): Promise<void> {
  await openWorkload(page);
  await page.getByRole('link', { name: /^Browse the snapshot/ }).first().click();
  await expect(page.getByRole('grid')).toBeVisible();
  await expect(page.getByRole('row').first()).toBeVisible();
}

/** Goes down the first folder of each level until a folder with a file is open. */
export async function descend(page: Page): Promise<void> {
  const grid = page.getByRole('grid');
  const crumbs = page.getByRole('navigation', { name: 'Folder' });
  for (let depth = 0; depth < 16; depth++) {
    if ((await grid.getByRole('img', { name: 'File', exact: true }).count()) > 0) return;
    const folder = grid.getByRole('row').filter({ has: page.getByRole('img', { name: 'Folder' }) }).first();
    const name = (await folder.getByRole('gridcell').first().innerText()).trim();
    await folder.click();
    await expect(crumbs.locator('[aria-current]')).toHaveText(name);
    await expect(grid.getByRole('row').first()).toBeVisible();
  }
  throw new Error('no file within 16 folders');
}

export async function expectAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page })
    .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'])
    .analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join('\n')}`)).toEqual([]);
}
