"""Metadata of a GGUF model: key to value and type, copied or made."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlx_rsft.models.gguf_file import GgufFile

TYPES = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
STALE = ("quantize.imatrix.", "split.")
"""What is no longer true of a copy, the names of the quantiser's files among it."""
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
QUANTIZATION_VERSION = 2


class Field(NamedTuple):
    """A value with its type's name, and that of its elements if it is a list."""

    value: Any
    type: str
    elements: str = ""


Fields = dict[str, Field]


def copied(file: GgufFile) -> Fields:
    """All metadata of a file, without loss, but for what is about that file alone."""
    import gguf

    found: Fields = {}
    for key, value in file.metadata.items():
        if not key.startswith(STALE):
            kinds = [gguf.GGUFValueType(kind).name for kind in file.kinds[key]]
            found[key] = Field(value, *kinds)
    return found


def field(value: Any) -> Field:
    """A value of our own: whole numbers are 32 bits wide, without a sign in front.

    Lists of whole numbers have one, as llama.cpp wants the types of tokens.
    """
    if not isinstance(value, list):
        return Field(value, TYPES[type(value)])
    kind = {int: "INT32", float: "FLOAT32", str: "STRING"}[type(value[0])]
    return Field(value, "ARRAY", kind)


def of_type(kind: str) -> Fields:
    """What says how the tensors are stored."""
    return {
        "general.file_type": field(FILE_TYPES[kind]),
        "general.quantization_version": field(QUANTIZATION_VERSION),
    }


def add_to(writer: Any, fields: Fields) -> None:
    """Hand all fields to the ``gguf`` package's writer, which has the architecture."""
    import gguf

    kinds = gguf.GGUFValueType
    for key, one in fields.items():
        if key != "general.architecture":
            inner = kinds[one.elements] if one.elements else None
            writer.add_key_value(key, one.value, kinds[one.type], inner)
