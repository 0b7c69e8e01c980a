"""Pure tensor functions: elimination and sufficient statistics."""
