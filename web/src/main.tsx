/** Entry: language and session first, so that the first paint is the right page in the right words. */
import './app/styles';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { createPortal, Portal } from './app/App';
import { openSession } from './auth';
import { openLanguage } from './i18n';

const [session] = await Promise.all([openSession(), openLanguage()]);
const container = document.getElementById('root');
if (!container) throw new Error('index.html has no #root');
createRoot(container).render(
  <StrictMode>
    <Portal {...createPortal(session)} />
  </StrictMode>,
);
