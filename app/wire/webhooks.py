"""Bodies about webhooks and deliveries."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from app.wire.bodies import Body, Instant, Resource

EXAMPLE_URL = "https://hooks.example.com/millstream"
EXAMPLE_WEBHOOK_ID = "01927c3e-8f5a-7cc0-b1de-5d2f1a3b4c5e"
LAST_EVENT = "RunFinished"
MAX_EVENTS = 50
DAY_SECONDS = 86_400
SECRET = r"^whsec_[A-Za-z0-9+/]{32,88}={0,2}$"

Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2000),
    Field(description="An https address on the public internet; without user, password and fragment."),
]
EventName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _distinct(events: list[str]) -> list[str]:
    if len(set(events)) != len(events):
        raise ValueError("each event is named once")
    return events


Events = Annotated[list[EventName], Field(min_length=1, max_length=MAX_EVENTS), AfterValidator(_distinct)]
Secret = Annotated[str, StringConstraints(pattern=SECRET)]


class RunWebhook(Body):
    """Where the events of one run are posted to."""

    url: Url
    events: Events = Field([LAST_EVENT], description="The names of the events to be posted; `*` stands for all.")
    secret: Secret | None = Field(
        None,
        description="What to sign them by, `whsec_` and the base64 of 24 to 64 bytes; else it is that of"
        " GET /webhooks/secret.",
    )


class CreateWebhook(Body):
    """A request for a webhook."""

    url: Url
    events: Events = Field([LAST_EVENT], description="The names of the events to be posted; `*` stands for all.")
    user_id: str | None = Field(None, min_length=1, max_length=255, description="The user whose runs alone it gets.")


class UpdateWebhook(Body):
    """Changes to a webhook; what is not named stays."""

    url: Url | None = None
    events: Events | None = None
    active: bool | None = Field(None, description="Whether anything is sent to it.")


class RotateSecret(Body):
    """A request for another secret."""

    overlap_seconds: int = Field(
        DAY_SECONDS, ge=0, le=30 * DAY_SECONDS, description="How long messages are signed by the old one too."
    )


class Webhook(Resource):
    """An address that gets the events of runs."""

    webhook_id: str = Field(examples=[EXAMPLE_WEBHOOK_ID])
    url: str
    events: list[str]
    user_id: str | None = Field(description="The user whose runs alone it gets; null when it gets those of all.")
    active: bool
    disabled_reason: str | None = Field(description="Why nothing is sent to it, where that is the receiver's doing.")
    previous_secret_until: Instant | None = Field(description="Until when the secret before is signed by too.")
    created_at: Instant
    updated_at: Instant


class WebhookWithSecret(Webhook):
    """A webhook whose secret is new: it is shown this once."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="])


class WebhookSecret(Resource):
    """What the webhooks of runs are signed by that bring no secret of their own."""

    secret: str
    previous_secret_until: Instant | None


class Delivery(Resource):
    """An event on its way to a webhook."""

    delivery_id: str = Field(description="The header webhook-id, the same each time that it is sent.")
    webhook_id: str
    run_id: str
    sequence: int = Field(description="The event's number in its run.")
    event: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    response_status: int | None = Field(description="What the receiver answered last.")
    error: str | None = Field(description="What went wrong with the last attempt.")
    created_at: Instant
    last_attempt_at: Instant | None
    next_attempt_at: Instant | None
    delivered_at: Instant | None


class Message(Resource):
    """What a receiver gets."""

    type: str = Field(examples=[LAST_EVENT])
    timestamp: Instant
    data: dict[str, Any] = Field(description="The event, as in its run's stream.")
