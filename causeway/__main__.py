"""`python -m causeway` is the console script `causeway`."""

from __future__ import annotations

from causeway.cli import main

if __name__ == "__main__":
    main()
