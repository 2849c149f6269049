"""What walferry costs, beside its peers, on private servers: the package behind scripts/bench.

A section (`drain`, `copying`, `clone`, ...) makes `Run`s (result.py) and says how they are tabled; `__main__` picks the
sections, keeps the results and writes the tables. Servers are those of the live tests.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "live"))
