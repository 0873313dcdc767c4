"""`python -m benchmarks.bare sqlite:///FILE|postgresql://… PORT`."""

import sys

import uvicorn

from benchmarks.bare.application import Server, make_application
from benchmarks.bare.postgres import PostgresServer
from benchmarks.bare.sqlite import SqliteServer


def main(url: str, port: str) -> None:
    """Serve until SIGTERM."""
    server: Server = PostgresServer(url) if url.startswith("postgres") else SqliteServer(url.removeprefix("sqlite:///"))
    uvicorn.run(make_application(server), port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
