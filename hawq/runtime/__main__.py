"""Run `python -m hawq.runtime DIR IMAGE...`: `hawq run` for a machine that has only what the loader needs."""

import argparse
import json
import sys
from pathlib import Path

from hawq.errors import HawqError
from hawq.runtime.command import RunRequest, describe, run_images


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hawq.runtime", description="Run an exported library on images.")
    parser.add_argument("folder", type=Path, help="folder of model.so and manifest.json")
    parser.add_argument("images", type=Path, nargs="+", help="image files")
    parser.add_argument("--top", type=int, default=5, help="classes to name for each image (default 5)")
    parser.add_argument("--repeat", type=int, default=0, help="time the first batch this often")
    parser.add_argument("--threads", type=int, help="CPU threads (default one a core)")
    parser.add_argument("--tvm-runtime", type=Path, dest="runtime", help="folder of libtvm_runtime.so")
    parser.add_argument("--logits", type=Path, help="write the integer logits to this .npy file")
    parser.add_argument("--raw", type=Path, help="write the prepared images to this file, as bare bytes")
    parser.add_argument("--json", action="store_true", dest="as_json", help="put one JSON document on stdout")
    return parser


def main() -> int:
    """Run the command and return its exit code."""
    options = vars(_parser().parse_args())
    as_json = options.pop("as_json")
    try:
        document = run_images(RunRequest(**{**options, "images": tuple(options["images"])}))
    except HawqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(describe(document)), file=sys.stderr)
    if as_json:
        print(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
