"""Make the archives of the Lambda function: our code, and a layer with what it imports.

    python deploy/lambda/build.py [--output dist] [--architecture arm64|x86_64] [--no-layer]

`transactions-function.zip` holds the few modules that the handler imports; the same sources give the same bytes.
`transactions-layer.zip` holds the locked versions of its libraries for Amazon Linux, which uv downloads; boto3 comes
along, so that the versions are ours and not those of the day.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "finance_assets"
ENTRY = f"{PACKAGE}.transactions.lambda_handler"
FUNCTION_ARCHIVE = "transactions-function.zip"
LAYER_ARCHIVE = "transactions-layer.zip"
#: What the handler imports of others; what these need themselves, the lock says.
REQUIRED = ("aws-lambda-powertools", "boto3", "pyarrow")
PLATFORMS = {"arm64": "aarch64-manylinux_2_28", "x86_64": "x86_64-manylinux_2_28"}
#: Parts of pyarrow that nothing here uses: headers, tests, and libraries of other formats.
LEFT_OUT = re.compile(
    r"pyarrow/(include|tests|src)/|pyarrow/[^/]*(flight|gandiva|_cuda)[^/]*$|\.pyx$|\.pxd$|\.pxi$"
    r"|/__pycache__/|^bin/|^share/"
)
#: A Lambda's archives may be so large when they are unpacked.
LIMIT_BYTES = 250 * 1024 * 1024
#: The earliest time that an archive can hold, so that it does not depend on when it was made.
EPOCH = (1980, 1, 1, 0, 0, 0)


def modules_of(entry: str, root: Path = ROOT) -> list[Path]:
    """Return the files of our package that a module imports, wherever in it, and itself; sorted."""
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        path = _file_of(name, root)
        if path is None or path in found:
            continue
        found.add(path)
        parts = name.split(".")
        waiting += [".".join(parts[:end]) for end in range(1, len(parts))]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)


def _file_of(name: str, root: Path) -> Path | None:
    if name.split(".")[0] != PACKAGE:
        return None
    base = root.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def write_archive(target: Path, files: dict[str, Path]) -> int:
    """Write files under names, sorted and without times; return their bytes unpacked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    size = 0
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            data = files[name].read_bytes()
            size += len(data)
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            # Readable by the user that Lambda runs as.
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    part.replace(target)
    return size


def build_function(output: Path) -> Path:
    """Write the archive of our code."""
    target = output / FUNCTION_ARCHIVE
    size = write_archive(target, {path.relative_to(ROOT).as_posix(): path for path in modules_of(ENTRY)})
    print(f"{target}: {size / 1e3:,.0f} kB unpacked")
    return target


def build_layer(output: Path, architecture: str) -> Path:
    """Write the archive of the libraries, in the versions of the lock."""
    target = output / LAYER_ARCHIVE
    ours = ROOT / ".tools" / "bin" / "uv"
    uv = str(ours) if ours.exists() else shutil.which("uv")
    if uv is None:
        sys.exit("there is no uv to fetch the libraries with: neither .tools/bin/uv (make setup) nor one on the path")
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder)
        command = [uv, "pip", "install", "--quiet", "--target", folder, "--python-version", "3.11"]
        command += ["--python-platform", PLATFORMS[architecture], "--only-binary", ":all:"]
        # The lock as constraints: without its hashes, which uv wants for all of it or none.
        constraints = installed / "constraints.txt"
        lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
        constraints.write_text("\n".join(re.findall(r"^[A-Za-z0-9_.-]+==[^ \\]+", lock, re.MULTILINE)))
        subprocess.run([*command, "--constraints", str(constraints), *REQUIRED], check=True)
        constraints.unlink()
        files = {
            f"python/{name}": path
            for path in installed.rglob("*")
            if path.is_file() and not LEFT_OUT.search(name := path.relative_to(installed).as_posix())
        }
        size = write_archive(target, files)
    print(f"{target}: {size / 1e6:,.0f} MB unpacked, {target.stat().st_size / 1e6:,.0f} MB packed, {architecture}")
    if size > LIMIT_BYTES:
        sys.exit(f"the layer has {size / 1e6:,.0f} MB unpacked, and Lambda takes {LIMIT_BYTES / 1e6:,.0f}")
    return target


def main() -> None:
    """Build what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--architecture", choices=sorted(PLATFORMS), default="arm64")
    parser.add_argument("--no-layer", action="store_true", help="only our own code")
    options = parser.parse_args()
    build_function(options.output)
    if not options.no_layer:
        build_layer(options.output, options.architecture)


if __name__ == "__main__":
    main()
