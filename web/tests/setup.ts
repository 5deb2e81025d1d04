/** What jsdom lacks and the components ask for. */
import '@testing-library/jest-dom/vitest';
import { cleanup, configure } from '@testing-library/react';
import { afterEach, vi } from 'vitest';
import { openLanguage } from '../src/i18n';

// Lazy pages are transformed on first import; on a busy machine that takes more than the default second.
configure({ asyncUtilTimeout: 10_000 });

const query = (media: string) => ({
  matches: false,
  media,
  addListener: vi.fn(),
  removeListener: vi.fn(),
  addEventListener: vi.fn(),
  removeEventListener: vi.fn(),
  dispatchEvent: vi.fn(),
});
Object.defineProperty(window, 'matchMedia', { writable: true, value: query });

class Observer {
  observe() {}
  unobserve() {}
  disconnect() {}
}
window.ResizeObserver = Observer;
Element.prototype.scrollIntoView = vi.fn();
window.scrollTo = vi.fn();

await openLanguage();

afterEach(() => {
  cleanup();
  sessionStorage.clear();
  localStorage.clear();
});
