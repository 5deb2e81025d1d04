#!/usr/bin/env python3
"""Independent reader of Everhold vaults, format 1 (docs/vault-format.md).

Opens a vault from its bucket, the key store and a recovery kit, and nothing else: verifies roster, manifests and
receipts, lists snapshots and entries, restores files. Written from the format document, not from the engine, so that a
mistake in either shows. It shares no code with it and favours plainness over speed.

  everhold_decode.py --kit KIT --bucket DIR [--keys DIR] snapshots
  everhold_decode.py --kit KIT --dev-json STATE/dev.json list
  everhold_decode.py --kit KIT --endpoint URL --bucket NAME [--key-bucket NAME] --access-key K --secret-key S list
  ... list [--snapshot SNP] | extract PATH OUT | restore OUT | verify

With --dev-json, the store of a running `everhold dev` is read. A bucket is a folder with object files by key, a JSON dump {key: base64}, or an S3 endpoint. Without a key store the
wraps, roster and descriptor in the kit are used.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import pathlib
import sys

import blake3
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Refused(Exception):
    """The bytes must not be used."""


def need(condition, why):
    if not condition:
        raise Refused(why)


# --- deterministic CBOR -------------------------------------------------------------------------


class Cbor:
    """Strict reader: shortest heads, definite lengths, ascending unsigned map keys, nothing else."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def head(self):
        need(self.at < len(self.data), "CBOR ends early")
        first = self.data[self.at]
        self.at += 1
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        need(info <= 27, "CBOR is not deterministic")
        size = 1 << (info - 24)
        need(self.at + size <= len(self.data), "CBOR ends early")
        value = int.from_bytes(self.data[self.at : self.at + size], "big")
        self.at += size
        need(value >= {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[size], "CBOR is not deterministic")
        return major, value

    def value(self):
        major, n = self.head()
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major in (2, 3):
            need(n <= len(self.data) - self.at, "CBOR ends early")
            raw = self.data[self.at : self.at + n]
            self.at += n
            return raw if major == 2 else raw.decode("utf-8")
        if major == 4:
            need(n <= len(self.data) - self.at, "CBOR ends early")
            return [self.value() for _ in range(n)]
        if major == 5:
            need(n <= len(self.data) - self.at, "CBOR ends early")
            out, last = {}, -1
            for _ in range(n):
                key = self.value()
                need(isinstance(key, int) and key > last, "CBOR map keys do not ascend")
                out[key] = self.value()
                last = key
            return out
        raise Refused("CBOR of a kind the format does not have")


def cbor(data):
    reader = Cbor(data)
    value = reader.value()
    need(reader.at == len(data), "bytes after the CBOR value")
    return value


def cbor_head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << (8 * size):
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise ValueError(n)


def encode(value):
    if isinstance(value, bool):
        raise TypeError("the format has no booleans")
    if isinstance(value, int):
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return cbor_head(3, len(raw)) + raw
    if isinstance(value, list):
        return cbor_head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        body = b"".join(encode(k) + encode(v) for k, v in sorted(value.items()))
        return cbor_head(5, len(value)) + body
    raise TypeError(type(value))


# --- cryptography -------------------------------------------------------------------------------


def hkdf(hash_name, salt, secret, info, length):
    size = hashlib.new(hash_name).digest_size
    prk = hmac.new(salt or bytes(size), secret, hash_name).digest()
    return hkdf_expand(hash_name, prk, info, length)


def hkdf_expand(hash_name, prk, info, length):
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hash_name).digest()
        out, counter = out + block, counter + 1
    return out[:length]


def derive(secret, label):
    return hkdf("sha512", b"", secret, label.encode(), 32)


def hpke_open(secret, enc, info, aad, ciphertext):
    """RFC 9180 base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"

    def extract(suite_id, salt, label, ikm):
        return hmac.new(salt or bytes(32), b"HPKE-v1" + suite_id + label + ikm, "sha256").digest()

    def expand(suite_id, prk, label, context, length):
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + context
        return hkdf_expand("sha256", prk, labeled, length)

    private = X25519PrivateKey.from_private_bytes(secret)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    shared = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", enc + public, 32)
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"")
    context += extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    key = expand(suite, secret, b"key", context, 32)
    nonce = expand(suite, secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, aad)


def aead_open(key, number, aad, sealed):
    try:
        return AESGCM(key).decrypt(bytes(8) + number.to_bytes(4, "big"), sealed, aad)
    except InvalidTag as error:
        raise Refused("authentication failed") from error


def signed(domain, data, keys):
    """Payload of an envelope, verified under one of the keys; gives (payload, key)."""
    envelope = cbor(data)
    need(set(envelope) == {1, 2}, "not a signed object")
    message = domain.encode() + b"\0" + envelope[1]
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(envelope[2], message)
            return cbor(envelope[1]), key
        except InvalidSignature:
            continue
    raise Refused("no trusted signature")


KINDS = {0: "pad", 1: "chunk", 2: "bundle", 3: "node", 4: "list", 5: "summary"}


class Ids:
    def __init__(self, secret):
        self.keys = {code: derive(secret, f"everhold/v1/id/{name}") for code, name in KINDS.items()}
        self.file_key = derive(secret, "everhold/v1/id/file")

    @staticmethod
    def keyed(key, data):
        return blake3.blake3(len(data).to_bytes(8, "little") + data, key=key).digest()

    def chunk(self, kind, data):
        return self.keyed(self.keys[kind], data)

    def file(self, data):
        return self.keyed(self.file_key, data)[:16]


# --- packs --------------------------------------------------------------------------------------

HEADER = 160


class Pack:
    """A whole pack in memory, with everything checked that can be checked."""

    def __init__(self, data, epochs, ids, tenant, vault, kind):
        need(len(data) >= 2 * HEADER + 20 and data[-8:] == b"EVHPEND1", "not a pack")
        header = data[:HEADER]
        need(header[:8] == b"EVHPACK1" and header[8:10] == b"\0\1", "unknown pack suite")
        need(header[11] == 0 and not any(header[152:]), "unknown pack flags")
        need(data[-176:-16] == header, "the header copies differ")
        need(header[10] == kind and header[12:28] == tenant and header[28:44] == vault, "foreign pack")
        epoch = int.from_bytes(header[44:48], "big")
        need(epoch in epochs, "no key for the pack's epoch")
        okm = hkdf("sha512", header[88:120], epochs[epoch], b"everhold/pack/v1\0" + header[8:88], 96)
        self.frame_key, directory_key, commitment = okm[:32], okm[32:64], okm[64:]
        need(hmac.compare_digest(commitment, header[120:152]), "the commitment is of another key")
        self.hash = hashlib.sha256(header).digest()
        first = int.from_bytes(data[160:164], "big")
        need(data[-16:-12] == data[160:164], "the directory lengths differ")
        second = int.from_bytes(data[-12:-8], "big")
        start = 164
        copies = [data[start : start + first], data[-176 - second : -176]]
        opened = [
            self.directory(aead_open(directory_key, n, self.hash + b"D" + bytes([n]), copy), n)
            for n, copy in enumerate(copies)
        ]
        need(opened[0][0] == opened[1][0], "the directory copies differ")
        self.frames, self.parts, length = opened[0]
        need(opened[0][2] == opened[1][2], "the directory copies differ")
        need(length[1:] == (first, second), "the directory is of another pack")
        need(164 + first + length[0] + second + 176 == len(data), "the pack has another length")
        self.data, self.ids, self.offsets, at = data, ids, [], start + first
        for _, sealed_len, _, _ in self.frames:
            self.offsets.append(at)
            at += sealed_len

    @staticmethod
    def directory(plain, copy):
        need(plain[0] == 1 and plain[1] == copy, "unknown directory version")
        count = int.from_bytes(plain[2:6], "big")
        frames_len = int.from_bytes(plain[6:14], "big")
        first, second = int.from_bytes(plain[14:18], "big"), int.from_bytes(plain[18:22], "big")
        at, frames, parts = 22, [], {}
        need(count <= 65536 and at + count * 41 <= len(plain), "the directory is damaged")
        for _ in range(count):
            kind = plain[at]
            sealed = int.from_bytes(plain[at + 1 : at + 5], "big")
            raw = int.from_bytes(plain[at + 5 : at + 9], "big")
            need(kind in KINDS and raw <= 16 << 20, "the directory is damaged")
            frames.append((kind, sealed, raw, plain[at + 9 : at + 41]))
            at += 41
        if copy == 0:
            for index, (kind, _, raw, _) in enumerate(frames):
                if kind != 2:
                    continue
                number = int.from_bytes(plain[at : at + 2], "big")
                at += 2
                listed, offset = [], 0
                for _ in range(number):
                    length = int.from_bytes(plain[at + 16 : at + 19], "big")
                    listed.append((plain[at : at + 16], offset, length))
                    at, offset = at + 19, offset + length
                need(offset == raw, "a bundle's files do not fill it")
                parts[index] = listed
        need(not any(plain[at:]), "the directory's padding is not zero")
        need([f[0] for f in frames].count(0) == 1 and frames[-1][0] == 0, "padding is not last")
        need(sum(f[1] for f in frames) == frames_len, "the directory is damaged")
        return frames, parts, (frames_len, first, second)

    def frame(self, index):
        kind, sealed_len, raw_len, chunk_id = self.frames[index]
        sealed = self.data[self.offsets[index] : self.offsets[index] + sealed_len]
        aad = self.hash + b"F" + bytes([kind]) + index.to_bytes(4, "big") + chunk_id
        plain = aead_open(self.frame_key, index, aad, sealed)
        need(int.from_bytes(plain[1:5], "big") == raw_len, "a frame has another length")
        raw = plain[5:]
        if plain[0] == 1:
            raw = zstandard.ZstdDecompressor().decompress(raw, max_output_size=raw_len)
        need(plain[0] in (0, 1) and len(raw) == raw_len, "a frame does not decode")
        if kind == 0:
            need(not any(raw), "padding is not zero")
        else:
            need(self.ids.chunk(kind, raw) == chunk_id, "a frame is not what its id says")
        return raw


# --- buckets ------------------------------------------------------------------------------------


class Folder:
    """Objects as files named by their keys (a download, or any tool's copy of a bucket)."""

    def __init__(self, root):
        self.root = pathlib.Path(root)

    def keys(self):
        files = (p for p in self.root.rglob("*") if p.is_file())
        return sorted(str(p.relative_to(self.root)) for p in files)

    def get(self, key):
        return (self.root / key).read_bytes()


class Dump:
    """Objects in a dictionary of base64 text."""

    def __init__(self, objects):
        self.objects = objects

    def keys(self):
        return sorted(self.objects)

    def get(self, key):
        return base64.b64decode(self.objects[key])


class S3:
    """Plain S3: list and get. In the vault bucket nothing is ever overwritten, so of several versions of a key the
    first one is ours; in the key store the newest counts."""

    def __init__(self, endpoint, bucket, access_key, secret_key, oldest, region="us-east-1"):
        import boto3
        from botocore.config import Config

        self.bucket, self.oldest = bucket, oldest
        # Looking at a store that is not there should say so soon.
        patience = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(s3={"addressing_style": "path"}, **patience),
        )

    def told(self, error):
        return Refused(f"bucket {self.bucket} at {self.client.meta.endpoint_url}: {error}")

    def keys(self):
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self.listed()
        except (BotoCoreError, ClientError) as error:
            raise self.told(error) from error

    def listed(self):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key):
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self.fetched(key)
        except (BotoCoreError, ClientError) as error:
            raise self.told(error) from error

    def fetched(self, key):
        version = {}
        if self.oldest:
            listed = self.client.list_object_versions(Bucket=self.bucket, Prefix=key)
            ours = [v for v in listed.get("Versions", []) if v["Key"] == key]
            if ours:
                version["VersionId"] = min(ours, key=lambda v: v["LastModified"])["VersionId"]
        return self.client.get_object(Bucket=self.bucket, Key=key, **version)["Body"].read()


# --- kit ----------------------------------------------------------------------------------------


class Kit:
    def __init__(self, text):
        document = json.loads(text)
        body = document["kit"]
        compact = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        need(hashlib.sha256(compact.encode()).hexdigest() == document["checksum"], "kit checksum")
        need(body["format"] == "everhold-recovery-kit" and body["version"] == 1, "not a kit")
        self.root = base64.b64decode(body["root_key"])
        canary_key = derive(self.root, "everhold/v1/root/canary")
        canary = aead_open(canary_key, 0, body["tenant_id"].encode(), base64.b64decode(body["canary"]))
        need(canary == b"everhold canary: this kit opens its vaults", "kit canary")
        self.tenant = bytes.fromhex(body["tenant_id"][4:])
        self.vaults = body["vaults"]
        seed = derive(self.root, "everhold/v1/root/roster")
        own = Ed25519PrivateKey.from_private_bytes(seed).public_key()
        self.authorities = [own.public_bytes(Encoding.Raw, PublicFormat.Raw)]
        if body["platform_roster_key"]:
            self.authorities.append(base64.b64decode(body["platform_roster_key"]))
        self.receipt_key = body["receipt_key"] and base64.b64decode(body["receipt_key"])

    def unwrap(self, wrap, vault):
        """(epoch, epoch key, id secret) of a wrap to this kit's root; None for other recipients."""
        fields = cbor(wrap)
        need(fields[1] == 1 and fields[2] == 1, "unknown wrap suite")
        if fields[6] != 2 or fields[4] != vault:
            return None
        secret = derive(self.root, "everhold/v1/root/hpke")
        public = X25519PrivateKey.from_private_bytes(secret).public_key()
        if fields[8] != public.public_bytes(Encoding.Raw, PublicFormat.Raw):
            return None
        context = encode({k: v for k, v in fields.items() if k <= 8})
        plain = cbor(hpke_open(secret, fields[9], b"everhold/wrap/v1", context, fields[10]))
        return fields[5], plain[1], plain[2]


# --- vault --------------------------------------------------------------------------------------


class Vault:
    """One vault: keys from the kit, everything else from the bucket and the key store."""

    def __init__(self, kit, bucket, key_store=None, vault=None):
        self.kit, self.bucket = kit, bucket
        known = kit.vaults if vault is None else [v for v in kit.vaults if v["vault_id"] == vault]
        need(known, "the kit knows no such vault")
        entry = known[0]
        self.vault = bytes.fromhex(entry["vault_id"][4:])
        self.prefix = f"v1/ten_{kit.tenant.hex()}/{entry['vault_id']}/"
        wraps = [base64.b64decode(w) for w in entry["wraps"]]
        rosters = [base64.b64decode(entry["roster"])]
        descriptors = [base64.b64decode(entry["descriptor"])]
        if key_store is not None:
            mine = [k for k in key_store.keys() if k.startswith(self.prefix)]
            wraps += [key_store.get(k) for k in mine if "/wrap-" in k]
            rosters += [key_store.get(k) for k in mine if "/roster-" in k]
            descriptors += [key_store.get(k) for k in mine if k.endswith("/descriptor")]
        opened = [o for o in (kit.unwrap(w, self.vault) for w in wraps) if o]
        need(opened, "no wrap opens with this kit")
        need(len({secret for _, _, secret in opened}) == 1, "wraps disagree on the id secret")
        self.epochs = {epoch: key for epoch, key, _ in opened}
        self.ids = Ids(opened[0][2])
        self.roster = max((self.open_roster(r) for r in rosters), key=lambda r: r[4])
        pinned = {hashlib.sha256(d).digest() for d in descriptors}
        need(self.roster[5] in pinned, "the descriptor is not the one the roster pins")
        self.members = {agent: verify for agent, verify, _ in self.roster[6]}
        self.objects = {k[len(self.prefix) :]: k for k in bucket.keys() if k.startswith(self.prefix)}
        self.packs = {}

    def open_roster(self, data):
        roster, key = signed("everhold/roster/v1", data, self.kit.authorities)
        need(roster[1] == 1 and roster[8] == key, "the roster names another signer")
        need(roster[2] == self.kit.tenant and roster[3] == self.vault, "foreign roster")
        return roster

    def manifests(self):
        """Verified manifests by upload id: (sha256, payload)."""
        found = {}
        for name, key in self.objects.items():
            if not name.startswith("manifest/"):
                continue
            sha, upload = name.removeprefix("manifest/").split("-")
            data = self.bucket.get(key)
            need(hashlib.sha256(data).hexdigest() == sha, "a manifest is not what its name says")
            payload, signer = signed("everhold/manifest/v1", data, set(self.members.values()))
            need(payload[1] == 1, "unknown manifest version")
            need(payload[2] == self.kit.tenant and payload[3] == self.vault, "foreign manifest")
            need(self.members.get(payload[5]) == signer, "a manifest is signed by another agent")
            found[bytes.fromhex(upload)] = (bytes.fromhex(sha), payload)
        return found

    def snapshots(self):
        """Receipts, or, without any, manifests as unconfirmed snapshots; newest first."""
        manifests, out = self.manifests(), []
        confirmed = set()
        for name, key in self.objects.items():
            if name.startswith("receipt/") and self.kit.receipt_key:
                receipt, _ = signed("everhold/receipt/v1", self.bucket.get(key), [self.kit.receipt_key])
                need(manifests[receipt[10]][0] == receipt[11], "a receipt is of another manifest")
                out.append(("snp_" + receipt[9].hex(), receipt[10], receipt[13]))
                confirmed.add(receipt[10])
        for upload, (_, payload) in manifests.items():
            if upload not in confirmed:
                out.append(("unconfirmed_" + upload.hex(), upload, payload[9]))
        return sorted(out, key=lambda s: s[2], reverse=True), manifests

    def snapshot(self, name=None):
        listed, manifests = self.snapshots()
        chosen = [s for s in listed if name in (None, "latest", s[0])]
        need(chosen, "no such snapshot")
        return Snapshot(self, chosen[0][1], manifests)

    def pack(self, reference):
        upload, kind, sha256, length = reference[:4]
        if sha256 not in self.packs:
            name = f"{'data' if kind == 1 else 'meta'}/{sha256.hex()}-{upload.hex()}"
            need(name in self.objects, f"{name} is missing")
            data = self.bucket.get(self.objects[name])
            need(len(data) == length, "a pack has another length")
            need(hashlib.sha256(data).digest() == sha256, "a pack is not what its name says")
            pack = Pack(data, self.epochs, self.ids, self.kit.tenant, self.vault, kind)
            need(len(pack.frames) == reference[5], "a pack has another number of frames")
            self.packs[sha256] = pack
        return self.packs[sha256]


def key_to_path(key):
    """`a\\0b\\0\\0c` is a/b/c."""
    if not key:
        return b""
    at = 1 if key[0] == 0 else key.index(b"\0\0") + 2
    path = key[: at - 1].replace(b"\0", b"/") + key[at:]
    names = path.split(b"/")
    need(all(n not in (b"", b".", b"..") and b"\0" not in n for n in names), "hostile path")
    need(b"/" not in key, "hostile path")
    return path


class Snapshot:
    def __init__(self, vault, upload, manifests):
        self.vault, self.manifest = vault, manifests[upload][1]
        chain = [self.manifest]
        while chain[-1][13]:
            parent, sha256 = chain[-1][12]
            need(parent in manifests and manifests[parent][0] == sha256, "the manifest chain is broken")
            chain.append(manifests[parent][1])
            need(chain[-1][13] + 1 == chain[-2][13], "the manifest chain is broken")
        packs = {}
        for payload in reversed(chain):
            if payload[13] == 0:
                packs = {p[0]: p for p in payload[14]}
            else:
                for removed in payload[16]:
                    del packs[removed]
                for changed, used in payload[17]:
                    packs[changed] = packs[changed][:6] + [used]
                packs.update({p[0]: p for p in payload[15]})
            hashed = b"".join(encode(packs[p]) for p in sorted(packs))
            digest = hashlib.sha256(b"everhold/pack-set/v1\0" + hashed).digest()
            need(digest == payload[18], "the pack set is not the signed one")
        self.references = packs
        self.places = None

    def frame(self, kind, chunk_id):
        if self.places is None:
            self.places = {}
            for reference in self.references.values():
                pack = self.vault.pack(reference)
                for index, (frame_kind, _, _, name) in enumerate(pack.frames):
                    self.places.setdefault((frame_kind, name), (pack, index))
        need((kind, chunk_id) in self.places, "a chunk is in no pack of the snapshot")
        pack, index = self.places[kind, chunk_id]
        return pack.frame(index)

    def entries(self):
        """(path, fields) in key order."""
        node, level, count = self.manifest[10]
        found = list(self.walk(node, level))
        need(len(found) == count, "the tree has another number of entries")
        return found

    def walk(self, node, level):
        items = cbor(self.frame(3, node))
        need(items[0] == level, "a node is not where it belongs")
        width, previous = (3 if level == 0 else 4), None
        for at in range(1, len(items), width):
            shared, suffix = items[at], items[at + 1]
            key = (previous or b"")[:shared] + suffix
            need(previous is None or key > previous, "keys do not ascend")
            previous = key
            if level == 0:
                yield key_to_path(key), cbor(items[at + 2])
            else:
                yield from self.walk(items[at + 2], level - 1)

    def content(self, fields):
        """The bytes of a regular file, in stretches; holes as zeros."""
        need(fields[1] == 1, "not a regular file")
        if 16 in fields:
            bundle, offset, length, file = fields[16]
            data = self.frame(2, bundle)[offset : offset + length]
            need(len(data) == fields[15] == length, "a bundled file has another length")
            need(self.vault.ids.file(data) == file, "a bundled file is not what its id says")
            yield data
        elif 17 in fields:
            total = 0
            for data in self.pieces(fields[17]):
                total += len(data)
                yield data
            need(total == fields[15], "a file has another length")
        else:
            need(fields[15] == 0, "a file has no content")

    def pieces(self, items):
        depth = items[0]
        for at in range(1, len(items), 2):
            length, name = items[at], items[at + 1]
            if name == b"":
                while length:
                    step = min(length, 1 << 20)
                    yield bytes(step)
                    length -= step
            elif depth == 0:
                data = self.frame(1, name)
                need(len(data) == length, "a chunk has another length")
                yield data
            else:
                below = cbor(self.frame(4, name))
                need(below[0] == depth - 1, "a content list is not where it belongs")
                yield from self.pieces(below)

    def verify(self):
        """Every frame of every pack, every file. Gives (packs, entries, bytes)."""
        for reference in self.references.values():
            pack = self.vault.pack(reference)
            for index in range(len(pack.frames)):
                pack.frame(index)
        entries, total = self.entries(), 0
        for _, fields in entries:
            if fields[1] == 1:
                total += sum(len(data) for data in self.content(fields))
        return len(self.references), len(entries), total


# --- command line -------------------------------------------------------------------------------


KEY_BUCKET = "everhold-keys"


def read_json(path, what):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        raise Refused(f"{what} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{what} {path} is not JSON") from error


def take_dev(arguments):
    """Where a running `everhold dev` has its buckets; what was said on the command line stays."""
    s3 = read_json(arguments.dev_json, "dev.json").get("s3", {})
    missing = [k for k in ("endpoint", "bucket", "access_key", "secret_key") if not s3.get(k)]
    need(not missing, f"{arguments.dev_json} has no s3 {', '.join(missing)}")
    for name in ("endpoint", "region", "bucket", "access_key", "secret_key"):
        setattr(arguments, name, getattr(arguments, name) or s3.get(name))
    arguments.keys = arguments.keys or s3.get("key_bucket") or KEY_BUCKET


def open_store(arguments, name, oldest):
    if arguments.endpoint:
        need(arguments.access_key and arguments.secret_key, "S3 wants an access key and a secret key")
        region = arguments.region or "us-east-1"
        return S3(arguments.endpoint, name, arguments.access_key, arguments.secret_key, oldest, region)
    path = pathlib.Path(name)
    return Folder(path) if path.is_dir() else Dump(read_json(path, "bucket dump"))


def open_kit(path):
    read_json(path, "kit")
    return Kit(pathlib.Path(path).read_text())


def extract(snapshot, path, out):
    wanted = path.strip("/").encode("utf-8", "surrogateescape")
    for found, fields in snapshot.entries():
        if found == wanted:
            need(fields[1] == 1, f"{path} is not a regular file")
            with open(out, "wb") as file:
                file.writelines(snapshot.content(fields))
            return
    raise Refused(f"the snapshot has no {path}")


def restore(snapshot, out):
    """Folders, files and symbolic links with modes and times, into a folder that is not there yet. Owners, attributes
    and special files are left out, and holes are written as zeros: for those there is the agent."""
    out = os.fsencode(out)
    os.mkdir(out)
    made, folders = {b""}, []
    for path, fields in snapshot.entries():
        # A folder comes before what is in it, and a name is there once: nothing is made through a link.
        need(os.path.dirname(path) in made, "an entry lies in no folder of the snapshot")
        target = os.path.join(out, path)
        if fields[1] == 2:
            made.add(path)
            folders.append((target, fields))
            if path:
                os.mkdir(target)
        elif fields[1] == 3:
            os.symlink(fields[18], target)
        elif fields[1] == 1:
            with open(target, "xb") as file:
                file.writelines(snapshot.content(fields))
            settle(target, fields)
    for target, fields in reversed(folders):
        settle(target, fields)


def settle(target, fields):
    os.chmod(target, fields[2] & 0o777)
    time = fields[5][0] * 10**9 + fields[5][1]
    os.utime(target, ns=(time, time))


def show(snapshot):
    kinds = {1: "f", 2: "d", 3: "l", 4: "p", 5: "s", 6: "c", 7: "b"}
    for path, fields in snapshot.entries():
        shown = "/" + path.decode("utf-8", "backslashreplace")
        # One line an entry, whatever is in its name.
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
        print(f"{kinds[fields[1]]} {fields[2]:04o} {fields.get(15, 0):>12} {shown}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", required=True)
    parser.add_argument("--dev-json", help="dev.json of a running `everhold dev`, for its buckets")
    parser.add_argument("--bucket", help="folder, JSON dump, or bucket name")
    parser.add_argument("--keys", "--key-bucket", dest="keys", help="the key store, likewise")
    parser.add_argument("--endpoint")
    parser.add_argument("--region")
    parser.add_argument("--access-key")
    parser.add_argument("--secret-key")
    parser.add_argument("--vault")
    parser.add_argument("--snapshot", default="latest")
    parser.add_argument("command", choices=["snapshots", "list", "extract", "restore", "verify"])
    parser.add_argument("path", nargs="?")
    parser.add_argument("out", nargs="?")
    arguments = parser.parse_args()
    if arguments.command == "extract" and not (arguments.path and arguments.out):
        parser.error("extract wants PATH and OUT")
    if arguments.command == "restore" and not arguments.path:
        parser.error("restore wants OUT")
    if arguments.dev_json:
        take_dev(arguments)
    elif not arguments.bucket:
        parser.error("--bucket or --dev-json is needed")
    kit = open_kit(arguments.kit)
    keys = open_store(arguments, arguments.keys, False) if arguments.keys else None
    vault = Vault(kit, open_store(arguments, arguments.bucket, True), keys, arguments.vault)
    if arguments.command == "snapshots":
        for name, _, moment in vault.snapshots()[0]:
            print(name, moment)
        return
    snapshot = vault.snapshot(arguments.snapshot)
    if arguments.command == "verify":
        packs, entries, total = snapshot.verify()
        print(f"verified {packs} packs, {entries} entries, {total} bytes")
    elif arguments.command == "list":
        show(snapshot)
    elif arguments.command == "restore":
        restore(snapshot, arguments.path)
    else:
        extract(snapshot, arguments.path, arguments.out)


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"refused: {refused}")
