"""Tests of app/agents."""
