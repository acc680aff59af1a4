"""The story of a run: read, resolve, compose, observe, diff, execute. START READING HERE."""
