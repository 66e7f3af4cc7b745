"""Protobuf messages as JSON objects with integers as numbers and enums as names.

Protobuf's own JSON mapping writes 64-bit integers as strings, which clients of the statistics and
configuration extensions do not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from google.protobuf.message import Message


def message_json(message: Message) -> dict[str, Any]:
    """Return every field under its name in the .proto file.

    Scalars, lists and maps are always there, empty or not; a nested message or a member of a oneof only if
    it is set.
    """
    return {
        field.name: _field_value(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field_value(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        item = entry.fields_by_name["value"]
        return {str(key): _item(value[key], item) for key in sorted(value)}
    if field.is_repeated:
        return [_item(item, field) for item in value]
    return _item(value, field)


def _item(value: Any, field: FieldDescriptor) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return message_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value
