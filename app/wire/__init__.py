"""What goes over the wire: JSON bodies and SSE frames, and nothing about how they come to be."""
