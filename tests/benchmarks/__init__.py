"""The programs that measure: they see what is wrong, and they run."""
