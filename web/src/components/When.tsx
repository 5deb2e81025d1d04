/** A moment: relative where that helps, the absolute time with its zone on hover. */
import { formatAbsolute, formatDate, formatRelative } from '../format/time';
import { useWords } from '../i18n/useWords';
import { useNow } from './useNow';

export function When({ at, as = 'relative' }: { at: string; as?: 'relative' | 'date' }) {
  const { locale } = useWords();
  const now = useNow();
  const moment = Date.parse(at);
  const text = as === 'date' ? formatDate(moment, locale) : formatRelative(moment, Math.max(now, 0), locale);
  return (
    <time dateTime={at} title={formatAbsolute(moment, locale)}>
      {text}
    </time>
  );
}
