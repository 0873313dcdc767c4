"""Commands about webhooks."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.configuration import Url, connect
from app.cli.output import Json, Limit, moment, note, print_json, print_members, print_table
from app.errors import Invalid

if TYPE_CHECKING:
    from app.wire.webhooks import Delivery, Webhook

commands = typer.Typer(no_args_is_help=True, help="See and change webhooks, and what was sent to them.")

LAST_EVENT = "RunFinished"

WebhookId = Annotated[str, typer.Argument(help="The webhook's id.")]
Events = Annotated[list[str] | None, typer.Option("--event", help="An event to be posted; may be given several times.")]


@commands.command("list")
def list_webhooks(
    user_id: Annotated[str | None, typer.Option(help="Those of this user.")] = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List webhooks, the newest first, without those of single runs."""
    with connect(url) as client:
        found = list(client.webhooks(user_id=user_id, at_most=limit))
    if as_json:
        print_json(found)
        return
    rows = [(w.webhook_id, w.url, ", ".join(w.events), w.user_id, _state(w)) for w in found]
    print_table(("webhook", "address", "events", "user", "state"), rows, none="there are no webhooks")


@commands.command("create")
def create_webhook(
    address: Annotated[str, typer.Argument(help="Where events are posted to.")],
    events: Events = None,
    user_id: Annotated[str | None, typer.Option(help="The user whose runs alone it gets.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Have the events of runs posted to an address; prints the secret that they are signed by, this once."""
    from app.wire.webhooks import CreateWebhook

    with connect(url) as client:
        made = client.create_webhook(CreateWebhook(url=address, events=events or [LAST_EVENT], user_id=user_id))
    if as_json:
        print_json([made])
        return
    _print_webhook(made, ("secret", made.secret))
    note("keep the secret: it is not shown again")


@commands.command("update")
def update_webhook(
    webhook_id: WebhookId,
    address: Annotated[str | None, typer.Option(help="Another address.")] = None,
    events: Events = None,
    active: Annotated[bool | None, typer.Option("--on/--off", help="Whether anything is sent to it.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change a webhook's address or events, turn it off, or on again."""
    from app.wire.webhooks import UpdateWebhook

    changes = {"url": address, "events": events or None, "active": active}
    with connect(url) as client:
        body = UpdateWebhook.model_validate({name: value for name, value in changes.items() if value is not None})
        webhook = client.update_webhook(webhook_id, body)
    if as_json:
        print_json([webhook])
    else:
        _print_webhook(webhook)


@commands.command("rotate")
def rotate_webhook(
    webhook_id: WebhookId,
    overlap_seconds: Annotated[
        int, typer.Option(min=0, help="How long messages are signed by the old secret too.")
    ] = 86_400,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Give a webhook another secret, and print it, this once."""
    from app.wire.webhooks import RotateSecret

    with connect(url) as client:
        turned = client.rotate_webhook(webhook_id, RotateSecret(overlap_seconds=overlap_seconds))
    if as_json:
        print_json([turned])
    else:
        _print_webhook(turned, ("secret", turned.secret))


@commands.command("secret")
def show_secret(url: Url = None, as_json: Json = False) -> None:
    """Print what the webhooks of runs are signed by that bring no secret of their own."""
    with connect(url) as client:
        secret = client.webhook_secret()
    if as_json:
        print_json([secret])
    else:
        typer.echo(secret.secret)


@commands.command("delete")
def delete_webhook(
    webhook_id: WebhookId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete a webhook with its log, and with what is on its way to it; asks first at a terminal."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete webhook {webhook_id} with what is on its way to it?", abort=True, err=True)
    with connect(url) as client:
        client.delete_webhook(webhook_id)
    note(f"deleted webhook {webhook_id}")


@commands.command("deliveries")
def list_deliveries(
    webhook_id: Annotated[str | None, typer.Argument(help="The webhook's id.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Those of this run, to whichever webhook.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List what was sent to a webhook, or of a run, the newest first."""
    if (webhook_id is None) == (run_id is None):
        raise Invalid("name a webhook, or a run with --run-id")
    with connect(url) as client:
        found = list(client.deliveries(webhook_id=webhook_id, run_id=run_id, status=status, at_most=limit))
    if as_json:
        print_json(found)
        return
    rows = [(d.delivery_id, d.run_id, d.event, d.status, d.attempts, _said(d)) for d in found]
    columns = ("delivery", "run", "event", "status", "attempts", "answer")
    print_table(columns, rows, none="nothing was sent")


@commands.command("redeliver")
def redeliver(
    delivery_id: Annotated[str, typer.Argument(help="The delivery's id.")], url: Url = None, as_json: Json = False
) -> None:
    """Send something once more, under the same id."""
    with connect(url) as client:
        delivery = client.redeliver(delivery_id)
    if as_json:
        print_json([delivery])
    else:
        note(f"delivery {delivery.delivery_id} is {delivery.status}")


def _state(webhook: "Webhook") -> str:
    return "on" if webhook.active else f"off: {webhook.disabled_reason}" if webhook.disabled_reason else "off"


def _said(delivery: "Delivery") -> str | None:
    said = delivery.error or (None if delivery.response_status is None else str(delivery.response_status))
    if delivery.status == "pending" and delivery.next_attempt_at is not None and delivery.error:
        return f"{said}; again at {moment(delivery.next_attempt_at)}"
    return said


def _print_webhook(webhook: "Webhook", *more: tuple[str, object]) -> None:
    print_members(
        [
            ("webhook", webhook.webhook_id),
            ("address", webhook.url),
            ("events", ", ".join(webhook.events)),
            ("user", webhook.user_id),
            ("state", _state(webhook)),
            *more,
            ("created", moment(webhook.created_at)),
        ]
    )
