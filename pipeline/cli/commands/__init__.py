"""One file a command; each reads arguments, calls the engine and hands the result to a view."""
