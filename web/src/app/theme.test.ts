import {
  convertCssVariables,
  DEFAULT_THEME,
  defaultCssVariablesResolver,
  mergeMantineTheme,
  type ConvertCSSVariablesInput,
} from '@mantine/core';
import { expect, it } from 'vitest';
import { cssVariablesResolver, theme } from './theme';

type Group = keyof ConvertCSSVariablesInput;
const GROUPS: Group[] = ['variables', 'light', 'dark'];

/** What Mantine would write into a style element at run time, less what its own style sheet says already. */
function themeVariables(): ConvertCSSVariablesInput {
  const merged = mergeMantineTheme(DEFAULT_THEME, theme);
  const known = defaultCssVariablesResolver(DEFAULT_THEME);
  const general = defaultCssVariablesResolver(merged);
  const own = cssVariablesResolver(merged);
  const group = (name: Group) => {
    const before = new Map(Object.entries(known[name]));
    return Object.entries({ ...general[name], ...own[name] }).filter(([key, value]) => before.get(key) !== value);
  };
  return Object.fromEntries(GROUPS.map((name) => [name, Object.fromEntries(group(name))])) as never;
}

it('theme-variables.css is what the theme says (npx vitest run -u after changing the theme)', async () => {
  const css = convertCssVariables(themeVariables(), ':root').replace(/([{;])/g, '$1\n').replace(/\n?}/g, '\n}\n\n');
  const lines = css.trim().split('\n').map((line) => (/[{}]/.test(line) || line === '' ? line : `  ${line.trim()}`));
  const head = '/* Written by theme.test.ts from theme.ts; do not edit. */\n';
  await expect(`${head}${lines.join('\n')}\n`).toMatchFileSnapshot('theme-variables.css');
});
