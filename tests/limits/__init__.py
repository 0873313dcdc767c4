"""Limits of callers and of runs."""
