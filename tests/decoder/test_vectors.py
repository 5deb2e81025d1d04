"""The independent decoder against the golden vectors the engine is held to."""

import base64
import copy
import hashlib
import json
import pathlib

import pytest

import everhold_decode as decode

VECTORS = pathlib.Path(__file__).parent.parent / "vectors"


def load(name):
    return json.loads((VECTORS / name).read_text())


@pytest.fixture(scope="module")
def vectors():
    return load("vault.json")


def open_vault(vectors, with_store=True):
    kit = decode.Kit(json.dumps(vectors["kit"]))
    store = decode.Dump(vectors["key_store"]) if with_store else None
    return decode.Vault(kit, decode.Dump(vectors["bucket"]), store)


@pytest.mark.parametrize("with_store", [True, False])
def test_a_vault_opens_from_bucket_key_store_and_kit(vectors, with_store):
    vault = open_vault(vectors, with_store)
    snapshot = vault.snapshot(vectors["snapshot"])
    node, level, entries = snapshot.manifest[10]
    root = vectors["root"]
    assert (node.hex(), level, entries) == (root["node"], root["level"], root["entries"])


def test_every_entry_and_every_byte_is_there(vectors):
    kinds = dict(enumerate(["file", "directory", "symlink", "fifo", "socket", "char", "block"], 1))
    snapshot = open_vault(vectors).snapshot()
    found = []
    for path, fields in snapshot.entries():
        content = hashlib.sha256()
        if fields[1] == 1:
            for data in snapshot.content(fields):
                content.update(data)
        found.append(
            {
                "path_hex": path.hex(),
                "kind": kinds[fields[1]],
                "mode": fields[2],
                "size": fields.get(15, 0),
                "sha256": content.hexdigest() if fields[1] == 1 else None,
            }
        )
    assert found == vectors["entries"]
    packs, entries, _ = snapshot.verify()
    assert (packs, entries) == (len(snapshot.references), len(found))


def test_primitives_are_those_of_the_engine():
    vectors = load("primitives.json")
    ids = decode.Ids(bytes.fromhex(vectors["ids"]["secret"]))
    for case in vectors["ids"]["of"]:
        data = bytes.fromhex(case["plaintext"])
        assert ids.file(data).hex() == case["file"]
        for kind, name in case["ids"]:
            assert ids.chunk(kind, data).hex() == name
    keys = {k: bytes.fromhex(v) for k, v in vectors["pack_keys"].items() if isinstance(v, str)}
    info = b"everhold/pack/v1\0" + keys["context"]
    okm = decode.hkdf("sha512", keys["salt"], keys["epoch_key"], info, 96)
    assert okm[64:] == keys["commitment"]
    frame = {k: bytes.fromhex(v) for k, v in vectors["pack_keys"]["frame_1"].items()}
    assert decode.aead_open(okm[:32], 1, frame["aad"], frame["sealed"]) == frame["plaintext"]
    for path, key in vectors["path_keys"]:
        assert decode.key_to_path(bytes.fromhex(key)) == path.encode()


@pytest.mark.parametrize("change", ["pack", "manifest", "receipt", "roster", "wrap", "kit"])
def test_a_changed_byte_is_refused(vectors, change):
    changed = copy.deepcopy(vectors)
    if change == "kit":
        text = changed["kit"]["kit"]["root_key"]
        changed["kit"]["kit"]["root_key"] = ("B" if text[0] == "A" else "A") + text[1:]
    else:
        where = "key_store" if change in ("roster", "wrap") else "bucket"
        part = {"pack": "/data/", "roster": "/roster-", "wrap": "/wrap-1-root"}.get(change, f"/{change}/")
        for key in [k for k in changed[where] if part in k]:
            data = bytearray(base64.b64decode(changed[where][key]))
            data[-20] ^= 1
            changed[where][key] = base64.b64encode(bytes(data)).decode()
    with pytest.raises((decode.Refused, decode.InvalidTag)):
        open_vault(changed).snapshot().verify()


def test_a_manifest_of_an_agent_off_the_roster_is_refused(vectors):
    vault = open_vault(vectors)
    vault.members = {agent: bytes(32) for agent in vault.members}
    with pytest.raises((decode.Refused, ValueError)):
        vault.snapshot()


@pytest.mark.parametrize(
    "hostile", ["1801", "5f4101ff", "a201000100", "a2020001 00", "f97e00", "0000", "9b00000000ffffffff"]
)
def test_cbor_that_is_not_deterministic_is_refused(hostile):
    with pytest.raises(decode.Refused):
        decode.cbor(bytes.fromhex(hostile.replace(" ", "")))
