"""The command line."""

from app.cli.program import main

__all__ = ["main"]
