"""The resources that every target leans on: artifact, environment, engine, image."""
