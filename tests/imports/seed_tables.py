"""Databases as phidata and Agno 1.x made them: their own statements, and rows of the shape that they wrote."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

TABLE = "generate_blog_post_workflows"

_PHIDATA = """CREATE TABLE {table} (
\tsession_id VARCHAR NOT NULL,
\tworkflow_id VARCHAR,
\tuser_id VARCHAR,
\tmemory JSON,
\tworkflow_data JSON,
\tuser_data JSON,
\tsession_data JSON,
\tcreated_at INTEGER,
\tupdated_at INTEGER,
\tPRIMARY KEY (session_id)
);"""
_AGNO_1_0 = """CREATE TABLE {table} (
\tsession_id VARCHAR NOT NULL,
\tworkflow_id VARCHAR,
\tuser_id VARCHAR,
\tmemory JSON,
\tworkflow_data JSON,
\tsession_data JSON,
\textra_data JSON,
\tcreated_at INTEGER,
\tupdated_at INTEGER,
\tPRIMARY KEY (session_id)
);"""
_AGNO_1_1 = """CREATE TABLE {table} (
\tsession_id VARCHAR NOT NULL,
\tuser_id VARCHAR,
\tmemory JSON,
\tsession_data JSON,
\textra_data JSON,
\tcreated_at INTEGER,
\tupdated_at INTEGER,
\tagent_id VARCHAR,
\tagent_data JSON,
\t{team} VARCHAR,
\tworkflow_id VARCHAR,
\tworkflow_data JSON,
\tPRIMARY KEY (session_id)
);
CREATE INDEX ix_{table}_{team} ON {table} ({team});
CREATE INDEX ix_{table}_agent_id ON {table} (agent_id);
CREATE INDEX ix_{table}_user_id ON {table} (user_id);
CREATE INDEX ix_{table}_workflow_id ON {table} (workflow_id);"""
_AGNO_1_8_V2 = """CREATE TABLE {table} (
\tsession_id VARCHAR NOT NULL,
\tuser_id VARCHAR,
\tmemory JSON,
\tsession_data JSON,
\textra_data JSON,
\tcreated_at INTEGER,
\tupdated_at INTEGER,
\tworkflow_id VARCHAR,
\tworkflow_name VARCHAR,
\tworkflow_data JSON,
\truns JSON,
\tPRIMARY KEY (session_id)
);"""
_AGENTS = """CREATE TABLE {table} (
\tsession_id VARCHAR NOT NULL,
\tagent_id VARCHAR,
\tuser_id VARCHAR,
\tmemory JSON,
\tagent_data JSON,
\tsession_data JSON,
\textra_data JSON,
\tcreated_at INTEGER,
\tupdated_at INTEGER,
\tPRIMARY KEY (session_id)
);"""

STATEMENTS = {
    "phidata 2.7.10": _PHIDATA,
    "agno 1.0.8": _AGNO_1_0,
    "agno 1.1.17": _AGNO_1_1.replace("{team}", "team_id"),
    "agno 1.7.12": _AGNO_1_1.replace("{team}", "team_session_id"),
    "agno 1.8.4 workflow_v2": _AGNO_1_8_V2,
    "agents": _AGENTS,
}
VERSIONS = tuple(STATEMENTS)[:4]

CREATED_AT = 1_740_000_000
"""The second in which all of it happened: the seed knew no smaller unit."""


def session(version: str, session_id: str = "one", **columns: Any) -> dict[str, Any]:
    """A row with two runs, as that version wrote it; columns given replace its own, JSON ones as values."""
    runs = [remembered(version, "bread", "post about bread"), remembered(version, "wine", "post about wine")]
    memory: dict[str, Any] = {"runs": runs}
    if version == "agno 1.7.12":
        memory = {"summaries": {}, "memories": {}, "runs": runs}
    row = {
        "session_id": session_id,
        "workflow_id": "5a89a7ea-f4f6-4145-8345-045d3243c590",
        "user_id": "ada",
        "memory": memory,
        "workflow_data": {"name": "BlogPostGenerator", "workflow_id": "5a89a7ea-f4f6-4145-8345-045d3243c590"},
        "session_data": {
            "session_name": "Posts",
            "session_state": {"blog_posts": [{"topic": "bread", "blog_post": "post about bread"}]},
        },
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT + 10,
    }
    row["user_data" if version == "phidata 2.7.10" else "extra_data"] = None
    return row | columns


def remembered(version: str, topic: str, content: str) -> dict[str, Any]:
    """A run as memory.runs of that version has it."""
    response = {
        "content": content,
        "content_type": "str",
        "event": "RunResponse",
        "run_id": f"run-about-{topic}",
        "session_id": "one",
        "workflow_id": "5a89a7ea-f4f6-4145-8345-045d3243c590",
        "created_at": CREATED_AT,
    }
    if version == "agno 1.7.12":
        del response["event"]
        return response | {"status": "RUNNING"}
    if version == "phidata 2.7.10":
        return {"input": {"args": [], "kwargs": {"topic": topic}}, "response": response}
    return {"input": {"topic": topic}, "response": response}


def write(file: Path, version: str, rows: Iterable[dict[str, Any]], table: str = TABLE) -> Path:
    """The table with these rows; columns that hold JSON are encoded like SQLAlchemy does, bytes and text are kept."""
    with closing(sqlite3.connect(file)) as database, database:
        database.executescript(STATEMENTS[version].replace("{table}", table))
        for row in rows:
            names = ", ".join(row)
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [*map(_column, row, row.values())])
    return file


def contents(file: Path, table: str = TABLE) -> list[tuple[Any, ...]]:
    """The table's rows and its statements, to see that nobody has changed them."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        database.text_factory = bytes
        rows = database.execute(f"SELECT rowid, * FROM {table} ORDER BY 1").fetchall()
        return rows + database.execute("SELECT sql FROM sqlite_master WHERE tbl_name = ?", (table,)).fetchall()


def _column(name: str, value: Any) -> Any:
    holds_json = name in {"memory", "runs"} or name.endswith("_data")
    return json.dumps(value) if holds_json and not isinstance(value, str | bytes) else value
