"""Migrations: up, down, by many at once, and what the service says about a database that is elsewhere."""
