"""The mp command: a table of commands, each loaded when it is asked for."""
