"""`python -m nobackfill`."""

from nobackfill.cli.app import main

main()
