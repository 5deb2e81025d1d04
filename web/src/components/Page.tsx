/** The frame of every page: title, context, actions. Moves focus to the title when the page changes. */
import { useEffect, useRef, type ReactNode } from 'react';
import classes from './Page.module.css';

interface PageProps {
  title: string;
  /** Small line above the title: where we are. */
  above?: ReactNode;
  /** Sentence or badges below it. */
  below?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

/** The very first page must not steal the focus from the address bar. */
let moved = false;

export function Page({ title, above, below, actions, children }: PageProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Everhold`;
  }, [title]);
  useEffect(() => {
    if (moved) heading.current?.focus({ preventScroll: true });
    moved = true;
  }, []);
  return (
    <div className={classes.page}>
      <header className={classes.header}>
        <div className={classes.words}>
          {above && <div className={classes.above}>{above}</div>}
          <h1 ref={heading} tabIndex={-1} className={classes.title}>
            {title}
          </h1>
          {below && <div className={classes.below}>{below}</div>}
        </div>
        {actions && <div className={classes.actions}>{actions}</div>}
      </header>
      {children}
    </div>
  );
}

export function Card({ children, flush = false }: { children: ReactNode; flush?: boolean }) {
  return (
    <div className={classes.card} data-flush={flush || undefined}>
      {children}
    </div>
  );
}

export interface Fact {
  label: string;
  value: ReactNode;
  hint?: string;
}

/** Figures with their names. */
export function Facts({ items }: { items: (Fact | null)[] }) {
  return (
    <dl className={classes.facts}>
      {items.map(
        (item) =>
          item && (
            <div key={item.label} title={item.hint}>
              <dt>{item.label}</dt>
              <dd>{item.value}</dd>
            </div>
          ),
      )}
    </dl>
  );
}

interface EmptyProps {
  icon: ReactNode;
  title: string;
  children?: ReactNode;
}

export function Empty({ icon, title, children }: EmptyProps) {
  return (
    <div className={classes.empty}>
      <div className={classes.emptyIcon}>{icon}</div>
      <h2 className={classes.emptyTitle}>{title}</h2>
      {children}
    </div>
  );
}
