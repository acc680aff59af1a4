"""What an image says of itself and what proves it: annotations, SBOM, provenance, signatures. Used by the image drivers."""
