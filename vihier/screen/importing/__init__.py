"""From the files that people have to the long table: one module for each format."""

from vihier.screen.importing.bagel import import_bagel
from vihier.screen.importing.chronos import Choices, import_chronos
from vihier.screen.importing.depmap import import_depmap
from vihier.screen.importing.h5ad import import_h5ad, write_h5ad
from vihier.screen.importing.mageck import import_mageck
from vihier.screen.importing.mapped import MappedFiles
from vihier.screen.importing.normalise import Centring, Normalisation
from vihier.screen.importing.report import ImportReport

__all__ = [
    "Centring",
    "Choices",
    "ImportReport",
    "MappedFiles",
    "Normalisation",
    "import_bagel",
    "import_chronos",
    "import_depmap",
    "import_h5ad",
    "import_mageck",
    "write_h5ad",
]
