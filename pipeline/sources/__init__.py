"""Where weights come from; one file a source, the table below."""
