"""Where runs are executed: claims, author code, the event writer, state saves, the end. Knows no web and no SQL."""
