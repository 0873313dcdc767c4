"""The only SQL. Functions take a transaction, run one statement, never commit, return rows or None."""
