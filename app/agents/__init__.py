"""Agents: a thin face over pydantic-ai, whose every answer is a step of the run."""
