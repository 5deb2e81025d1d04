/** The mark: layers held by a clasp, which together spell an E. */
import classes from './Mark.module.css';

export function Mark({ size = 28 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" className={classes.mark}>
      <rect width="32" height="32" rx="7" className={classes.plate} />
      <path d="M12 6.5H8.5v19H12" className={classes.clasp} />
      <path d="M13.5 10.5h10M13.5 16h7M13.5 21.5h10" className={classes.layers} />
    </svg>
  );
}
