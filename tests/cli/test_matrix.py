"""``calico-debug matrix``: from options to text, documents and a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.worlds import run
from tests.matrix.worlds import HOSTILE, hostile
from tests.recordings import DATA

RECORDING = str(DATA / "v3.32.1-nft.tar.xz")
SMALL = ("matrix", "--bundle", RECORDING, "--from", "client", "--to", "stars", "--port", "80")


def test_text() -> None:
    ran = run(*SMALL)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "1 pod to 2 pods, IPv4, predicted from the rules of the nodes, for new connections",
        "",
        "destinations",
        "    A  stars/backend-6c9d",
        "    B  stars/frontend-77cd",
        "",
        "tcp 80",
        "                        A   B",
        "    client/client-5f8b  x1  +2",
        "",
        "+ allowed, x denied, ! rejected, ? undetermined, ~ differs from pod to pod: allowed/pairs, . the pod itself",
        (
            "    x1  DENIED ingress: end of tier: stars/platform.stars-backend selects the pod, none of its rules "
            "matched (tier platform)"
        ),
        (
            "        closest: stars/platform.stars-backend, rule 0 (Allow TCP from pods with role in {'frontend',"
            "'client'} in any namespace to port 6379)"
        ),
        "    +2  ALLOWED egress: tier platform, by NetworkPolicy client/platform.client-egress, rule 0",
        "        ALLOWED ingress: tier platform, by NetworkPolicy stars/platform.stars-frontend, rule 0",
    ]


def test_documents() -> None:
    document = json.loads(run(*SMALL, "-o", "json").out)
    assert document == yaml.safe_load(run(*SMALL, "-o", "yaml").out)
    assert (document["kind"], document["basis"], document["by"]) == ("FlowMatrix", "predicted", "pods")
    assert document["sheets"] == [
        {
            "ports": [{"protocol": "tcp", "port": 80}],
            "rows": [
                [
                    {"verdict": "denied", "reasons": [{"reason": 0, "pairs": 1}]},
                    {"verdict": "allowed", "reasons": [{"reason": 1, "pairs": 1}]},
                ]
            ],
        }
    ]
    denied, allowed = document["reasons"]
    assert denied["decisions"][0]["tier"] == "platform"
    assert denied["decisions"][0]["reason"] == "end-of-tier"
    assert "node" not in denied["decisions"][0]
    assert [decision["direction"] for decision in allowed["decisions"]] == ["egress", "ingress"]
    assert allowed["decisions"][1]["policy"]["name"] == "platform.stars-frontend"


def test_by_namespaces_counts_pairs() -> None:
    lines = run(*SMALL, "--by", "namespaces").out.splitlines()
    assert "    A  stars: stars/backend-6c9d, stars/frontend-77cd" in lines
    assert "    client  ~1/2" in lines


def test_both_bases_say_so() -> None:
    assert "decided from the API's objects alone" in run(*SMALL, "--intent").out
    assert "predicted from the rules" in run(*SMALL, "--predicted").out


def test_a_page_beside_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    ran = run(*SMALL, "--html", str(file))
    page = file.read_text()
    assert ran.out.startswith("1 pod to 2 pods")
    assert page == run(*SMALL, "-o", "html").out
    assert "@" not in page.partition('id="data"')[0].partition("</style>")[0].replace("@media", "")
    assert "http:" not in page.replace("http://www.w3.org", "")


def test_names_stay_names(tmp_path: Path) -> None:
    bundle = str(hostile(tmp_path / "b"))
    page = run("matrix", "--bundle", bundle, "-o", "html").out
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in data
    assert HOSTILE[0] in json.loads(data)["sources"][0]["pods"][0]
    assert "\u202e" not in run("matrix", "--bundle", bundle).out
    assert "\\u202egnp.exe" in run("matrix", "--bundle", bundle).out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--port", "tcp"), 2, "--port 'tcp': a port is a number"),
        (("--from", "nobody"), 2, "--from 'nobody': no namespace or pod"),
        (("--ip", "6"), 2, "--from 'client': no namespace or pod"),
        (("--html", "no/such/folder/x.html"), 1, "cannot write no/such/folder/x.html"),
        (("--html", "a\0b"), 2, "--html"),
        (("--kubeconfig", "x"), 2, "contradict each other"),
    ],
)
def test_what_cannot_be(arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = run(*SMALL, *arguments)
    assert ran.code == code
    assert message in ran.err
    assert ran.out == ""


def test_a_page_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calico_debug.cli.render.matrix_page.MOST_CELLS", 1)
    ran = run(*SMALL, "-o", "html")
    assert (ran.code, ran.out) == (2, "")
    assert "take --by namespaces" in ran.err
