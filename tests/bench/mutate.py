"""Changes a known part of a tree and takes it back.

Owns the journal that makes undoing possible: a copy of each file before its change. Which files change, and into
what, follows from the seed alone.
"""

import json
import os
import random
import shutil
from pathlib import Path

EDITED = 64
APPENDED = 1024


def regular_files(roots):
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    yield path


def kind_of(index):
    """Half edited, a quarter appended to, a quarter touched."""
    return ("edit", "append", "edit", "touch")[index % 4]


def chosen(paths, share, seed):
    """[(path, kind)] for a share of the files, in an order of chance."""
    dice = random.Random(seed)
    picked = dice.sample(paths, max(1, int(len(paths) * share)))
    return [(path, kind_of(index)) for index, path in enumerate(picked)]


def change(path, kind, dice):
    size = os.path.getsize(path)
    if kind == "edit" and size:
        with open(path, "r+b") as file:
            file.seek(max(0, size // 2 - EDITED // 2))
            file.write(dice.randbytes(min(EDITED, size)))
    elif kind == "append":
        with open(path, "ab") as file:
            file.write(dice.randbytes(APPENDED))
    else:
        os.utime(path)


def apply(roots, share, seed, journal):
    journal = Path(journal)
    journal.mkdir(parents=True)
    changes = chosen(list(regular_files(roots)), share, seed)
    for index, (path, _) in enumerate(changes):
        shutil.copy2(path, journal / str(index))
    (journal / "paths").write_text(json.dumps([path for path, _ in changes]))
    dice = random.Random(seed)
    for path, kind in changes:
        change(path, kind, dice)


def undo(journal):
    """Also finishes an undo that was interrupted; a journal without its list changed nothing yet."""
    journal = Path(journal)
    listed = journal / "paths"
    if listed.exists():
        for index, path in enumerate(json.loads(listed.read_text())):
            saved = journal / str(index)
            # In place: the file keeps its inode, as an edited file does.
            with open(saved, "rb") as old, open(path, "r+b") as file:
                shutil.copyfileobj(old, file)
                file.truncate()
            shutil.copystat(saved, path)
    shutil.rmtree(journal, ignore_errors=True)
