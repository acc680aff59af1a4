"""Pure views: a plan, a report or events in, text out."""
