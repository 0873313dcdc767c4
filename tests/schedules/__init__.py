"""Schedules: when they are due, and that each tick has one run."""
