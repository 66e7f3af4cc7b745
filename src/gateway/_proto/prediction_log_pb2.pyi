from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NONE: _ClassVar[Codec]
    DEFLATE: _ClassVar[Codec]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLED: _ClassVar[Reason]
    ERROR: _ClassVar[Reason]
    OUTLIER: _ClassVar[Reason]
    CANARY: _ClassVar[Reason]
    PINNED: _ClassVar[Reason]
NONE: Codec
DEFLATE: Codec
SAMPLED: Reason
ERROR: Reason
OUTLIER: Reason
CANARY: Reason
PINNED: Reason

class LogFrame(_message.Message):
    __slots__ = ("schema_version", "producer", "epoch", "sequence", "rows", "crc32", "codec", "payload", "accounting")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTING_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    producer: str
    epoch: int
    sequence: int
    rows: int
    crc32: int
    codec: Codec
    payload: bytes
    accounting: Accounting
    def __init__(self, schema_version: _Optional[int] = ..., producer: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., rows: _Optional[int] = ..., crc32: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., payload: _Optional[bytes] = ..., accounting: _Optional[_Union[Accounting, _Mapping[str, object]]] = ...) -> None: ...

class Accounting(_message.Message):
    __slots__ = ("produced", "dropped", "at_ns")
    class Drops(_message.Message):
        __slots__ = ("reason", "rows")
        REASON_FIELD_NUMBER: _ClassVar[int]
        ROWS_FIELD_NUMBER: _ClassVar[int]
        reason: str
        rows: int
        def __init__(self, reason: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...
    class Produced(_message.Message):
        __slots__ = ("model", "version", "arm", "rows")
        MODEL_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        ARM_FIELD_NUMBER: _ClassVar[int]
        ROWS_FIELD_NUMBER: _ClassVar[int]
        model: str
        version: int
        arm: str
        rows: int
        def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., arm: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...
    PRODUCED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    AT_NS_FIELD_NUMBER: _ClassVar[int]
    produced: _containers.RepeatedCompositeFieldContainer[Accounting.Produced]
    dropped: _containers.RepeatedCompositeFieldContainer[Accounting.Drops]
    at_ns: int
    def __init__(self, produced: _Optional[_Iterable[_Union[Accounting.Produced, _Mapping[str, object]]]] = ..., dropped: _Optional[_Iterable[_Union[Accounting.Drops, _Mapping[str, object]]]] = ..., at_ns: _Optional[int] = ...) -> None: ...

class RowBatch(_message.Message):
    __slots__ = ("model", "version", "digest", "policy", "rows", "key_ends", "key_bytes", "key_hashes", "row_indexes", "arrived_ns", "done_ns", "queue_us", "infer_us", "arms", "arm_codes", "statuses", "status_codes", "reasons", "weights", "columns", "subject_hashes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    KEY_ENDS_FIELD_NUMBER: _ClassVar[int]
    KEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEY_HASHES_FIELD_NUMBER: _ClassVar[int]
    ROW_INDEXES_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_NS_FIELD_NUMBER: _ClassVar[int]
    DONE_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    INFER_US_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    ARM_CODES_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    STATUS_CODES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_HASHES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    digest: str
    policy: str
    rows: int
    key_ends: bytes
    key_bytes: bytes
    key_hashes: bytes
    row_indexes: bytes
    arrived_ns: bytes
    done_ns: bytes
    queue_us: bytes
    infer_us: bytes
    arms: _containers.RepeatedScalarFieldContainer[str]
    arm_codes: bytes
    statuses: _containers.RepeatedScalarFieldContainer[str]
    status_codes: bytes
    reasons: bytes
    weights: bytes
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    subject_hashes: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., policy: _Optional[str] = ..., rows: _Optional[int] = ..., key_ends: _Optional[bytes] = ..., key_bytes: _Optional[bytes] = ..., key_hashes: _Optional[bytes] = ..., row_indexes: _Optional[bytes] = ..., arrived_ns: _Optional[bytes] = ..., done_ns: _Optional[bytes] = ..., queue_us: _Optional[bytes] = ..., infer_us: _Optional[bytes] = ..., arms: _Optional[_Iterable[str]] = ..., arm_codes: _Optional[bytes] = ..., statuses: _Optional[_Iterable[str]] = ..., status_codes: _Optional[bytes] = ..., reasons: _Optional[bytes] = ..., weights: _Optional[bytes] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping[str, object]]]] = ..., subject_hashes: _Optional[bytes] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "role", "kind", "dtype", "width", "data", "dictionary", "labels")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NUMERIC: _ClassVar[Column.Kind]
        CATEGORY: _ClassVar[Column.Kind]
        PROJECTION: _ClassVar[Column.Kind]
    NUMERIC: Column.Kind
    CATEGORY: Column.Kind
    PROJECTION: Column.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    kind: Column.Kind
    dtype: str
    width: int
    data: bytes
    dictionary: _containers.RepeatedScalarFieldContainer[bytes]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., kind: _Optional[_Union[Column.Kind, str]] = ..., dtype: _Optional[str] = ..., width: _Optional[int] = ..., data: _Optional[bytes] = ..., dictionary: _Optional[_Iterable[bytes]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class LogAck(_message.Message):
    __slots__ = ("producer", "epoch", "applied_sequence", "durable_sequence", "credit_bytes", "credit_frames", "refused", "sample_hint")
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    APPLIED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FRAMES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_HINT_FIELD_NUMBER: _ClassVar[int]
    producer: str
    epoch: int
    applied_sequence: int
    durable_sequence: int
    credit_bytes: int
    credit_frames: int
    refused: _containers.RepeatedCompositeFieldContainer[Refusal]
    sample_hint: float
    def __init__(self, producer: _Optional[str] = ..., epoch: _Optional[int] = ..., applied_sequence: _Optional[int] = ..., durable_sequence: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., credit_frames: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[Refusal, _Mapping[str, object]]]] = ..., sample_hint: _Optional[float] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("sequence", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("id", "row", "number", "category", "at_ns", "source", "revision", "weight")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    AT_NS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    id: str
    row: int
    number: float
    category: str
    at_ns: int
    source: str
    revision: int
    weight: float
    def __init__(self, id: _Optional[str] = ..., row: _Optional[int] = ..., number: _Optional[float] = ..., category: _Optional[str] = ..., at_ns: _Optional[int] = ..., source: _Optional[str] = ..., revision: _Optional[int] = ..., weight: _Optional[float] = ...) -> None: ...

class LabelBatch(_message.Message):
    __slots__ = ("model", "labels")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, model: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping[str, object]]]] = ...) -> None: ...

class LabelReply(_message.Message):
    __slots__ = ("accepted", "refused")
    class Refused(_message.Message):
        __slots__ = ("index", "reason")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        index: int
        reason: str
        def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    refused: _containers.RepeatedCompositeFieldContainer[LabelReply.Refused]
    def __init__(self, accepted: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[LabelReply.Refused, _Mapping[str, object]]]] = ...) -> None: ...
