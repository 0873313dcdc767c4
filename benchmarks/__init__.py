"""Our figures beside those of a bare server that does the same work; docs/performance.md says what they mean."""
