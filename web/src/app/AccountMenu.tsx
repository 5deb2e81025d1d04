/** Who is signed in, how the portal looks and speaks, and the way out. */
import { Menu, UnstyledButton, useMantineColorScheme } from '@mantine/core';
import {
  IconCheck,
  IconDeviceDesktop,
  IconLanguage,
  IconLogout,
  IconMoon,
  IconSelector,
  IconSun,
} from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import type { Me } from '../api/types';
import { LANGUAGES, setLanguage, type Language } from '../i18n';
import { useApi } from './context';
import classes from './Shell.module.css';

const SCHEMES = [
  ['light', IconSun],
  ['dark', IconMoon],
  ['auto', IconDeviceDesktop],
] as const;

const check = (on: boolean) => (on ? <IconCheck size={16} aria-hidden="true" /> : null);

export function AccountMenu({ me }: { me: Me }) {
  const { t, i18n } = useTranslation();
  const { session } = useApi();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <Menu position="top-start" width={232} withinPortal>
      <Menu.Target>
        <UnstyledButton className={classes.person} aria-label={`${t('app.menu')}: ${me.name}`}>
          <span className={classes.initials} aria-hidden="true">
            {me.name.slice(0, 1).toUpperCase()}
          </span>
          <span className={classes.names}>
            <span className={classes.name}>{me.name}</span>
            <span className={classes.tenant}>{me.tenant.name}</span>
          </span>
          <IconSelector size={16} aria-hidden="true" />
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>{me.email}</Menu.Label>
        <Menu.Divider />
        <Menu.Label>{t('account.scheme')}</Menu.Label>
        {SCHEMES.map(([scheme, Shape]) => (
          <Menu.Item
            key={scheme}
            role="menuitemradio"
            aria-checked={colorScheme === scheme}
            leftSection={<Shape size={16} aria-hidden="true" />}
            rightSection={check(colorScheme === scheme)}
            onClick={() => setColorScheme(scheme)}
          >
            {t(`account.${scheme}`)}
          </Menu.Item>
        ))}
        <Menu.Divider />
        <Menu.Label>{t('account.language')}</Menu.Label>
        {(Object.keys(LANGUAGES) as Language[]).map((language) => (
          <Menu.Item
            key={language}
            lang={language}
            role="menuitemradio"
            aria-checked={i18n.language === language}
            leftSection={<IconLanguage size={16} aria-hidden="true" />}
            rightSection={check(i18n.language === language)}
            onClick={() => void setLanguage(language)}
          >
            {LANGUAGES[language]}
          </Menu.Item>
        ))}
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={16} aria-hidden="true" />} onClick={() => void session.signOut()}>
          {t('account.signOut')}
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
