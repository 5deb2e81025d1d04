/**
 * A modal with a translated close button. Its title names what it is about. The page behind is kept from
 * scrolling by tokens.css, because Mantine's own way writes a style element, which the policy refuses.
 */
import { Modal, type ModalProps } from '@mantine/core';
import { useWords } from '../i18n/useWords';

export function Dialog(props: ModalProps) {
  const { t } = useWords();
  return <Modal {...props} lockScroll={false} closeButtonProps={{ 'aria-label': t('app.close') }} />;
}
