"""vihier."""
