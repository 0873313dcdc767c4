"""The engine from close by: replay of a log that ends anywhere, and the writer under a slow or failing database."""
