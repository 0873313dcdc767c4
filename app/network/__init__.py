"""Reaching servers that somebody named, without letting the name lead into the operator's own network."""
