"""The author's vocabulary, pure: nothing here does I/O or knows of HTTP and SQL."""
