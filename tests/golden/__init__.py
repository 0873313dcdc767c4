"""What goes over the wire, byte for byte."""
