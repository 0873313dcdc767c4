"""Where the shipped workflows find what they write about: local documents, the web, pages that a caller names."""
