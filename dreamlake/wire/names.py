"""Names: which are accepted, and where on disk they stand.

Whatever a name says, the path made from it stays below the folder it belongs to, and two names never share a path.
"""

from __future__ import annotations

import re
from typing import TypeGuard

COMPONENT_BYTES_MAX = 255  # NAME_MAX of every file system we met
NAME_BYTES_MAX = 1024  # a whole track name or file path; leaves room below PATH_MAX (4096)

DREAMLAKE = ".dreamlake"
PULLING = ".dreamlake-pull"  # says of a folder that an unfinished pull is in it, and of all below that it is no session
_OWN_TRACK_FILES = {"data.jsonl", "metadata.json", "metadata.json.tmp"}
_OWN_FILE_NAMES = {".files_metadata.json", ".files_metadata.json.tmp"}

# "%" is left alone except where it would be read back as one of our own escapes.
_AMBIGUOUS_PERCENT = re.compile(r"%(?=(?:25)*2[fF])")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ESCAPED_PERCENT = re.compile(r"%25(?=(?:25)*2[fF])")


def is_sha256(value: object) -> TypeGuard[str]:
    """Whether something is a SHA-256, as files' records and blobs are named by it: 64 lowercase hex digits."""
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _check(kind: str, value: object, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"{kind} {value!r} contains a NUL character, which no path can hold: leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{kind} {value!r} is not valid Unicode (a lone surrogate): choose another name") from None


def _check_component(kind: str, value: str, part: str) -> None:
    if not part:
        raise ValueError(f"{kind} {value!r} has an empty part: write it without leading, trailing or double '/'")
    if part in (".", ".."):
        raise ValueError(f"{kind} {value!r} contains {part!r}, which would leave the session: choose another name")
    if len(part.encode()) > COMPONENT_BYTES_MAX:
        raise ValueError(f"{kind} {value[:40]!r}… is longer than {COMPONENT_BYTES_MAX} bytes: shorten it")


def folder_of(kind: str, name: str) -> str:
    """The folder name of a workspace or a session; ``/`` is percent-encoded.

    >>> folder_of("name", "sweep/lr=0.1")
    'sweep%2Flr=0.1'
    >>> folder_of("name", "a%2Fb")     # never the folder of "a/b"
    'a%252Fb'

    Raises :class:`TypeError` for anything but a string and :class:`ValueError` for a name that cannot be stored.
    """
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be a string, not {type(name).__name__}")
    if not name:
        raise ValueError(f"{kind} is empty: give it a name")
    _check(kind, name, name)
    if name.startswith("/"):
        raise ValueError(f"{kind} {name!r} is an absolute path: give a name without the leading '/'")
    for part in name.split("/"):
        _check_component(kind, name, part)
    folder = _AMBIGUOUS_PERCENT.sub("%25", name).replace("/", "%2F")
    if len(folder.encode()) > COMPONENT_BYTES_MAX:
        raise ValueError(f"{kind} {name[:40]!r}… is longer than {COMPONENT_BYTES_MAX} bytes on disk: shorten it")
    if folder == DREAMLAKE:
        raise ValueError(f"{kind} {name!r} is a folder name of Dreamlake's own: choose another name")
    return folder


def name_of(folder: str) -> str:
    """The name that a folder was made from.

    >>> name_of("sweep%2Flr=0.1")
    'sweep/lr=0.1'
    """
    return _ESCAPED_PERCENT.sub("%", re.sub(r"%2[fF]", "/", folder)) if "%" in folder else folder


def track_folder(name: str) -> str:
    """The folder of a track below ``tracks/``; ``/`` nests.

    >>> track_folder("train/loss")
    'train/loss'
    """
    if not isinstance(name, str):
        raise TypeError(f"track name must be a string, not {type(name).__name__}")
    if not name:
        raise ValueError("track name is empty: give it a name")
    _check("track name", name, name)
    if name.startswith("/"):
        raise ValueError(f"track name {name!r} is an absolute path: give a name without the leading '/'")
    for part in name.split("/"):
        _check_component("track name", name, part)
        if part in _OWN_TRACK_FILES or part == DREAMLAKE:
            raise ValueError(f"track name {name!r} contains {part!r}, a name of Dreamlake's own: choose another name")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"track name {name[:40]!r}… is longer than {NAME_BYTES_MAX} bytes: shorten it")
    return name


def file_folder(path: str) -> str:
    """A folder below ``files/`` as the user writes it: ``/models``, ``models/`` and ``models`` are one; ``/`` is the
    top.

    >>> file_folder("/models/")
    'models'
    """
    if not isinstance(path, str):
        raise TypeError(f"path must be a string, not {type(path).__name__}")
    _check("path", path, path)
    inner = path.strip("/")
    if not inner:
        return ""
    for part in inner.split("/"):
        _check_component("path", path, part)
    if inner.split("/")[0] in _OWN_FILE_NAMES:
        raise ValueError(f"path {path!r} starts with a file name of Dreamlake's own: choose another path")
    if len(inner.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"path {path[:40]!r}… is longer than {NAME_BYTES_MAX} bytes: shorten it")
    return inner


def file_place(path: str, filename: str) -> str:
    """Where a file stands below ``files/``.

    >>> file_place("/models", "model.pth")
    'models/model.pth'
    """
    folder = file_folder(path)
    if not isinstance(filename, str):
        raise TypeError(f"filename must be a string, not {type(filename).__name__}")
    _check("filename", filename, filename)
    if "/" in filename:
        raise ValueError(f"filename {filename!r} contains '/': put the folder into path")
    _check_component("filename", filename, filename)
    if not folder and filename in _OWN_FILE_NAMES:
        raise ValueError(f"filename {filename!r} is a file of Dreamlake's own: choose another name or a path")
    return f"{folder}/{filename}" if folder else filename


def tag_list(tags: list[str] | tuple[str, ...] | None) -> list[str] | None:
    """Tags as given, or :class:`TypeError`: a lone string is not a list of tags.

    >>> tag_list(("baseline", "resnet"))
    ['baseline', 'resnet']
    """
    if tags is None:
        return None
    if isinstance(tags, str) or not isinstance(tags, (list, tuple, set, frozenset)):
        raise TypeError(f"tags must be a list of strings, not {type(tags).__name__}")
    if not all(isinstance(tag, str) for tag in tags):
        raise TypeError("tags must be strings")
    return list(tags)
