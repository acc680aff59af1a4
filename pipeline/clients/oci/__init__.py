"""Registries and OCI layouts behind one protocol. `repositories` opens them."""
