"""Server-sent events as bytes."""


def frame(sequence: int | str, event: str, payload: bytes) -> bytes:
    """One event as it goes over the wire; the payload is one line of JSON."""
    identity = b"%d" % sequence if isinstance(sequence, int) else sequence.encode()
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (identity, event.encode(), payload)


def retry(milliseconds: int) -> bytes:
    """The field that opens a stream: how long a client waits before it comes back. It joins the frame after it."""
    return b"retry: %d\n" % milliseconds


def comment(text: str) -> bytes:
    """A line for people; readers of streams pass over it."""
    return b": %b\n\n" % text.encode()


def with_id(one: bytes, identity: str) -> bytes:
    """A frame under another id."""
    return b"id: %b\n%b" % (identity.encode(), one.partition(b"\n")[2])
