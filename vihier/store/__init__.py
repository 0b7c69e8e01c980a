"""A screen of any size on disk, by gene: packed from tables in bounded memory, read block by block."""
