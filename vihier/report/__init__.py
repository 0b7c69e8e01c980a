"""One page that says what a fit found and how far to trust it."""

from vihier.report.write import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
