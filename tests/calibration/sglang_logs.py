"""Print kvplan's errors on the start-up logs of real SGLang servers, failures included.

    python tests/calibration/sglang_logs.py

Columns: weights of a rank against "mem usage" after loading; the pool's size for the tokens the log
prints; tokens and state slots from the free memory the log prints, where it names the share.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sglang_log_rows import compared


def percent(value):
    return "" if value is None else f"{100 * value:+.2f} %"


def main() -> None:
    print(f"{'log':4} {'layers of':18} {'weights':>9} {'pool':>9} {'tokens':>9} {'slots':>6}")
    for row in compared():
        slots = "" if row.slots_error is None else f"{row.slots_error:+d}"
        errors = [percent(value) for value in (row.weights_error, row.pool_error, row.tokens_error)]
        print(f"{row.row_id:4} {row.shape:18} {errors[0]:>9} {errors[1]:>9} {errors[2]:>9} {slots:>6}")


if __name__ == "__main__":
    main()
