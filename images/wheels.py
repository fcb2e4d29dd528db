"""Packs installed Debian packages of Python modules as wheels: wheels.py DIR NAME...

A wheel is what pip installs: the modules, and a dist-info directory beside them. What
Debian installs has both, but not as one file, and no list of the files.
"""

import pathlib
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution

def pack(name, out):
    dist = distribution(name)
    info = pathlib.Path(dist._path)
    tops = (dist.read_text("top_level.txt") or name.lower()).split()
    files = [f for top in tops for f in sorted(info.parent.joinpath(top).rglob("*")) if f.is_file() and "__pycache__" not in f.parts]
    native = any(f.suffix == ".so" for f in files)
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}-cp{sys.version_info[0]}{sys.version_info[1]}-{sysconfig.get_platform().replace('-', '_')}" if native else "py3-none-any"
    base = f"{dist.metadata['Name'].replace('-', '_')}-{dist.version}"
    record = []
    with zipfile.ZipFile(out / f"{base}-{tag}.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        def put(path, data):
            wheel.writestr(path, data)
            record.append(f"{path},,\n")
        for f in files:
            put(str(f.relative_to(info.parent)), f.read_bytes())
        metadata = dist.read_text("METADATA") or dist.read_text("PKG-INFO")
        if "\nRequires-Dist:" not in metadata:  # an egg-info has it in a file of its own
            head, blank, rest = metadata.partition("\n\n")
            metadata = head + "".join(f"\nRequires-Dist: {r}" for r in dist.requires or []) + blank + rest
        put(f"{base}.dist-info/METADATA", metadata)
        put(f"{base}.dist-info/WHEEL", f"Wheel-Version: 1.0\nGenerator: images/wheels.py\nRoot-Is-Purelib: {str(not native).lower()}\nTag: {tag}\n")
        if dist.read_text("entry_points.txt"):
            put(f"{base}.dist-info/entry_points.txt", dist.read_text("entry_points.txt"))
        put(f"{base}.dist-info/RECORD", "".join(record) + f"{base}.dist-info/RECORD,,\n")

target = pathlib.Path(sys.argv[1])
target.mkdir(exist_ok=True)
for wanted in sys.argv[2:]:
    pack(wanted, target)
