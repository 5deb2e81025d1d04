import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// `everhold dev` writes the origin it answers at into dev.json; `npm run dev` proxies the API there.
const api = process.env.EVERHOLD_API ?? 'http://localhost:4180';

export default defineConfig({
  plugins: [react()],
  server: { proxy: { '/v1': { target: api, changeOrigin: true } } },
  build: {
    target: 'es2022',
    // Nothing becomes a data: URI: the content security policy allows fonts and scripts from 'self' only.
    assetsInlineLimit: 0,
    manifest: true,
    modulePreload: { polyfill: false },
  },
  test: {
    environment: 'jsdom',
    setupFiles: ['./tests/setup.ts'],
    include: ['src/**/*.test.{ts,tsx}', 'tests/**/*.test.{ts,tsx}'],
    css: { modules: { classNameStrategy: 'non-scoped' } },
    testTimeout: 20_000,
  },
});
