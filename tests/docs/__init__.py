"""The documents kept true: their examples run, their links lead somewhere, nothing that users meet is left out."""
