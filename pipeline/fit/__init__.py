"""GPU memory arithmetic, hardware catalog and price."""
