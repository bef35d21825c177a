"""The image, built with Debian's own tools from a base that is made here: no engine, no registry.

What this machine's apt and pip are told (mirrors, proxies, certificates) goes into the base, which is thrown away with
the image: the Dockerfile knows nothing of it.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RELEASE = "bookworm"
BASE, IMAGE = "localhost/debian-base", "localhost/calico-debug"
SECONDS = 1200.0
TOOLS = ("apt-config", "apt-get", "buildah", "mmdebstrap", "setpriv", "unshare")
SLIM = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
"""What Debian's slim images leave out, among others."""
_TARGET = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
_SETTING = re.compile(r"(?:global|install|:env:)\.([a-z-]+)=(.*)")
_FILES = frozenset({"cert", "client-cert"})
"""pip's settings whose value is a file."""


def unavailable() -> str:
    """ "" when an image can be built here, else the precise reason why it cannot."""
    if os.geteuid() != 0:
        return "building an image needs root: not root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (on Debian 12 as root, make test-image installs them)"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    if tried.returncode:
        return f"cannot create mount and process namespaces: {tried.stderr.strip()}"
    return ""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where buildah keeps everything: a directory that the caller removes."""

    directory: Path

    def buildah(self, *arguments: str | Path) -> str:
        """What a command of buildah prints. Raises `RuntimeError` with what it complained about."""
        places = ["--root", self.directory / "root", "--runroot", self.directory / "run"]
        return _run(["buildah", *places, "--storage-driver", "vfs", *arguments])

    def make_base(self) -> None:
        """A minimal Debian 12 under the name `BASE`."""
        archive = self.directory / "base.tar"
        options = [f"--dpkgopt=path-exclude={path}" for path in SLIM]
        apt = self.directory / "apt.conf"
        apt.write_text(_run(["apt-config", "dump", "Acquire"]), encoding="utf-8")
        options.append(f"--aptopt={apt}")
        configuration = self.directory / "pip.conf"
        settings = _pip_settings()
        for name in settings.keys() & _FILES:
            # A place of its own: Debian's package of certificates writes its file anew.
            options.append(f"--customize-hook=upload {settings[name]} /etc/pip-{name}.pem")
            settings[name] = f"/etc/pip-{name}.pem"
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        configuration.write_text(f"[global]\n{''.join(lines)}", encoding="utf-8")
        options.append(f"--customize-hook=upload {configuration} /etc/pip.conf")
        _run(["mmdebstrap", "--variant=minbase", *options, RELEASE, archive, *_sources()])
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", container, archive, "/")
        self.buildah("commit", "--rm", container, BASE)
        archive.unlink()

    def build(self) -> None:
        """The project's image from `BASE`."""
        options = ["--isolation", "chroot", "--build-arg", f"BASE={BASE}", "--tag", IMAGE]
        self.buildah("bud", *options, ROOT)

    def description(self) -> Any:
        """What the image says of itself (OCI image configuration)."""
        return json.loads(self.buildah("inspect", "--type", "image", IMAGE))["OCIv1"]

    def unpacked(self) -> Path:
        """The root directory of a container made of the image."""
        return Path(self.buildah("mount", self.buildah("from", IMAGE).strip()).strip())


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise RuntimeError(f"{Path(command[0]).name} failed ({done.returncode}):\n{said}")
    return done.stdout


def _sources() -> list[str]:
    """The host's own sources of the release; none on another Debian, where mmdebstrap takes the usual ones."""
    listed = _run(["apt-get", "indextargets", "--format", _TARGET, "Created-By: Packages", "Origin: Debian"])
    lines = [line.split() for line in listed.splitlines()]
    return list(dict.fromkeys(f"deb {' '.join(line)}" for line in lines if line[1].partition("-")[0] == RELEASE))


def _pip_settings() -> dict[str, str]:
    """What pip is told on this machine, by files and by the environment."""
    listed = _run([sys.executable, "-m", "pip", "config", "list"])
    return {match[1]: str(ast.literal_eval(match[2])) for match in _SETTING.finditer(listed)}
