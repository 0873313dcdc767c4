"""The OpenAPI document against the service."""
