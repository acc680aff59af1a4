"""How a kind of model is served; one file a template, the table below."""
