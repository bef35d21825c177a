"""What may be secret is not written; what is not stays byte by byte."""

from __future__ import annotations

import json

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.record.secrets import cluster_without_secrets, variables_without_secrets


def test_environments_commands_and_applied_configuration_go() -> None:
    pod = {
        "metadata": {
            "name": "p",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{s3cret}", "kept": "yes"},
            "managedFields": [{"manager": "s3cret"}],
        },
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "env": [{"name": "A", "value": "s3cret"}],
                    "args": ["--password=s3cret"],
                    "livenessProbe": {"exec": {"command": ["s3cret"]}, "periodSeconds": 3},
                    "ports": [{"containerPort": 80}],
                }
            ]
        },
    }
    written, dropped = cluster_without_secrets(json.dumps({"items": [pod]}).encode(), "pods.json")
    assert b"s3cret" not in written
    (kept,) = json.loads(written)["items"]
    assert kept["metadata"] == {"name": "p", "annotations": {"kept": "yes"}}
    assert kept["spec"]["containers"] == [
        {"name": "c", "livenessProbe": {"periodSeconds": 3}, "ports": [{"containerPort": 80}]}
    ]
    assert len(dropped) == 5


def test_labels_of_those_names_stay() -> None:
    data = b'{"items": [ {"metadata": {"labels": {"env": "prod", "command": "x"}}} ]}\n'
    assert cluster_without_secrets(data, "pods.json") == (data, frozenset())


def test_what_cannot_be_searched_is_not_written() -> None:
    with pytest.raises(EvidenceError, match=r"pods\.json is not JSON"):
        cluster_without_secrets(b"error: s3cret", "pods.json")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("FELIX_ETCDPASSWORD=x", False),
        ("FELIX_FLOWLOGSTOKEN=x", False),
        ("FELIX_DATASTORE=http://u:p@host", False),
        ("FELIX_TYPHAKEYFILE=/certs/key", True),
        ("FELIX_IPTABLESMARKMASK=0xff", True),
        ("FELIX_IPV6SUPPORT=true", True),
    ],
)
def test_variables(line: str, kept: bool) -> None:
    data = f"FELIX_A=1\n{line}\n".encode()
    written, dropped = variables_without_secrets(data)
    assert (written == data) is kept
    assert bool(dropped) is not kept
    assert written.startswith(b"FELIX_A=1\n")
