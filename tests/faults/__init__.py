"""What befalls databases: a disk that fills up, a Postgres that is restarted; real ones, and real processes."""
