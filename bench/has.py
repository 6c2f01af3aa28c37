"""Ends with 0 if this Python has the package in the version asked for: `has.py NAME==VERSION`."""

import sys
from importlib import metadata

name, version = sys.argv[1].split("==")
try:
    sys.exit(metadata.version(name) != version)
except metadata.PackageNotFoundError:
    sys.exit(1)
