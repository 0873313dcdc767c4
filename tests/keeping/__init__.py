"""What is kept, and what is not: backups, retention, and data that has to go."""
