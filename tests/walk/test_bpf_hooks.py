"""Programs at the interfaces of a made-up node."""

from __future__ import annotations

import pytest

from calico_debug.walk.bpf_datapath import BpfDatapath
from calico_debug.walk.bpf_outcomes import EGRESS, INGRESS
from tests.evidence.bpf_node import POD
from tests.walk.made_bpf import (
    made,
)


@pytest.fixture(scope="module")
def datapath() -> BpfDatapath:
    return made()


def test_interfaces(datapath: BpfDatapath) -> None:
    assert [datapath.hooks.attached(POD, hook) for hook in (INGRESS, EGRESS)] == [True, True]
    assert not datapath.hooks.attached("eth0", INGRESS)
    assert [datapath.hooks.is_workload(name) for name in (POD, "cali2", "gone")] == [True, False, False]
    assert [datapath.hooks.is_service_device(name) for name in ("bpfin.cali", POD, "gone")] == [True, False, False]
    assert [datapath.hooks.behind_service_device(name) for name in ("bpfin.cali", POD, "gone")] == [
        "bpfout.cali",
        "",
        "",
    ]
