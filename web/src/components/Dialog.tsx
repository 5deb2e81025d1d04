/** A modal with a translated close button. Its title names what it is about. */
import { Modal, type ModalProps } from '@mantine/core';
import { useWords } from '../i18n/useWords';

export function Dialog(props: ModalProps) {
  const { t } = useWords();
  return <Modal {...props} closeButtonProps={{ 'aria-label': t('app.close') }} />;
}
