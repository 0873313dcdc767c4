"""A Postgres that answers every read and takes no write: a standby, or one that somebody has locked."""

import psycopg
import pytest

from app import Workflow
from app.store.database import driver_url
from tests.support import databases
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.waiting import until


class Echo(Workflow):
    def run(self) -> str:
        return "said"


def let_be_written(database_url: str, *, written: bool) -> None:
    """From the next connection on, and there are only new ones."""
    url = driver_url(database_url)
    name = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        switch = "off" if written else "on"
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {switch}".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [name],
        )


@pytest.mark.slow
async def test_what_cannot_be_written_is_refused_and_reads_go_on(postgres_template: str) -> None:
    with databases.copy_of_postgres(postgres_template) as url:
        async with running(url, Echo) as client:
            before = await client.finish("echo")
            let_be_written(url, written=False)

            async def refused() -> bool:
                answer = await client.post("/workflows/echo/runs", json={"input": {}})
                problem = problem_of(answer, 503)
                assert int(answer.headers["Retry-After"]) >= 1
                return problem["code"] == "database_read_only" and "MILLSTREAM_DATABASE_URL" in problem["detail"]

            async def not_ready() -> bool:
                return "read" in problem_of(await client.get("/readyz"), 503, "not_ready")["detail"]

            await until(refused)
            await until(not_ready)
            assert (await client.get(f"/runs/{before['run_id']}")).json() == before
            assert (await client.get("/healthz")).status_code == 200
            let_be_written(url, written=True)
            await until(lambda: _ready(client), 20)

            async def accepted() -> str:
                answer = await client.post("/workflows/echo/runs", json={"input": {}})
                return str(answer.json()["run_id"]) if answer.status_code == 202 else ""

            run = await client.ended(await until(accepted), 30)
            assert (run["status"], run["content"]) == ("completed", "said")


async def _ready(client: Client) -> bool:
    return (await client.get("/readyz")).status_code == 200
