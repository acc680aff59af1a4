"""Where a model runs or is published; one file a target, the table below."""
