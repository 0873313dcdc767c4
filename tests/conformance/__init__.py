"""One suite over both databases: load and faults at random moments, and then what must hold whatever has happened."""
