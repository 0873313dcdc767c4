"""The command line and the client, against real servers where it matters."""
