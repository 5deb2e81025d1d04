import type { Page } from '@playwright/test';
import { dev, descend, expect, expectAccessible, openSnapshot, openWorkload, signIn, test } from './portal';

/** Every page, and how to get there. */
const PAGES: Record<string, (page: Page) => Promise<void>> = {
  'sign in': async (page) => {
    await page.goto('/');
    await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  },
  workloads: async (page) => {
    await signIn(page, dev().tenant);
    await expect(page.getByRole('rowheader').first()).toBeVisible();
  },
  'first use': async (page) => {
    await signIn(page, dev().other_tenant);
    await expect(page.getByRole('heading', { name: 'Nothing is protected here yet' })).toBeVisible();
  },
  enrolment: async (page) => {
    await signIn(page, dev().other_tenant);
    await page.getByRole('button', { name: 'Enrol a machine' }).click();
    await page.getByRole('button', { name: 'Make the command' }).click();
    await expect(page.getByText('Waiting for the machine')).toBeVisible();
  },
  menu: async (page) => {
    await signIn(page, dev().tenant);
    await page.getByRole('button', { name: /^Account and settings/ }).click();
    await expect(page.getByRole('menu')).toBeVisible();
  },
  workload: async (page) => {
    await signIn(page, dev().tenant);
    await openWorkload(page);
    await expect(page.getByRole('link', { name: /^Browse the snapshot/ }).first()).toBeVisible();
  },
  runs: async (page) => {
    await signIn(page, dev().tenant);
    await openWorkload(page);
    await page.getByRole('tab', { name: 'Runs' }).click();
    await expect(page.getByRole('rowheader').first()).toBeVisible();
  },
  run: async (page) => {
    await PAGES.runs?.(page);
    await page.getByRole('rowheader').getByRole('link').last().click();
    await expect(page.getByRole('heading', { name: 'Paths' })).toBeVisible();
  },
  snapshot: async (page) => {
    await signIn(page, dev().tenant);
    await openSnapshot(page);
    await descend(page);
  },
  restore: async (page) => {
    await signIn(page, dev().tenant);
    await openSnapshot(page);
    await page.getByRole('button', { name: 'Restore' }).click();
    await expect(page.getByRole('dialog')).toBeVisible();
  },
  activity: async (page) => {
    await signIn(page, dev().tenant);
    await page.getByRole('link', { name: 'Activity' }).click();
    await page.getByRole('button', { name: /^Details of event/ }).first().click();
    await expect(page.getByText('Event id')).toBeVisible();
  },
  tenants: async (page) => {
    await signIn(page, dev().msp);
    await expect(page.getByRole('rowheader').first()).toBeVisible();
  },
  'acting in a tenant': async (page) => {
    await signIn(page, dev().msp, `/t/${dev().tenant.id}/workloads`);
    await expect(page.getByRole('complementary')).toBeVisible();
    await expect(page.getByRole('rowheader').first()).toBeVisible();
  },
  'a thing that is not there': async (page) => {
    await signIn(page, dev().tenant, `/t/${dev().tenant.id}/snapshots/snp_${'0'.repeat(32)}`);
    await expect(page.getByRole('alert')).toBeVisible();
  },
};

for (const colorScheme of ['light', 'dark'] as const) {
  test.describe(`in ${colorScheme}`, () => {
    test.use({ colorScheme, reducedMotion: 'reduce' } as object);
    for (const [name, go] of Object.entries(PAGES)) {
      test(`${name} is accessible, wide and at 320 px, and never scrolls sideways`, async ({ page }) => {
        await go(page);
        await expectAccessible(page);
        await page.setViewportSize({ width: 320, height: 720 });
        expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(320);
        await expectAccessible(page);
      });
    }
  });
}

test('the keyboard alone leads from the top of a page into its content', async ({ page }) => {
  await signIn(page, dev().tenant);
  await expect(page.getByRole('rowheader').first()).toBeVisible();
  await page.reload();
  await expect(page.getByRole('rowheader').first()).toBeVisible();
  await page.keyboard.press('Tab');
  const skip = page.getByRole('link', { name: 'Skip to the content' });
  await expect(skip).toBeFocused();
  await expect(skip).toBeInViewport();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  await expect(page.getByRole('button', { name: 'Enrol a machine' })).toBeFocused();
});
