"""What age costs: the same requests of a database as it is after years, and of a fresh one."""
