"""``python -m kvplan``."""

from kvplan.cli import run

if __name__ == "__main__":
    run()
