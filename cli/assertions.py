"""The command ``calico-debug assert``."""

from __future__ import annotations

from pathlib import Path

import click

from calico_debug.activity import counted
from calico_debug.cli.environment import Environment, Question, Tracer
from calico_debug.cli.errors import describe
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import bundle_option, checked_place, cluster_options, node_option
from calico_debug.errors import EvidenceError
from calico_debug.model.assertion import Expectation, Outcome

FORMATS = ("text", "json", "junit")

HELP = """Check that flows are allowed or denied as a file says, and by whom.

    FILE is YAML, "-" the standard input:

    \b
      flows:
        - {from: client/client, to: svc/stars/frontend, protocol: tcp, expect: allowed}
        - {from: client/client, to: svc/management-ui/management-ui, expect: denied, tier: platform}

    Exits with 0 when everything is met, 1 when something is not, 4 when evidence does not settle it.

    \b
    Examples:
      calico-debug assert flows.yaml --bundle recording.tar.gz
      calico-debug assert flows.yaml --bundle recording.tar.gz -o junit > report.xml
    """

EXIT_CODES = {
    "met": ExitCode.ANSWERED,
    "not-met": ExitCode.FAILED,
    "undetermined": ExitCode.UNDETERMINED,
}


@click.command("assert", short_help="Check that flows are allowed or denied as a file says.", help=HELP)
@click.argument("file")
@bundle_option
@node_option
@cluster_options
@click.option("-n", "--namespace", metavar="NS", help="The namespace of names that come without one.")
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer.")
@click.pass_obj
def assertions(environment: Environment, /, file: str, output: str, **place: str | None) -> int:
    """Check a file of assertions."""
    from calico_debug.cli.render.assertions import RENDERERS
    from calico_debug.decode.assertions import decode_assertions
    from calico_debug.explain.assertions import worst

    where = checked_place(**place)
    wanted = decode_assertions(read_file(environment, file), "the standard input" if file == "-" else file)
    with environment.progress():
        tracer = environment.open_tracer(where, environment.platform)
        outcomes = [_check(tracer, expectation) for expectation in counted(wanted, len(wanted))]
    environment.stdout.write(RENDERERS[output](outcomes))
    return EXIT_CODES[worst(outcomes)]


def _check(tracer: Tracer, expectation: Expectation) -> Outcome:
    from calico_debug.explain.assertions import judge

    question = Question(expectation.source, expectation.destination, expectation.protocol, expectation.via)
    try:
        explanation = tracer.trace(question)
    except Exception as error:  # noqa: BLE001 - the flow's error becomes its outcome, later ones go on
        return Outcome(expectation, "error", describe(error))
    return judge(expectation, explanation)


def read_file(environment: Environment, file: str) -> bytes:
    """The content of a file, "-" for the standard input, up to more than any file of assertions has.

    Raises `EvidenceError`.
    """
    from calico_debug.decode.assertions import LARGEST

    if file == "-":
        return environment.stdin.read(LARGEST + 1)
    try:
        with Path(file).open("rb") as stream:
            return stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EvidenceError(f"cannot read {file}: {reason}; check the path") from error
