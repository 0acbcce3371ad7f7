"""Whether this machine and this project are fit for a run: each check is a finding with what to do about it."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.bases.space import UNKNOWN_BYTES
from pipelines.bases.store import sound, store_path
from pipelines.contracts.base import BaseRecord, read_base
from pipelines.errors import PipelineError
from pipelines.files import reft_home
from pipelines.params.whole import Params
from pipelines.runtime.device import resolve_device
from pipelines.runtime.disk import PROJECT_BYTES
from pipelines.runtime.machine import Machine, this_machine
from pipelines.sources.addresses import PypiSource, parse_source
from pipelines.sources.package_index import probe_indexes
from pipelines.tracking.store import check_store, check_trials, public_uri
from pipelines.upkeep.precision import DIRECTIONS, WIDTH, Products, measure_products

Level = Literal["ok", "warn", "fail"]
PACKAGE = "reft-pipeline"
TMP_BYTES = 100_000_000
BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2, "float16": 2}
MEASURED = ("float32", "bfloat16")  # beside the one that is chosen
WORKING = 2  # memory for activations and the copy that loading makes, in sizes of the base
LEAST_MEMORY = 2_000_000_000  # bytes, when the base is not known yet


@dataclass(frozen=True)
class Finding:
    """One check: ``ok``, ``warn`` (it works, and could be better) or ``fail`` (a run would fail)."""

    check: str
    level: Level
    found: str
    do: str = ""


def check_installation(root: Path) -> list[Finding]:
    """Python and the installed packages against what this project asks for, and against constraints.txt."""
    python = metadata.metadata(PACKAGE)["Requires-Python"]
    version = ".".join(map(str, sys.version_info[:3]))
    fits = version in Requirement(f"python{python}").specifier
    install = "Run `make setup` (or pip install -c constraints.txt -e .) in a fresh environment."
    findings = [Finding("python", "ok" if fits else "fail", f"{version}, asked for: {python}", "" if fits else install)]
    broken = list(_unmet(metadata.requires(PACKAGE) or []))
    findings.append(
        Finding("packages", "fail" if broken else "ok", ", ".join(broken) or "all there", install if broken else "")
    )
    others = _unlike(root / "constraints.txt")
    said = (
        f"{len(others)} other than in constraints.txt: {', '.join(others[:5])}" if others else "as in constraints.txt"
    )
    findings.append(Finding("versions", "warn" if others else "ok", said, install if others else ""))
    return findings


def check_hardware(params: Params | None, root: Path, base: BaseRecord | None) -> list[Finding]:
    """Disk, memory, cores, threads and device, and which dtype the device multiplies faster."""
    machine = this_machine()
    findings = [
        _disk("disk: project", root, PROJECT_BYTES),
        _disk("disk: REFT_HOME", reft_home(), PROJECT_BYTES if base else UNKNOWN_BYTES),
        _disk("disk: temporary", Path(tempfile.gettempdir()), TMP_BYTES),
        _memory(machine, base),
    ]
    if params is not None:
        findings += [_threads(machine, params), _device(machine, params), *_dtypes(machine, params, base)]
    return findings


def check_places(params: Params, root: Path) -> list[Finding]:
    """The package index, the tracking store and the trials' storage."""
    return [
        *_indexes(params),
        _tried("tracking store", public_uri(params.tracking.uri), lambda: check_store(params.tracking, root)),
        _tried("search.storage", "answers", lambda: check_trials(params.search.storage, root)),
    ]


def check_base(path: Path) -> tuple[BaseRecord | None, list[Finding]]:
    """The base that models/base.json names: there, and every byte as it was written."""
    if not path.is_file():
        return None, [Finding("base", "warn", f"no {path.name} yet", "The base stage of the first run makes it.")]
    try:
        record = read_base(path)
    except PipelineError as error:
        return None, [Finding("base", "fail", str(error), "Run: dvc repro -f -s base")]
    name = f"{record.sha256[:12]} ({record.parameters:,} parameters)"
    if not store_path(record).is_dir():
        return record, [
            Finding("base", "warn", f"{name} is not in {store_path(record).parent}", "It is fetched when needed.")
        ]
    if not sound(record):
        do = f"Remove {store_path(record)}; the next run makes it again."
        return record, [Finding("base", "fail", f"{name} has other bytes than it was written with", do)]
    return record, [Finding("base", "ok", f"{name} is whole")]


def _unmet(requirements: list[str]) -> Iterator[str]:
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _installed(requirement.name)
        if installed is None:
            yield f"{requirement.name} is missing"
        elif not requirement.specifier.contains(installed, prereleases=True):
            yield f"{requirement.name} {installed} is not {requirement.specifier}"


def _unlike(constraints: Path) -> list[str]:
    if not constraints.is_file():
        return []
    found = []
    for name, pinned in re.findall(r"^([\w.-]+)==([^\s;#]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE):
        installed = _installed(canonicalize_name(name))
        if installed is not None and installed.partition("+")[0] != pinned.partition("+")[0]:
            found.append(f"{name} {installed}, not {pinned}")
    return found


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _disk(check: str, folder: Path, needed: int) -> Finding:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    said = f"{free / 1e9:.1f} GB free in {folder}, up to {needed / 1e9:.1f} GB needed"
    return Finding(check, "ok", said) if free >= needed else Finding(check, "fail", said, "Free some, or move it.")


def _memory(machine: Machine, base: BaseRecord | None) -> Finding:
    needed = LEAST_MEMORY if base is None else WORKING * base.parameters * BYTES_PER_WEIGHT[base.dtype]
    said = f"{machine.free_memory / 1e9:.1f} of {machine.memory / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed"
    if machine.free_memory >= needed:
        return Finding("memory", "ok", said)
    return Finding("memory", "warn", said, "Close something, or lower train.batch_size and evaluate.batch_size.")


def _threads(machine: Machine, params: Params) -> Finding:
    said = f"run.threads is {params.run.threads}; {machine.cores} cores"
    if params.run.threads <= machine.cores:
        return Finding("threads", "ok", said)
    return Finding("threads", "warn", said, f"Set run.threads to {machine.cores}; it makes other last bits.")


def _device(machine: Machine, params: Params) -> Finding:
    there = ", ".join(machine.devices)
    return _tried(
        "device", f"run.device is {params.run.device}; there: {there}", lambda: resolve_device(params.run.device)
    )


def _dtypes(machine: Machine, params: Params, base: BaseRecord | None) -> Iterator[Finding]:
    """Measure products in the dtypes that a base may have; nothing where the device is not there."""
    try:
        device = resolve_device(params.run.device)
    except PipelineError:
        return  # a finding of _device
    chosen = params.base.dtype
    names = list(dict.fromkeys([*MEASURED, chosen]))
    width = WIDTH if base is None else base.hidden_size
    threads = min(params.run.threads, machine.cores)
    products = measure_products(names, width=width, device=device, threads=threads)
    said = "; ".join(_times(products, chosen, other) for other in names if other != chosen)
    better = products.better_than(chosen)
    if better is None:
        yield Finding("base.dtype", "ok", said)
        return
    bytes_ = BYTES_PER_WEIGHT[better] / BYTES_PER_WEIGHT[chosen]
    memory = f"; weights then take {bytes_:g} times the memory" if bytes_ != 1 else ""
    do = f"Set base.dtype to {better}, the faster one{memory}. It makes another base, with figures of its own."
    yield Finding("base.dtype", "warn", said, do)


def _times(products: Products, chosen: str, other: str) -> str:
    """Say how much longer the dtype that is not chosen takes here."""
    pairs = zip(DIRECTIONS, products.times(other, chosen), strict=True)
    found = ", ".join(f"{min(each):.2g} to {max(each):.2g} times as long {way}" for way, each in pairs)
    return f"products in {other} take {found} as in {chosen}"


def _indexes(params: Params) -> list[Finding]:
    own = [section.source for section in params.prepare.sections().values()]
    sources = [parse_source(source) for source in (params.base.source, *own)]
    names = sorted({source.name for source in sources if isinstance(source, PypiSource)})
    if not names:
        return [Finding("package index", "ok", "no source is on one")]
    return [
        Finding("package index", "ok", f"{place} answers")
        if problem is None
        else Finding("package index", "warn", f"{place}: {problem}", "What was fetched before still works.")
        for place, problem in probe_indexes(names[0])
    ]


def _tried(check: str, said: str, look: Callable[[], object]) -> Finding:
    try:
        look()
    except PipelineError as error:
        return Finding(check, "fail", str(error.got or error.rule), error.do)
    return Finding(check, "ok", said)
