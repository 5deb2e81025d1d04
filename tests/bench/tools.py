"""The programs under test, each as its users run it, behind one face.

A tool knows its own command lines, where its repository is and how large. It measures nothing itself: `Bench` runs
what it names. Everhold's platform is started and stopped here, by process id.
"""

import datetime
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from measure import Failed, bytes_below

PASSWORD = "bench"


class Platform:
    """`everhold dev` on a folder of its own: server, PostgreSQL and the embedded S3 store."""

    def __init__(self, program, state, log):
        self.program, self.state, self.log = program, Path(state), log
        self.child = self.dev = None

    def start(self):
        shutil.rmtree(self.state, ignore_errors=True)
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [self.program, "dev", "--state", self.state], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        answer = self.state / "dev.json"
        for _ in range(2400):
            if answer.exists():
                self.dev = json.loads(answer.read_text())
                return self
            if self.child.poll() is not None:
                raise Failed(f"everhold dev ended with {self.child.returncode}; see {self.log}")
            time.sleep(0.05)
        self.stop()
        raise Failed(f"everhold dev did not come up in two minutes; see {self.log}")

    def stop(self):
        """Also what it started is gone afterwards, and its folder."""
        if self.child and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(40)
            except subprocess.TimeoutExpired:
                for pid in self.roots():
                    os.kill(pid, signal.SIGKILL)
                self.child.wait()
        shutil.rmtree(self.state, ignore_errors=True)

    def reset(self):
        self.stop()
        self.start()

    def roots(self):
        """Process ids whose trees are the platform; PostgreSQL's server is nobody's child."""
        pids = [self.child.pid]
        try:
            pids.append(int((self.state / "postgres/data/postmaster.pid").read_text().split()[0]))
        except (FileNotFoundError, IndexError):
            pass
        return pids

    def stored(self):
        """Bytes of all object bodies in all buckets."""
        return bytes_below(self.state / "store/blobs")[0]

    def make_bucket(self, name):
        s3 = self.dev["s3"]
        request = signed("PUT", f"{s3['endpoint']}/{name}", s3)
        with urllib.request.urlopen(request, timeout=30):
            pass

    def keys(self):
        s3 = self.dev["s3"]
        return {
            "AWS_ACCESS_KEY_ID": s3["access_key"], "AWS_SECRET_ACCESS_KEY": s3["secret_key"],
            "AWS_DEFAULT_REGION": s3["region"], "AWS_REGION": s3["region"],
        }


def signed(method, url, s3):
    """A request without body, query or other headers, signed by AWS Signature Version 4."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    host, path = url.split("://", 1)[1].split("/", 1)
    nothing = hashlib.sha256(b"").hexdigest()
    headers = {"host": host, "x-amz-content-sha256": nothing, "x-amz-date": now}
    names = ";".join(headers)
    canonical = "\n".join(
        [method, f"/{path}", "", *(f"{key}:{value}" for key, value in headers.items()), "", names, nothing])
    scope = [now[:8], s3["region"], "s3", "aws4_request"]
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", now, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + s3["secret_key"]).encode()
    for part in [*scope, to_sign]:
        key = hmac.digest(key, part.encode(), "sha256")
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={s3['access_key']}/{'/'.join(scope)},"
        f"SignedHeaders={names},Signature={key.hex()}")
    return urllib.request.Request(url, method=method, headers=headers)


class Tool:
    """One program with one place for its repository. `home` is its own folder in this round."""

    on_platform = False

    def __init__(self, key, program, platform, home):
        self.key, self.program, self.platform, self.home = key, str(program), platform, Path(home)
        self.repository, self.cache = str(self.home / "repo"), str(self.home / "cache")
        self.env = None
        self.count = 0

    def environment(self):
        return {}

    def prepare(self):
        """A fresh repository; not measured."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        self.env = {**os.environ, "HOME": str(self.home), **self.environment()}

    def setup(self, *argv):
        done = subprocess.run(
            list(map(str, argv)), env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{Path(str(argv[0])).name} {argv[1]}: {(done.stderr or done.stdout).strip()[-400:]}")

    def stored(self):
        """Bytes of the repository, or of the whole store it shares: only differences count."""
        return self.platform.stored() if self.on_platform else bytes_below(self.repository)[0]

    def reported(self, _said):
        """What the program itself says it stored, if it does."""
        return None

    def discard(self):
        shutil.rmtree(self.home, ignore_errors=True)
        if self.on_platform:
            self.platform.reset()


class Everhold(Tool):
    on_platform = True
    options = ()

    def environment(self):
        return {"EVERHOLD_AGENT_HOME": str(self.home / "agent")}

    def prepare(self):
        super().prepare()
        self.setup(self.program, "enroll", "--server", self.platform.dev["api_url"],
                   "--token", self.platform.dev["enrolment_token"], "--name", self.home.name,
                   "--kit-out", self.home / "kit.json")

    def backup(self, roots):
        return [self.program, "backup", "--json", *self.options, *roots]

    def restore(self, target):
        return [self.program, "restore", "latest", "--json", "--target", target]

    def one(self, path, target):
        return [*self.restore(target), "--include", path]

    def reported(self, said):
        return json.loads(said.splitlines()[-1])["stored_bytes"]


class EverholdSmall(Everhold):
    options = ("--memory", "small")


class Restic(Tool):
    def environment(self):
        return {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": self.repository}

    def prepare(self):
        super().prepare()
        self.setup(self.program, "init", "-q")

    def argv(self, *words):
        return [self.program, *words, "-q", "--cache-dir", self.cache]

    def backup(self, roots):
        return [*self.argv("backup", "--compression", "auto"), *roots]

    def restore(self, target):
        return [*self.argv("restore", "latest"), "--target", target]

    def one(self, path, target):
        return [*self.restore(target), "--include", path]


class ResticS3(Restic):
    on_platform = True

    def environment(self):
        self.repository = f"s3:{self.platform.dev['s3']['endpoint']}/bench-{self.key}"
        return {**super().environment(), **self.platform.keys()}


class Rustic(Tool):
    def environment(self):
        return {"RUSTIC_PASSWORD": PASSWORD, "RUSTIC_REPOSITORY": self.repository}

    def prepare(self):
        super().prepare()
        self.setup(*self.argv("init"))

    def argv(self, *words):
        return [self.program, "--no-progress", "--log-level", "warn", "--cache-dir", self.cache, *words]

    def backup(self, roots):
        return self.argv("backup", *roots)

    def restore(self, target):
        return self.argv("restore", "latest", target)

    def one(self, path, target):
        return self.argv("restore", f"latest:{path}", f"{target}/one")


class RusticS3(Rustic):
    on_platform = True

    def environment(self):
        s3 = self.platform.dev["s3"]
        self.repository = "opendal:s3"
        return {
            **super().environment(), **self.platform.keys(), "OPENDAL_BUCKET": f"bench-{self.key}",
            "OPENDAL_ENDPOINT": s3["endpoint"], "OPENDAL_REGION": s3["region"],
        }

    def prepare(self):
        self.platform.make_bucket(f"bench-{self.key}")
        super().prepare()


class Borg(Tool):
    compression = "lz4"

    def environment(self):
        return {
            "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(self.home / "base"), "BORG_CACHE_DIR": self.cache,
            "BORG_REPO": self.repository, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def prepare(self):
        super().prepare()
        self.count = 0
        self.setup(self.program, "init", "-e", "repokey")

    def backup(self, roots):
        self.count += 1
        return [self.program, "create", "-C", self.compression, f"::{self.count}", *roots]

    def restore(self, target):
        # It extracts into the working folder, which is `target` for every program.
        return [self.program, "extract", f"::{self.count}"]

    def one(self, path, target):
        return [*self.restore(target), str(path).lstrip("/")]


class BorgZstd(Borg):
    compression = "zstd,3"


# Key, class, program it needs, how tables call it. The order is that of the tables.
TOOLS = {
    "everhold": (Everhold, "everhold", "Everhold"),
    "everhold-small": (EverholdSmall, "everhold", "Everhold `--memory small`"),
    "restic": (Restic, "restic", "restic, folder"),
    "restic-s3": (ResticS3, "restic", "restic, same S3"),
    "rustic": (Rustic, "rustic", "rustic, folder"),
    "rustic-s3": (RusticS3, "rustic", "rustic, same S3"),
    "borg-lz4": (Borg, "borg", "Borg lz4, folder"),
    "borg-zstd3": (BorgZstd, "borg", "Borg zstd 3, folder"),
}
