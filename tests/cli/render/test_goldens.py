"""Every output format of every sample against its recorded text; ``pytest --update-goldens`` records anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from calico_debug.cli.options import FORMATS
from calico_debug.cli.render import renderer
from calico_debug.cli.render.terminal import Style
from calico_debug.explain.document import to_document
from tests.cli.samples import SAMPLES

GOLDENS = Path(__file__).parents[1] / "goldens"
STYLES = {"": Style(), ".80-columns": Style(columns=80), ".colour": Style(colour=True)}
CASES = [
    (name, output, style) for name in SAMPLES for output in FORMATS for style in (STYLES if output == "text" else ("",))
]


def golden(name: str, output: str, style: str = "") -> Path:
    return GOLDENS / f"{name}{style}.{output}"


@pytest.mark.parametrize(("name", "output", "style"), CASES)
def test_output_is_as_recorded(name: str, output: str, style: str, update_goldens: bool) -> None:
    text = renderer(output)(SAMPLES[name], STYLES[style])
    path = golden(name, output, style)
    if update_goldens:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_no_golden_is_left_over() -> None:
    assert {path.name for path in GOLDENS.iterdir()} == {golden(*case).name for case in CASES}


@pytest.mark.parametrize("name", SAMPLES)
def test_machine_formats_hold_the_same_document(name: str) -> None:
    document = to_document(SAMPLES[name])
    assert json.loads(golden(name, "json").read_text()) == document
    assert json.loads(golden(name, "jsonl").read_text()) == document
    assert yaml.safe_load(golden(name, "yaml").read_text()) == document
    assert golden(name, "jsonl").read_text().count("\n") == 1
