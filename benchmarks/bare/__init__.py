"""A server of the same routes with nothing but the work in it: what the machine and the libraries allow."""
