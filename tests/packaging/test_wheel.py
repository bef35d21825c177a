"""What ships: exactly the packages of the three directories, their data, and one program."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from calico_debug.cli.environment import PLUGIN, PLUGIN_WORDS

ROOT = Path(__file__).resolve().parents[2]
DIRECTORIES = {"core": "calico_debug", "agent": "calico_debug.agent", "cli": "calico_debug.cli"}
SHIPPED_BESIDE_CODE = {"py.typed", "schema.json", "packets.bpf.c", "matrix.css", "matrix.html", "matrix.js"}
SHIPPED_KINDS = (".py", ".bpf.h")


def _declared() -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options"]["packages"].split())


def _sources() -> dict[str, Path]:
    """Every file that belongs into the wheel, by its name there."""
    found: dict[str, Path] = {}
    for directory, package in DIRECTORIES.items():
        for path in (ROOT / directory).rglob("*"):
            if path.is_file() and (path.name.endswith(SHIPPED_KINDS) or path.name in SHIPPED_BESIDE_CODE):
                inside = path.relative_to(ROOT / directory).as_posix()
                found[f"{package.replace('.', '/')}/{inside}"] = path
    return found


def test_every_directory_with_modules_is_a_declared_package() -> None:
    present = {name.rsplit("/", 1)[0].replace("/", ".") for name in _sources()}
    assert _declared() == present


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that nothing left behind by another build can slip in."""
    copy = tmp_path_factory.mktemp("source")
    names = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    for path in [*(ROOT / name for name in names), *_sources().values()]:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, copy]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
    subprocess.run(command, check=True, env=environment, timeout=120)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_exactly_the_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == set(_sources())


def test_the_wheel_names_its_program_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        programs = archive.read(entry_points).decode().splitlines()
        assert "calico-debug = calico_debug.cli.main:main" in programs
        assert f"{PLUGIN} = calico_debug.cli.main:main" in programs
        assert "kubectl_complete-calico_debug = calico_debug.cli.kubectl:complete" in programs
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    assert "Apache-2.0" in metadata


def test_the_installed_program_answers_without_the_agents_needs(wheel: Path, tmp_path: Path) -> None:
    """From the wheel alone, with the agent's extra packages out of reach, a recording is explained."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for module in ("bcc", "kubernetes", "pyroute2", "nftables", "scapy", "prometheus_client", "waitress"):
        (hidden / f"{module}.py").write_text("raise ImportError('hidden by the test')\n")
    code = "import sys; from calico_debug.cli.main import main; sys.exit(main())"
    asked = ["--from", "client/client-5f8b", "--to", "svc/stars/backend", "--exit-code"]
    recording = ROOT / "tests/data/v3.32.1-nft.tar.xz"
    done = subprocess.run(
        [sys.executable, "-c", code, "trace", "--bundle", recording, *asked],
        env={**os.environ, "PYTHONPATH": f"{hidden}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split(maxsplit=1)[0]) == (0, "ALLOWED"), done.stderr
    agent = subprocess.run(
        [sys.executable, "-c", code, "agent"],
        env={**os.environ, "PYTHONPATH": f"{hidden}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert agent.returncode == 1
    assert "install calico-debug[agent]" in agent.stderr
    assert len(agent.stderr.splitlines()) == 1


def test_as_a_plugin_of_kubectl_it_calls_itself_so(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    plugin = tmp_path / PLUGIN
    plugin.write_text("import sys; from calico_debug.cli.main import main; sys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, plugin, "trace", "--no-such-option"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"see {PLUGIN_WORDS} trace --help" in done.stderr
