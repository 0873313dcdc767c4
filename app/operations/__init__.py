"""What a caller may ask for: one method, one transaction, named errors."""
