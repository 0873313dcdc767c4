"""A client of the service: what its routes answer, as the models of the wire."""
