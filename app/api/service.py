"""What the routes call: the operations."""

from dataclasses import dataclass

from starlette.requests import Request

from app.api.sse import Streams
from app.metrics import Metrics
from app.operations.access import Access
from app.operations.deliveries import Deliveries
from app.operations.events import Events
from app.operations.feeds import Feeds
from app.operations.figures import Figures
from app.operations.health import Health
from app.operations.keys import Keys
from app.operations.rates import Rates
from app.operations.runs import Runs
from app.operations.schedules import Schedules
from app.operations.sessions import Sessions
from app.operations.stream_tokens import StreamTokens
from app.operations.users import Users
from app.operations.webhooks import Webhooks
from app.operations.workflows import Workflows


@dataclass(frozen=True, slots=True)
class Service:
    """Made at the roof, one for each application."""

    workflows: Workflows
    runs: Runs
    events: Events
    feeds: Feeds
    sessions: Sessions
    schedules: Schedules
    users: Users
    webhooks: Webhooks
    deliveries: Deliveries
    health: Health
    keys: Keys
    access: Access
    stream_tokens: StreamTokens
    streams: Streams
    figures: Figures
    rates: Rates | None
    """None where no rate is limited."""
    metrics: Metrics
    max_body_bytes: int
    max_state_bytes: int


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    service: Service = request.app.state.service
    return service
