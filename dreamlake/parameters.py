"""Parameters: the settings of a run, merged key by key, nested dicts flattened with "."."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from dreamlake.wire import jsons, ops

if TYPE_CHECKING:
    from dreamlake.session import Session


class Parameters:
    """The parameters of an open session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def set(self, values: dict[str, Any] | None = None, /, **fields: Any) -> None:
        """Set parameters; those not named stay. Nested dicts are flattened, lists are values; setting nothing writes
        nothing.

        Raises :class:`TypeError` naming a value that JSON cannot hold (nothing is set then), and :class:`RuntimeError`
        when the session is write-protected or not open.
        """
        if values is not None and not isinstance(values, dict):
            raise TypeError(f"parameters are a dict or keywords, not {type(values).__name__}")
        flat = self.flatten_dict({**(values or {}), **fields})
        data, nonfinite = jsons.encode_fields(flat, "parameter")
        if self._session._disabled:
            return
        writer = self._session._ready_for_change()
        if flat:
            writer.put(ops.PARAMETERS, data, nonfinite)

    def get(self, flatten: bool = True) -> dict[str, Any]:
        """All parameters, flat (``{"model.lr": 0.001}``) or nested; empty when none were set."""
        if self._session._disabled:
            return {}
        with self._session._reader() as reader:
            flat = (self._session._joined(reader) or reader).parameters()
        return flat if flatten else self.unflatten_dict(flat)

    @staticmethod
    def flatten_dict(nested: dict[str, Any], parent_key: str = "", sep: str = ".") -> dict[str, Any]:
        """
        >>> Parameters.flatten_dict({"model": {"lr": 0.001, "layers": [64, 64]}})
        {'model.lr': 0.001, 'model.layers': [64, 64]}
        """
        flat: dict[str, Any] = {}
        if parent_key.count(sep) > jsons.DEPTH_MAX:
            raise TypeError(f"parameter {parent_key[:40]!r}… is nested deeper than {jsons.DEPTH_MAX} levels")
        for key, value in nested.items():
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
            name = f"{parent_key}{sep}{key}" if parent_key else str(key)
            if isinstance(value, dict) and value:
                flat.update(Parameters.flatten_dict(value, name, sep))
            else:
                flat[name] = value
        return flat

    @staticmethod
    def unflatten_dict(flat: dict[str, Any], sep: str = ".") -> dict[str, Any]:
        """The nested form. A key that is a value and a folder at once (``a`` and ``a.b``) keeps its dotted name.

        >>> Parameters.unflatten_dict({"model.lr": 0.001, "a": 1, "a.b": 2})
        {'a': 1, 'model': {'lr': 0.001}, 'a.b': 2}
        """
        nested: dict[str, Any] = {}
        for key, value in sorted(flat.items(), key=lambda item: item[0].count(sep)):
            *folders, last = key.split(sep)
            inner = nested
            for folder in folders:
                step = inner.setdefault(folder, {})
                if not isinstance(step, dict) or _is_value(flat, folders):
                    break
                inner = step
            else:
                if not isinstance(inner.get(last), dict):
                    inner[last] = value
                    continue
            nested[key] = value
        return nested


def _is_value(flat: dict[str, Any], folders: list[str]) -> bool:
    return any(".".join(folders[: depth + 1]) in flat for depth in range(len(folders)))
