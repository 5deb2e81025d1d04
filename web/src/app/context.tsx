/** What every page may ask for: the API and the session. */
import { createContext, use } from 'react';
import type { Api } from '../api/client';
import type { Session } from '../auth/session';

export interface App {
  api: Api;
  session: Session;
}

const AppContext = createContext<App | null>(null);

export const AppProvider = AppContext.Provider;

export function useApi(): App {
  const app = use(AppContext);
  if (!app) throw new Error('useApi outside of AppProvider');
  return app;
}
