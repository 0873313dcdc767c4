"""The store by itself."""
