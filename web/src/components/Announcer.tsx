/** One live region for the whole portal: it outlives whatever had something to say. */
import { VisuallyHidden } from '@mantine/core';
import { createContext, use, useState, type ReactNode } from 'react';

type Announce = (message: string) => void;

const AnnounceContext = createContext<Announce>(() => undefined);

export function Announcer({ children }: { children: ReactNode }) {
  const [message, setMessage] = useState('');
  return (
    <AnnounceContext value={setMessage}>
      {children}
      <VisuallyHidden role="status" aria-live="polite" data-testid="announcer">
        {message}
      </VisuallyHidden>
    </AnnounceContext>
  );
}

/** Says something to those who listen rather than look. */
export const useAnnounce = (): Announce => use(AnnounceContext);
