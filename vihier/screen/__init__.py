"""From a table to a validated screen, its index and its cells; simulation."""
