/** Words and figures in the reader's language. */
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import { formatBytes, formatCount } from '../format/bytes';

export function useWords() {
  const { t, i18n } = useTranslation();
  const locale = i18n.language;
  return useMemo(
    () => ({
      t,
      locale,
      bytes: (n: number) => formatBytes(n, locale),
      count: (n: number) => formatCount(n, locale),
      /** Count and its written form, for plural phrases. */
      plural: (n: number) => ({ count: n, formatted: formatCount(n, locale) }),
    }),
    [t, locale],
  );
}
