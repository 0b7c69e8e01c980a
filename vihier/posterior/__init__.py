"""The posterior file: writer, reader, summaries, ArviZ."""
