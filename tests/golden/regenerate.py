"""Write the golden curves anew and report how far they moved: `python tests/golden/regenerate.py`, or `make golden`.

Commit the diff with the change that moved them, and say in the message why they moved.

`--check` writes nothing. With it, the command measures another CPU, or an older one by environment variables:
`ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 python tests/golden/regenerate.py --check`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]


def main() -> None:
    from curves import ENGINE_PATHS, curve_of, file_of, read_curve, worst_difference, write_curve
    from tiny import write_inputs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for name, path in ENGINE_PATHS.items():
            curve = curve_of(path, Path(folder), Path(folder) / name)
            moved = worst_difference(curve, read_curve(name)) if file_of(name).exists() else float("nan")
            sys.stdout.write(f"{name:25} moved by {moved:.2g} at most, relative; tolerance {path.tolerance:g}\n")
            if not check:
                write_curve(name, curve)


if __name__ == "__main__":
    main()
