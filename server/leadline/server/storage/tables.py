"""The tables of jobs, sweeps and their events.

Times are integer microseconds since 1970 UTC, which every database stores exactly.
JSON columns are text. Triggers maintain the counts of jobs.
"""

from sqlalchemy import (
    DDL,
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
    event,
    text,
)

metadata = MetaData()

# SQLite assigns row numbers only in a column of type INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")

# SQLite uses the partial indexes of models only if a query has exactly this condition.
HAS_MODEL = "completed_epochs > 0"

_VARIANT = ("dataset", "blocks", "block_convolutions", "batch_norm", "residual")

sweeps = Table(
    "sweeps",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("sweep_id", String(32), nullable=False, unique=True),
    # A caller's request id, different for each owner: see `preconditions.request_key`.
    Column("request_id", String(36), unique=True),
    # The identity that submitted it; "" without authentication.
    Column("owner", String(256), nullable=False, default="", server_default=""),
    Column("grid", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("median_stopping", Text),
    # Whether a caller has cancelled it; its jobs determine the rest of its state.
    Column("is_cancelled", Boolean, nullable=False, default=False),
    Column("create_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("latest_sequence", Integer, nullable=False, default=0),
    Index("sweeps_unfinished", "number", sqlite_where=text("end_time IS NULL")),
    Index("sweeps_by_owner", "owner", "number"),
)

# How many sweeps have ended in each state; there are few unfinished ones.
sweep_counts = Table(
    "sweep_counts",
    metadata,
    Column("state", String(16), primary_key=True),
    Column("sweeps", Integer, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("job_id", String(32), nullable=False, unique=True),
    Column("request_id", String(36), unique=True),
    Column("owner", String(256), nullable=False, default="", server_default=""),
    Column("sweep_id", ForeignKey("sweeps.sweep_id")),
    Column("spec", Text, nullable=False),
    # Copies of the spec's values, for the filters of queries.
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
    # The bytes of its files when they were last measured.
    Column("stored_bytes", BigInteger, nullable=False, default=0, server_default="0"),
    # First the queue, in the order in which jobs start; then listings, newest first.
    Index("jobs_in_queue", "state", text("priority DESC"), "number"),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_by_sweep", "sweep_id", "number"),
    Index("jobs_by_sweep_state", "sweep_id", "state", "number"),
    Index("jobs_by_deadline", "state", "deadline"),
    Index("jobs_by_owner", "owner", "number"),
    Index("jobs_by_owner_state", "owner", "state", "number"),
    Index("queue_by_owner", "state", "owner", text("priority DESC"), "number"),
    # Models are jobs with an epoch, which may be a small part of all jobs.
    Index("models_by_number", "number", sqlite_where=text(HAS_MODEL)),
    Index("models_by_dataset", "dataset", "number", sqlite_where=text(HAS_MODEL)),
    Index("models_by_accuracy", "best_test_accuracy", "number", sqlite_where=text(HAS_MODEL)),
    Index("models_by_variant", *_VARIANT, "number", sqlite_where=text(HAS_MODEL)),
    Index("best_by_variant", *_VARIANT, "best_test_accuracy", sqlite_where=text(HAS_MODEL)),
    Index("models_by_owner", "owner", "number", sqlite_where=text(HAS_MODEL)),
    Index("models_by_owner_variant", "owner", *_VARIANT, "number", sqlite_where=text(HAS_MODEL)),
)

# How many jobs are in each state, by sweep id ("" for all jobs: no id is empty); no row is zero.
# The time to count them in the table of jobs would grow with the number of jobs.
job_counts = Table(
    "job_counts",
    metadata,
    Column("sweep_id", String(32), primary_key=True),
    Column("state", String(16), primary_key=True),
    Column("jobs", Integer, nullable=False),
    # How many of them a worker has claimed, and the median stopping rule has cancelled.
    Column("begun", Integer, nullable=False),
    Column("median_stopped", Integer, nullable=False),
)

_COUNT_NEW = """
    INSERT INTO job_counts
    SELECT
        sweep_id, NEW.state,
        1, NEW.start_time IS NOT NULL, NEW.cancel_reason IS 'MEDIAN_STOPPED'
    FROM (SELECT '' AS sweep_id UNION ALL SELECT NEW.sweep_id)
    WHERE sweep_id IS NOT NULL
    ON CONFLICT (sweep_id, state) DO UPDATE SET
        jobs = jobs + 1,
        begun = begun + excluded.begun,
        median_stopped = median_stopped + excluded.median_stopped;
"""
_DISCOUNT_OLD = """
    UPDATE job_counts SET
        jobs = jobs - 1,
        begun = begun - (OLD.start_time IS NOT NULL),
        median_stopped = median_stopped - (OLD.cancel_reason IS 'MEDIAN_STOPPED')
    WHERE sweep_id IN ('', OLD.sweep_id) AND state = OLD.state;
    DELETE FROM job_counts
    WHERE sweep_id IN ('', OLD.sweep_id) AND state = OLD.state AND jobs = 0;
"""

# Statements that migrations share.
COUNTING = (
    f"CREATE TRIGGER count_new_job AFTER INSERT ON jobs BEGIN {_COUNT_NEW} END",
    f"""
    CREATE TRIGGER count_changed_job AFTER UPDATE OF state, start_time, cancel_reason ON jobs
    BEGIN {_DISCOUNT_OLD} {_COUNT_NEW} END
    """,
    f"CREATE TRIGGER count_deleted_job AFTER DELETE ON jobs BEGIN {_DISCOUNT_OLD} END",
)

# The sum of `jobs.stored_bytes` by owner.
owner_bytes = Table(
    "owner_bytes",
    metadata,
    Column("owner", String(256), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

SUMMING = (
    """
    CREATE TRIGGER sum_stored_bytes AFTER UPDATE OF stored_bytes ON jobs BEGIN
        INSERT INTO owner_bytes VALUES (NEW.owner, NEW.stored_bytes - OLD.stored_bytes)
        ON CONFLICT (owner) DO UPDATE SET bytes = bytes + excluded.bytes;
    END
    """,
    """
    CREATE TRIGGER subtract_stored_bytes AFTER DELETE ON jobs WHEN OLD.stored_bytes BEGIN
        UPDATE owner_bytes SET bytes = bytes - OLD.stored_bytes WHERE owner = OLD.owner;
    END
    """,
)
for _statement in (*COUNTING, *SUMMING):
    event.listen(jobs, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]

events = Table(
    "events",
    metadata,
    Column("job_number", ForeignKey("jobs.number"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("create_time", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    # For events of kind "epoch": its number, its test accuracy, the attempt that wrote
    # its checkpoint, and whether retention has kept the checkpoint.
    Column("epoch", Integer),
    Column("test_accuracy", Float),
    Column("attempt", Integer),
    Column("is_kept", Boolean),
    Column("body", Text, nullable=False),
    # Includes the accuracy, so that the median stopping rule reads no rows of events.
    Index("events_by_kind", "job_number", "kind", "epoch", "test_accuracy"),
)

# Deleted jobs with files and events that must still be removed: a few at a time, because there
# may be a hundred thousand events. No new job gets one of these numbers.
deleted_jobs = Table(
    "deleted_jobs",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("job_id", String(32)),
)

sweep_events = Table(
    "sweep_events",
    metadata,
    Column("sweep_id", ForeignKey("sweeps.sweep_id"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    # Events of the sweep itself have a body; other events refer to an event of a job.
    Column("create_time", BigInteger, nullable=False),
    Column("body", Text),
    Column("job_number", ForeignKey("jobs.number")),
    Column("job_sequence", Integer),
    # For the foreign key: without it, SQLite would scan the whole table for each deleted job.
    Index("sweep_events_by_job", "job_number"),
)
