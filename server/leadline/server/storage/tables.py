"""The tables of jobs, sweeps and their events.

Times are whole microseconds since 1970 UTC, which every database stores exactly.
JSON columns are text.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite numbers rows by itself only in a column of type INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")

sweeps = Table(
    "sweeps",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("sweep_id", String(32), nullable=False, unique=True),
    Column("request_id", String(36), unique=True),
    Column("grid", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("median_stopping", Text),
    # Whether a caller has cancelled it; the rest of its state follows from its jobs.
    Column("is_cancelled", Boolean, nullable=False, default=False),
    Column("create_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("latest_sequence", Integer, nullable=False, default=0),
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("job_id", String(32), nullable=False, unique=True),
    Column("request_id", String(36), unique=True),
    Column("sweep_id", ForeignKey("sweeps.sweep_id")),
    Column("spec", Text, nullable=False),
    # Copies of the spec's values, which queries filter by.
    Column("dataset", String(64), nullable=False),
    Column("blocks", Integer, nullable=False),
    Column("block_convolutions", Integer, nullable=False),
    Column("batch_norm", Boolean, nullable=False),
    Column("residual", Boolean, nullable=False),
    Column("options", Text, nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("deadline", BigInteger),
    Column("state", String(16), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("completed_epochs", Integer, nullable=False, default=0),
    Column("best_epoch", Integer, nullable=False, default=0),
    Column("best_test_accuracy", Float, nullable=False, default=0.0),
    Column("failure_reason", String(64)),
    Column("failure_message", Text),
    Column("cancel_reason", String(64)),
    Column("cancel_message", Text),
    Column("device", String(64), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("latest_sequence", Integer, nullable=False, default=0),
    # The queue in the order in which it starts; then the listings, newest first.
    Index("jobs_in_queue", "state", text("priority DESC"), "number"),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_by_dataset", "dataset", "number"),
    Index("jobs_by_sweep", "sweep_id", "number"),
    # Holds all that the counts of a sweep need.
    Index("jobs_by_sweep_state", "sweep_id", "state", "number", "start_time", "cancel_reason"),
    Index("jobs_by_deadline", "state", "deadline"),
    Index("jobs_by_accuracy", "best_test_accuracy", "number"),
    Index(
        "jobs_by_variant",
        "dataset",
        "blocks",
        "block_convolutions",
        "batch_norm",
        "residual",
        "best_test_accuracy",
    ),
)

events = Table(
    "events",
    metadata,
    Column("job_number", ForeignKey("jobs.number"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("create_time", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    # On events of kind "epoch": its number, its test accuracy, the attempt that
    # wrote its checkpoint, and whether retention has kept that.
    Column("epoch", Integer),
    Column("test_accuracy", Float),
    Column("attempt", Integer),
    Column("is_kept", Boolean),
    Column("body", Text, nullable=False),
    Index("events_by_kind", "job_number", "kind", "epoch"),
)

sweep_events = Table(
    "sweep_events",
    metadata,
    Column("sweep_id", ForeignKey("sweeps.sweep_id"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    # Events of the sweep itself have a body; others refer to an event of a job.
    Column("create_time", BigInteger, nullable=False),
    Column("body", Text),
    Column("job_number", ForeignKey("jobs.number")),
    Column("job_sequence", Integer),
    # For the foreign key: without it, each deleted job is looked for in the whole table.
    Index("sweep_events_by_job", "job_number"),
)
