"""Multipart: a form with one file, whose bytes pass through without being kept (RFC 7578)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from dreamlake_server.problem import bad, too_large

FIELD_BYTES = 1 << 20  # of all fields but the file
_PARTS_MAX = 50


@dataclass
class Part:
    """What a part's headers say."""

    name: str = ""
    filename: str | None = None
    content_type: str | None = None


@dataclass
class Form:
    """A form as it comes: iterate :meth:`file` to its end, then ``fields`` and ``part`` are known."""

    body: AsyncIterator[bytes]
    content_type: str
    fields: dict[str, str] = field(default_factory=dict)
    part: Part | None = None  # of the file

    def __post_init__(self) -> None:
        kind, options = parse_options_header(self.content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise bad("send multipart/form-data with a boundary and a part that has a filename")
        self._now = Part()
        self._header = self._value = b""
        self._text = bytearray()
        self._chunks: list[bytes] = []
        self._bytes = self._parts = 0
        self._ended = False
        try:
            self._parser = python_multipart.MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise bad(f"the form cannot be read: {error}", "unreadable") from None

    async def file(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file, in chunks. Raises a 400 for what is no form, or has no file or several."""
        async for data in self.body:
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise bad(f"the form cannot be read: {error}", "unreadable") from None
            chunks, self._chunks = self._chunks, []
            for chunk in chunks:
                yield chunk
        if not self._ended:
            raise bad("the form ends too early: send it again", "unreadable")
        if self.part is None:
            raise bad("the form has no file: send a part that has a filename")

    # What the parser finds.

    def _part_begin(self) -> None:
        self._now, self._text = Part(), bytearray()
        self._parts += 1
        if self._parts > _PARTS_MAX:
            raise too_large("FIELD_BYTES", FIELD_BYTES, "the number of fields")

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > FIELD_BYTES:
            raise too_large("FIELD_BYTES", FIELD_BYTES, "what the form has beside its file")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _header_end(self) -> None:
        name, value = self._header.lower(), self._value
        self._header = self._value = b""
        if name == b"content-type":
            self._now.content_type = value.decode("latin-1")[:200]
        if name != b"content-disposition":
            return
        _kind, options = parse_options_header(value)
        self._now.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            self._now.filename = options[b"filename"].decode("utf-8", "replace")
            if self.part is not None:
                raise bad("the form has two files: send one a request")
            self.part = self._now

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._now.filename is not None:
            self._chunks.append(data[start:end])
            return
        self._count(end - start)
        self._text += data[start:end]

    def _part_end(self) -> None:
        if self._now.filename is None:
            self.fields[self._now.name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True
