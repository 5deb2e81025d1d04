/**
 * End to end against a running platform: EVERHOLD_DEV_JSON names the dev.json of `everhold dev`.
 * With EVERHOLD_AGENT_BIN the setup enrols an agent, backs a folder up and leaves its daemon running;
 * without it the platform has to have a workload whose daemon runs already.
 */
import { defineConfig } from '@playwright/test';
import { dev } from './e2e/platform';

export default defineConfig({
  testDir: 'e2e',
  reporter: 'line',
  globalSetup: './e2e/setup.ts',
  globalTeardown: './e2e/teardown.ts',
  // One browser at a time: the specs share a platform, and its one agent runs one backup at a time.
  workers: 1,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  use: {
    baseURL: dev().portal_url,
    locale: 'en-GB',
    viewport: { width: 1440, height: 900 },
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
});
