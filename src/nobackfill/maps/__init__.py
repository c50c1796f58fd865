"""Maps between frozen spaces: fitted on pairs of vectors, compared with doing nothing, saved as run folders."""

from nobackfill.maps.fits import FITS, Direction, Settings
from nobackfill.maps.fitting import Fitted, fit
from nobackfill.maps.pairs import Held, Pairs

__all__ = ["FITS", "Direction", "Fitted", "Held", "Pairs", "Settings", "fit"]
