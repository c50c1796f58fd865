"""Maps between frozen spaces: fitted on pairs of vectors, compared with doing nothing, saved as run folders."""

from nobackfill.maps.fastfill import uncertainty
from nobackfill.maps.fits import FITS
from nobackfill.maps.fitting import Fitted, fit
from nobackfill.maps.pairs import Held, Pairs
from nobackfill.maps.task import Direction, Settings

__all__ = ["FITS", "Direction", "Fitted", "Held", "Pairs", "Settings", "fit", "uncertainty"]
