/**
 * The look: evergreen means "held", paper means calm. Every colour lives in tokens.css as one variable per
 * role and scheme; Mantine's own variables are pointed at those, so a contrast decision is made once.
 */
import {
  createTheme,
  localStorageColorSchemeManager,
  type CSSVariablesResolver,
  type MantineColorsTuple,
} from '@mantine/core';

const evergreen: MantineColorsTuple = [
  '#eff6f3', '#dfece6', '#bcd6ca', '#96c0ad', '#75ad94', '#5fa185', '#479075', '#317a60', '#1f6650', '#124a39',
];

/** Neutrals with the paper's warmth in the light and the evergreen's tint in the dark. */
const gray: MantineColorsTuple = [
  '#f6f4ee', '#f0ede4', '#e6e2d6', '#d8d3c4', '#c4beae', '#a29c8c', '#837e70', '#645f53', '#47433a', '#2b2924',
];
const dark: MantineColorsTuple = [
  '#e5ebe8', '#b4c0ba', '#a2afa9', '#7d8a84', '#43504b', '#28312e', '#1c2321', '#111514', '#0c100f', '#080b0a',
];

/** Shared with public/color-scheme.js, which runs before this bundle. */
export const colorSchemeManager = localStorageColorSchemeManager({ key: 'everhold.color-scheme' });

export const theme = createTheme({
  primaryColor: 'evergreen',
  primaryShade: { light: 8, dark: 8 },
  colors: { evergreen, gray, dark },
  fontFamily: '"Inter Variable", system-ui, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", monospace',
  headings: { fontWeight: '620' },
  defaultRadius: 6,
  cursorType: 'pointer',
  respectReducedMotion: true,
  // By name and not by `Button.extend`: importing the components here would put them into the entry.
  components: {
    Button: { defaultProps: { size: 'sm' } },
    Modal: { defaultProps: { centered: true } },
    Menu: { defaultProps: { shadow: 'md' } },
    Tooltip: { defaultProps: { withArrow: true, openDelay: 250 } },
  },
});

const tokens = {
  '--mantine-color-body': 'var(--eh-paper)',
  '--mantine-color-text': 'var(--eh-ink)',
  '--mantine-color-dimmed': 'var(--eh-ink-soft)',
  '--mantine-color-placeholder': 'var(--eh-ink-soft)',
  '--mantine-color-error': 'var(--eh-bad)',
  '--mantine-color-anchor': 'var(--eh-brand)',
  '--mantine-color-default': 'var(--eh-surface)',
  '--mantine-color-default-hover': 'var(--eh-hover)',
  '--mantine-color-default-color': 'var(--eh-ink)',
  '--mantine-color-default-border': 'var(--eh-line-strong)',
  '--mantine-primary-color-light': 'var(--eh-ok-bg)',
  '--mantine-primary-color-light-hover': 'var(--eh-hover)',
  '--mantine-primary-color-light-color': 'var(--eh-brand)',
};

export const cssVariablesResolver: CSSVariablesResolver = () => ({ variables: {}, light: tokens, dark: tokens });
