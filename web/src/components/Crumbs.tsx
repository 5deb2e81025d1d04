/** Where in the snapshot one is, and the way back up. */
import { IconChevronRight } from '@tabler/icons-react';
import { Link } from '@tanstack/react-router';
import { Fragment } from 'react';
import type { Crumb } from '../format/folder';
import { useWords } from '../i18n/useWords';
import classes from './FileList.module.css';

/** Without it every folder of the snapshot would count as the current page. */
const EXACTLY = { exact: true, includeSearch: true };

interface CrumbsProps {
  tenant: string;
  snapshot: string;
  trail: Crumb[];
}

export function Crumbs({ tenant, snapshot, trail }: CrumbsProps) {
  const { t } = useWords();
  const params = { tenant, snapshot };
  return (
    <nav aria-label={t('browse.breadcrumb')} className={classes.crumbs}>
      <ol>
        <li>
          {trail.length === 0 ? (
            <span aria-current="page">{t('browse.top')}</span>
          ) : (
            <Link
              to="/t/$tenant/snapshots/$snapshot"
              params={params}
              search={{}}
              activeOptions={EXACTLY}
              resetScroll={false}
            >
              {t('browse.top')}
            </Link>
          )}
        </li>
        {trail.map((crumb, i) => (
          <Fragment key={crumb.pathB64 ?? crumb.path}>
            <li>
              <IconChevronRight size={14} aria-hidden="true" />
              {i === trail.length - 1 ? (
                <span aria-current="page">{crumb.name}</span>
              ) : (
                <Link
                  to="/t/$tenant/snapshots/$snapshot"
                  params={params}
                  search={crumb.pathB64 ? { path_b64: crumb.pathB64 } : { path: crumb.path }}
                  activeOptions={EXACTLY}
                  resetScroll={false}
                >
                  {crumb.name}
                </Link>
              )}
            </li>
          </Fragment>
        ))}
      </ol>
    </nav>
  );
}
