"""Commands about workflows."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.configuration import Url, connect
from app.cli.output import Json, console, print_json, print_members, print_table

if TYPE_CHECKING:
    from app.wire.workflows import Workflow, WorkflowParameter

commands = typer.Typer(no_args_is_help=True, help="See the workflows that a server has.")


@commands.command("list")
def list_workflows(url: Url = None, as_json: Json = False) -> None:
    """List the workflows, by name."""
    with connect(url) as client:
        workflows = list(client.workflows())
    if as_json:
        print_json(workflows)
        return
    rows = [(workflow.name, _arguments(workflow), _summary(workflow)) for workflow in workflows]
    print_table(("workflow", "arguments", "description"), rows, none="this server has no workflows")


@commands.command("show")
def show_workflow(
    name: Annotated[str, typer.Argument(help="The workflow's name.")], url: Url = None, as_json: Json = False
) -> None:
    """Show a workflow: what it does, what it takes, how to run it."""
    with connect(url) as client:
        workflow = client.workflow(name)
    if as_json:
        print_json([workflow])
        return
    print_members([("workflow", workflow.name), ("description", workflow.description or None)])
    console().print()
    rows = [(parameter.name, parameter.annotation, _default(parameter)) for parameter in workflow.parameters]
    print_table(("argument", "type", "default"), rows, none="it takes no arguments")
    console().print(f"\nmillstream run {workflow.name}{_example(workflow)} --follow")


def _summary(workflow: "Workflow") -> str:
    return workflow.description.partition("\n")[0]


def _arguments(workflow: "Workflow") -> str:
    """The names, those in brackets that have a default."""
    return " ".join(
        parameter.name if parameter.required else f"[{parameter.name}]" for parameter in workflow.parameters
    )


def _default(parameter: "WorkflowParameter") -> str:
    return "(required)" if parameter.required else json.dumps(parameter.default, ensure_ascii=False)


def _example(workflow: "Workflow") -> str:
    return "".join(f" --{parameter.name}=…" for parameter in workflow.parameters if parameter.required)
