"""The command ``calico-debug trace``."""

from __future__ import annotations

import click

from calico_debug.activity import say
from calico_debug.cli.completion import complete_end, complete_node
from calico_debug.cli.environment import Environment, Place, Question
from calico_debug.cli.exit_codes import OF_VERDICT, ExitCode
from calico_debug.cli.options import (
    COLOURS,
    FORMATS,
    WANTED,
    TraceOptions,
    agent_identity_options,
    agents_option,
    bundle_option,
    check,
    cluster_options,
    node_option,
)
from calico_debug.cli.render import renderer
from calico_debug.cli.render.terminal import Style
from calico_debug.model.observation import Wanted

HELP = """Explain what happens to one flow, or to many.

    \b
    The ends of a flow:
      ns/name, pod/ns/name[:port]   a pod; with -n also just its name
      svc/ns/name[:port]            a service; the port may be left out when it has one
      node/name                     a node
      10.244.1.30, 10.244.1.30:80   an address; IPv6 with a port: [fd00::1]:80
      external                      some address outside the cluster

    \b
    Examples:
      calico-debug trace --from client/client --to svc/stars/frontend
      calico-debug trace --from frontend --to backend:6379 -n stars -o wide
      calico-debug trace --from external --to node/node1:30002 --via node1
      calico-debug trace --from client/client --to 10.96.0.10:53 -p udp --exit-code
      calico-debug trace --bundle recording/ --flows flows.jsonl
      calico-debug trace --from 10.244.1.30 --to 10.244.2.31:6379 --probe --observe 3

    \b
    A line of --flows is one JSON object:
      {"from": "client/client", "to": "svc/stars/frontend", "protocol": "tcp"}
    """


@click.command(short_help="Explain what happens to a flow.", help=HELP)
@click.option("--from", "source", metavar="X", shell_complete=complete_end, help="Where the flow comes from.")
@click.option("--to", "destination", metavar="Y", shell_complete=complete_end, help="Where the flow goes to.")
@click.option(
    "-p",
    "--protocol",
    metavar="PROTOCOL",
    help="tcp, udp, sctp, icmp, icmpv6 or a number; when left out the service port's, else tcp.",
)
@click.option(
    "--via",
    metavar="NODE",
    shell_complete=complete_node,
    help="The node through which a source outside the cluster arrives.",
)
@click.option(
    "--want",
    type=click.Choice(WANTED),
    help="Advise which edit of a policy would give this verdict: of a single flow allowed when left out.",
)
@click.option(
    "--flows", metavar="FILE", help='Many flows, one JSON object a line, from FILE or "-" for the standard input.'
)
@bundle_option
@node_option
@cluster_options
@click.option("--agent", metavar="SOCKET_OR_URL", help="Read a node through its agent (calico-debug agent).")
@agent_identity_options
@agents_option
@click.option("-n", "--namespace", metavar="NS", help="The namespace of names that come without one.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    help="The form of the answer: text when left out; with --flows jsonl, text or wide, jsonl when left out.",
)
@click.option(
    "--watch",
    type=float,
    metavar="SECONDS",
    help="Live: read the counters of the rules on the path before and after, and say which moved.",
)
@click.option(
    "--observe",
    type=float,
    metavar="SECONDS",
    help="Live: trace packets of the flow from rule to rule, in a table of its own that ends with the command.",
)
@click.option(
    "--probe", is_flag=True, help="Live: send packets of the flow from where it starts, and read the counters, too."
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when denied or rejected, with 4 when undetermined.")
@click.option(
    "--color",
    "colour",
    type=click.Choice(COLOURS),
    default="auto",
    help="Colour text and wide; auto: on a terminal, unless NO_COLOR is set.",
)
@click.pass_obj
def trace(environment: Environment, /, **given: object) -> int:
    """Answer one question, or the questions of --flows."""
    options = TraceOptions(**given)  # type: ignore[arg-type]
    check(options)
    style = Style(colour=environment.colour(options.colour), columns=environment.columns)
    place = Place(
        options.bundle,
        options.namespace,
        options.node,
        options.kubeconfig,
        options.context,
        options.agent,
        options.agent_ca,
        options.agent_token_file,
        options.agents,
    )
    if options.flows is not None:
        from calico_debug.cli.flows import answer_flows

        return answer_flows(environment, place, options, style)
    question = Question(
        source=options.source or "",
        destination=options.destination or "",
        protocol=options.protocol,
        via=options.via,
        wanted=options.wanted,
    )
    wanted = Wanted(options.watch, options.observe, options.probe)
    with environment.progress():
        tracer = environment.open_tracer(place, environment.platform)
        explanation = tracer.trace(question)
        if wanted != Wanted():
            say("watching the flow")
            explanation = tracer.witness(explanation, wanted)
    environment.stdout.write(renderer(options.format)(explanation, style))
    return OF_VERDICT[explanation.verdict] if options.exit_code else ExitCode.ANSWERED
