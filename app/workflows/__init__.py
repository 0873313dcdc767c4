"""The workflows that come with Millstream."""
