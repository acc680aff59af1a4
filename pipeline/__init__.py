"""mp: one models.yaml, planned and applied. Start reading at pipeline/engine/__init__.py."""
