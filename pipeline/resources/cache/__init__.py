"""The cache: verified files by their content, artifacts over them, and what keeps it small and sound. `store` is the way in."""
