"""Which checkpoints there are (a data file), and how their weights arrive and are verified."""

from manylens.catalog.catalog import Catalog
from manylens.catalog.progress import ProgressCallback
from manylens.catalog.reader import CatalogError
from manylens.catalog.row import CAPABILITIES, Row, State, WeightFile, Wheel, capabilities
from manylens.catalog.store import Announce, WeightsStore, licence_line

__all__ = [
    "CAPABILITIES",
    "Announce",
    "Catalog",
    "CatalogError",
    "ProgressCallback",
    "Row",
    "State",
    "WeightFile",
    "WeightsStore",
    "Wheel",
    "capabilities",
    "licence_line",
]
