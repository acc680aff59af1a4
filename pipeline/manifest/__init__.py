"""models.yaml and models.lock: what a user may write, read with line numbers."""
