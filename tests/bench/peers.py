"""Gets the programs Everhold is compared with, each into the cache, none into the system.

Owns the versions wished for. A program that cannot be had is a reason in words, never the end of a run.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

RUSTIC = "0.11.4"
BORG = "1.4.*"
# restic is one static program: the next Debian's package runs on this one.
RESTIC_SUITE = "trixie"
# What Borg is compiled against. Unpacked beside it, so that nothing need be installed.
BORG_LIBRARIES = [
    "libacl1", "libacl1-dev", "libattr1", "liblz4-1", "liblz4-dev", "libssl3", "libssl-dev",
    "libxxhash0", "libxxhash-dev", "libzstd1", "libzstd-dev",
]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """It cannot be had on this machine, and why."""


def call(*argv, **kwargs):
    """Runs a command quietly; its output, or Unavailable with the last of its words."""
    try:
        done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, errors="replace", **kwargs)
    except FileNotFoundError as error:
        raise Unavailable(f"{argv[0]} is missing") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-2:]
        raise Unavailable(f"{Path(str(argv[0])).name}: {' / '.join(words)}")
    return done.stdout


class Apt:
    """Debian packages of one suite by a configuration of our own: no root, and the system's lists stay untouched.

    The mirror is the one the system uses; the suite's Release file is checked against Debian's own keyring.
    """

    def __init__(self, cache, suite=None):
        own = self.own_suite()
        self.suite = suite or own
        self.dir = Path(cache, "apt", self.suite)
        self.debs = Path(cache, "debs")
        if not KEYRING.exists():
            raise Unavailable("the package debian-archive-keyring is missing")
        mirrors = [line.split() for line in call(
            "apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages").splitlines()]
        self.mirror = next((uri for release, uri in mirrors if release == own), None)
        if self.mirror is None:
            raise Unavailable(f"apt knows no mirror of Debian {own}")

    @staticmethod
    def own_suite():
        for line in Path("/etc/os-release").read_text().splitlines():
            if line.startswith("VERSION_CODENAME="):
                return line.split("=", 1)[1].strip('"')
        raise Unavailable("this is no Debian release")

    def get(self, *words, cwd=None):
        options = {
            "Dir::Etc::SourceList": self.dir / "sources.list", "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": self.dir, "Dir::State::status": self.dir / "status", "Dir::Cache": self.dir / "cache",
            "APT::Sandbox::User": "root", "Acquire::Languages": "none", "Acquire::Retries": "3",
        }
        flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        return call("apt-get", "-qq", *flags, *words, cwd=cwd)

    def update(self):
        if (self.dir / "updated").exists():
            return
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        (self.dir / "status").touch()
        (self.dir / "sources.list").write_text(f"deb [signed-by={KEYRING}] {self.mirror} {self.suite} main\n")
        self.get("update")
        (self.dir / "updated").touch()

    def deb(self, package):
        """Path of the package's file, downloaded once."""
        folder = self.debs / self.suite
        folder.mkdir(parents=True, exist_ok=True)
        found = list(folder.glob(f"{package}_*.deb"))
        if not found:
            self.update()
            self.get("download", package, cwd=folder)
            found = list(folder.glob(f"{package}_*.deb"))
        return found[0]

    def unpack(self, package, target):
        deb = self.deb(package)
        target.mkdir(parents=True, exist_ok=True)
        call("dpkg-deb", "-x", deb, target)
        return f"{package} {call('dpkg-deb', '-f', deb, 'Version').strip()}"


def restic(cache, _say):
    program = cache / "restic" / "usr/bin/restic"
    if not program.exists():
        try:
            Apt(cache, RESTIC_SUITE).unpack("restic", cache / "restic")
            call(program, "version")
        except Unavailable:
            shutil.rmtree(cache / "restic", ignore_errors=True)
            own = shutil.which("restic")
            if own:
                return Path(own)
            Apt(cache).unpack("restic", cache / "restic")
    return program


def rustic(cache, say):
    program = cache / "rustic/bin/rustic"
    if not program.exists():
        say(f"building rustic {RUSTIC} (half an hour on two cores, once)")
        target = cache / "rustic-target"
        # Outside the project: its pinned compiler and settings are not rustic's.
        call("cargo", "install", "-q", "rustic-rs", "--locked", "--version", RUSTIC, "--root", cache / "rustic",
             cwd=cache, env={**os.environ, "CARGO_TARGET_DIR": str(target)})
        shutil.rmtree(target, ignore_errors=True)
    return program


def borg(cache, say):
    home = cache / "borg"
    program = home / "venv/bin/borg"
    if not (home / "ok").exists():
        say("building Borg (a few minutes, once)")
        shutil.rmtree(home, ignore_errors=True)
        apt, libraries = Apt(cache), home / "libraries"
        wanted = list(BORG_LIBRARIES)
        if not Path(call(sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('include'))").strip(),
                    "Python.h").exists():
            wanted.append("libpython3.{}-dev".format(sys.version_info.minor))
        for package in wanted:
            apt.unpack(package, libraries)
        try:
            venv.create(home / "venv", with_pip=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise Unavailable("python3 -m venv does not work here: install python3-venv") from error
        call(home / "venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check",
             f"borgbackup=={BORG}", env=borg_environment(libraries))
        (home / "ok").touch()
    return program


def borg_environment(root):
    """Compiler and linker find what was unpacked, and so does the program later."""
    triplet = call("dpkg-architecture", "-qDEB_HOST_MULTIARCH").strip() if shutil.which(
        "dpkg-architecture") else f"{os.uname().machine}-linux-gnu"
    usr, lib = root / "usr/lib" / triplet, root / "lib" / triplet
    headers = [root / "usr/include", root / "usr/include" / triplet, *root.glob("usr/include/python3*")]
    return {
        **os.environ,
        "PKG_CONFIG_LIBDIR": f"{usr}/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": str(root),
        "CPATH": ":".join(map(str, headers)), "LIBRARY_PATH": f"{usr}:{lib}",
        "LDFLAGS": f"-Wl,-rpath,{usr} -Wl,-rpath,{lib}",
    }


INSTALLERS = {"restic": restic, "rustic": rustic, "borg": borg}
VERSION = {"restic": ["version"], "rustic": ["--version"], "borg": ["--version"]}


def obtain(name, cache, say):
    """(program, its version in words); Unavailable says why not."""
    program = INSTALLERS[name](cache, say)
    words = call(program, *VERSION[name]).split()
    return program, f"{name} {words[1].removeprefix('v')}"
