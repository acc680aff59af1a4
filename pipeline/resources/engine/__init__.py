"""Engines without weights: as environments of this machine and as images that models share. `resource` has the images."""
