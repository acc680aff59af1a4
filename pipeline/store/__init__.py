"""What mp remembers between runs: inventory, journal and lease."""
