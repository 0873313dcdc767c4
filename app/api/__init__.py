"""The HTTP surface: one file per noun; bodies in, operations called, answers out."""
