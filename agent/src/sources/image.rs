//! Which files are disk images: their blocks stay where they are when something changes, so that cutting
//! at fixed places finds more again than cutting by content does.
//!
//! Decided by size and the file's beginning, never by its name. A wrong guess costs space, nothing else.

/// Smaller files are not worth the question.
const LEAST: u64 = 64 << 20;

/// Whether a file of `size` bytes that begins with `head` is a disk image or a file of fixed pages.
pub fn looks_like_image(head: &[u8], size: u64) -> bool {
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    size >= LEAST
        && (has(510, b"\x55\xaa") // MBR, and the protective one in front of GPT
            || has(512, b"EFI PART")
            || has(1024 + 56, b"\x53\xef") // ext2, 3 and 4
            || has(0, b"XFSB")
            || has(3, b"NTFS    ")
            || has(0, b"QFI\xfb")
            || has(0, b"KDMV")
            || has(0, b"vhdxfile")
            || has(64, b"\x7f\x10\xda\xbe") // VDI
            || has(512, b"LABELONE") // LVM
            || has(0, b"LUKS\xba\xbe")
            || has(0, b"SQLite format 3\0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_of_some_size_is_an_image_and_text_is_none() {
        let mut ext4 = vec![0; 4096];
        ext4[1080..1082].copy_from_slice(b"\x53\xef");
        assert!(looks_like_image(&ext4, LEAST));
        assert!(!looks_like_image(&ext4, LEAST - 1));
        assert!(!looks_like_image(&[b'a'; 4096], LEAST));
        assert!(!looks_like_image(b"", LEAST));
        assert!(looks_like_image(b"QFI\xfb", LEAST));
    }
}
