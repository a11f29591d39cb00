"""Run the checks of one target and write the pass table as JSON: python -m invsolve.testing TARGET FILE
[IMAGES [DEVICE]].

`invsolve check` starts this in a process of its own, so that a crash or an endless loop of a part is a failed
check and not the end of the command. Lines go to a file, since a part may print.
"""

import json
import sys
from pathlib import Path

from invsolve.errors import InvsolveError


def main(target: str, path: str, images: str = "", device: str = "cpu") -> int:
    """Check the target, line by line, a prior on images of a folder and on a device; the exit code tells
    whether it was found."""
    from invsolve.device import choose_device, keep_float32
    from invsolve.testing.plugin import examine, find

    with open(path, "w", encoding="utf-8") as out:
        try:
            where = choose_device(device)
            keep_float32(where)
            for part in find(target):
                for line in examine(part, Path(images) if images else None, where):
                    print(json.dumps(line._asdict()), file=out, flush=True)
        except InvsolveError as error:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
