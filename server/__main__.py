"""`python -m server`: the same as `parlm`."""

from server.cli import main

main()
