"""The document against the dataclasses, the schema and itself."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from calico_debug.explain.document import FIELDS, error_document, to_document
from calico_debug.model import explanation as model
from calico_debug.model.explanation import (
    REASONS,
    VERDICTS,
    Decision,
    Evidence,
    FlowEnd,
    FlowExplanation,
    RuleRef,
    Step,
)
from tests.cli.samples import SAMPLES

SCHEMA: dict[str, Any] = json.loads(files("calico_debug.explain").joinpath("schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
DEFINITIONS = {
    "end": "FlowEnd",
    "backend": "BackendOutcome",
    "decision": "Decision",
    "policy": "PolicyRef",
    "rule": "RuleRef",
    "evidence": "Evidence",
    "newConnection": "NewConnection",
    "step": "Step",
    "witness": "Witness",
    "finding": "Finding",
    "advice": "Advice",
}
SMALLEST = FlowExplanation("tcp", FlowEnd("10.0.0.1"), FlowEnd("10.0.0.2"), "undetermined")


def definition(name: str) -> dict[str, Any]:
    return dict(SCHEMA["$defs"][name])


def test_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_valid(name: str) -> None:
    VALIDATOR.validate(to_document(SAMPLES[name]))


def test_error_line_is_valid() -> None:
    VALIDATOR.validate(error_document(3, "not JSON"))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda document: document.pop("steps"),
        lambda document: document.update(extra=1),
        lambda document: document["decision"].update(reason="because"),
        lambda document: document["steps"][0].pop("evidence"),
        lambda document: document.update(verdict="maybe"),
        lambda document: document["witnesses"].pop("predicted"),
        lambda document: document["flow"]["source"].update(port=70000),
    ],
)
def test_schema_refuses_what_is_wrong(break_it: Any) -> None:
    document = json.loads(json.dumps(to_document(SAMPLES["denied_end_of_tier"])))
    break_it(document)
    assert not VALIDATOR.is_valid(document)


def test_every_dataclass_of_the_model_has_its_fields_here() -> None:
    classes = {value for value in vars(model).values() if dataclasses.is_dataclass(value)}
    assert set(FIELDS) == classes
    for kind, fields in FIELDS.items():
        assert {field.attribute for field in fields} == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_schema_has_the_fields_of_the_code(name: str) -> None:
    fields = next(fields for kind, fields in FIELDS.items() if kind.__name__ == DEFINITIONS[name])
    assert list(definition(name)["properties"]) == [field.name for field in fields]
    assert definition(name)["required"] == [field.name for field in fields if field.always]


def test_schema_has_the_fields_of_the_whole() -> None:
    fields = FIELDS[FlowExplanation]
    flow, whole = definition("flow"), definition("flowExplanation")
    assert [*flow["properties"], *whole["properties"]] == [
        *(field.name for field in fields[:4]),
        "apiVersion",
        "kind",
        "flow",
        *(field.name for field in fields[4:]),
    ]
    assert flow["required"] == [field.name for field in fields[:4] if field.always]
    assert whole["required"][3:] == [field.name for field in fields[4:] if field.always]


def test_schema_has_the_words_of_the_code() -> None:
    assert definition("verdict")["enum"] == list(VERDICTS)
    assert definition("decision")["properties"]["reason"]["enum"] == list(REASONS)
    stages = definition("step")["properties"]["stage"]["enum"]
    assert all(f'"{stage}"' in str(Step.__doc__) for stage in stages)
    assert str(Step.__doc__).split("``hypothetical``")[0].count('"') == 2 * len(stages)


def test_smallest_document() -> None:
    assert to_document(SMALLEST) == {
        "apiVersion": "calico-debug/v1",
        "kind": "FlowExplanation",
        "flow": {"protocol": "tcp", "source": {"ip": "10.0.0.1"}, "destination": {"ip": "10.0.0.2"}},
        "verdict": "undetermined",
        "steps": [],
        "witnesses": {},
        "findings": [],
        "advice": [],
    }


def test_zero_is_a_value_and_empty_is_none() -> None:
    decision = Decision("n", "nftables", "rule", rule=RuleRef("Deny", 0), evidence=Evidence(handle=0, counter=0))
    document: Any = to_document(dataclasses.replace(SMALLEST, decision=decision))
    assert document["decision"] == {
        "node": "n",
        "dataplane": "nftables",
        "rule": {"index": 0, "action": "Deny"},
        "reason": "rule",
        "evidence": {"handle": 0, "counter": 0},
    }


def test_hypothetical_is_written_only_when_true() -> None:
    steps = (Step("n", "wire", "sent", ""), Step("n", "wire", "sent", "", hypothetical=True))
    document: Any = to_document(dataclasses.replace(SMALLEST, steps=steps))
    assert [step.get("hypothetical") for step in document["steps"]] == [None, True]


@given(st.text(), st.integers(0, 65535) | st.none(), st.sampled_from(VERDICTS))
def test_text_passes_unchanged_through_json(text: str, port: int | None, verdict: str) -> None:
    end = FlowEnd(text, port, pod={"namespace": text, "name": text}, node=text)
    document = to_document(FlowExplanation(text, end, end, verdict))
    assert json.loads(json.dumps(document)) == document
