"""The EventSource of browsers against a real server."""
