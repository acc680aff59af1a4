"""Models in registries: artifacts and images of every form, read without leaving their folder. `source` is the way in."""
