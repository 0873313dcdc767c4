"""No statement of ours reads a growing table from end to end, whatever is asked of the service."""
