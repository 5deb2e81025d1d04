/**
 * Screenshots of every page, light and dark, wide and 320 px, against a running platform or stub.
 *   EVERHOLD_DEV_JSON=DIR/dev.json node tests/shots.mjs OUT_DIR [name …]
 */
import { chromium } from '@playwright/test';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const [out, ...only] = process.argv.slice(2);
const dev = JSON.parse(readFileSync(process.env.EVERHOLD_DEV_JSON, 'utf8'));
mkdirSync(out, { recursive: true });

const signIn = async (page, who) => {
  await page.goto(dev.portal_url);
  await page.getByLabel('Email').fill(who.email);
  await page.locator('input[name=password]').fill(who.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('navigation', { name: 'Main' }).waitFor();
};
const workload = async (page) => {
  await page.getByRole('rowheader').getByRole('link').first().click();
  await page.getByRole('tab', { name: 'Snapshots' }).waitFor();
};

/** name → how to get there. */
const PAGES = {
  'sign-in': async (page) => {
    await page.goto(dev.portal_url);
  },
  'sign-in-wrong': async (page) => {
    await page.goto(`${dev.portal_url}/sign-in`);
    await page.getByLabel('Email').fill('nobody@everhold.test');
    await page.locator('input[name=password]').fill('wrong');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').waitFor();
  },
  workloads: (page) => signIn(page, dev.tenant),
  running: async (page) => {
    await signIn(page, dev.tenant);
    await page.getByRole('button', { name: /^Run now/ }).first().click();
    await page.getByText('Live').waitFor();
    await page.waitForTimeout(2500);
  },
  'run-refused': async (page) => {
    await signIn(page, dev.tenant);
    await page.getByRole('button', { name: /^Run now/ }).nth(1).click();
    await page.getByRole('alert').waitFor();
  },
  menu: async (page) => {
    await signIn(page, dev.tenant);
    await page.getByRole('button', { name: /^Account and settings/ }).click();
  },
  empty: (page) => signIn(page, dev.other_tenant),
  enrol: async (page) => {
    await signIn(page, dev.other_tenant);
    await page.getByRole('button', { name: 'Enrol a machine' }).click();
    await page.getByRole('button', { name: 'Make the command' }).click();
    await page.getByText('Waiting for the machine').waitFor();
  },
  workload: async (page) => {
    await signIn(page, dev.tenant);
    await workload(page);
  },
  runs: async (page) => {
    await signIn(page, dev.tenant);
    await workload(page);
    await page.getByRole('tab', { name: 'Runs' }).click();
  },
  run: async (page) => {
    await signIn(page, dev.tenant);
    await workload(page);
    await page.getByRole('tab', { name: 'Runs' }).click();
    await page.getByRole('row').filter({ hasText: 'With exceptions' }).getByRole('link').first().click();
    await page.getByRole('heading', { name: 'Exceptions' }).waitFor();
  },
  snapshot: async (page) => {
    await signIn(page, dev.tenant);
    await workload(page);
    await page.getByRole('link', { name: /^Browse the snapshot/ }).first().click();
    await page.getByRole('grid').waitFor();
    for (const name of ['srv', 'share']) await page.getByRole('row').filter({ hasText: name }).first().click();
    await page.getByText('README.txt').waitFor();
    await page.getByRole('grid').press('ArrowDown');
  },
  damaged: async (page) => {
    await PAGES.snapshot(page);
    await page.getByRole('row').filter({ hasText: 'archive' }).first().click();
    await page.getByText('A part of this folder is damaged').waitFor();
  },
  restore: async (page) => {
    await PAGES.snapshot(page);
    await page.getByRole('button', { name: 'Restore' }).click();
  },
  activity: async (page) => {
    await signIn(page, dev.tenant);
    await page.getByRole('link', { name: 'Activity' }).click();
    await page.getByRole('button', { name: /^Details of event/ }).nth(1).click();
  },
  tenants: (page) => signIn(page, dev.msp),
  acting: async (page) => {
    await signIn(page, dev.msp);
    await page.getByRole('row').filter({ hasText: 'View as tenant' }).last().getByRole('link').first().click();
    await page.getByText('You are viewing').waitFor();
  },
  'not-found': async (page) => {
    await signIn(page, dev.tenant);
    await page.goto(`${dev.portal_url}/nowhere`);
  },
  missing: async (page) => {
    await signIn(page, dev.tenant);
    await page.goto(`${dev.portal_url}/t/${dev.tenant.id}/snapshots/snp_${'0'.repeat(32)}`);
    await page.getByRole('alert').waitFor();
  },
};

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const views = [
  ['light', 1440, 900],
  ['dark', 1440, 900],
  ['light', 320, 720],
  ['dark', 320, 720],
];
for (const [name, go] of Object.entries(PAGES)) {
  if (only.length > 0 && !only.includes(name)) continue;
  for (const [colorScheme, width, height] of views) {
    const context = await browser.newContext({ colorScheme, viewport: { width, height }, locale: process.env.SHOTS_LOCALE ?? 'en' });
    const page = await context.newPage();
    page.on('console', (message) => message.type() === 'error' && console.log(`${name}: ${message.text()}`));
    try {
      await go(page);
      await page.waitForTimeout(400);
    } catch (error) {
      console.log(`${name} ${colorScheme} ${width}: ${error.message.split('\n')[0]}`);
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) console.log(`${name} ${colorScheme} ${width}: scrolls sideways (${wide} px)`);
    await page.screenshot({ path: join(out, `${name}-${colorScheme}-${width}.png`) });
    await context.close();
  }
}
await browser.close();
