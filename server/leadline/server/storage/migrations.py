"""Schema migrations: statements that migrate an older database to this version."""

from sqlalchemy import Connection

from leadline.server.storage.tables import COUNTING, HAS_MODEL, SUMMING

# The version of the schema; every change of the tables increases it by one.
SCHEMA = 6

# Schema 1 had neither sweeps nor residual networks.
_FROM_1 = (
    """
    CREATE TABLE sweeps (
        number INTEGER NOT NULL PRIMARY KEY,
        sweep_id VARCHAR(32) NOT NULL UNIQUE,
        request_id VARCHAR(36) UNIQUE,
        grid TEXT NOT NULL,
        options TEXT NOT NULL,
        median_stopping TEXT,
        is_cancelled BOOLEAN NOT NULL,
        create_time BIGINT NOT NULL,
        end_time BIGINT,
        latest_sequence INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE sweep_events (
        sweep_id VARCHAR(32) NOT NULL REFERENCES sweeps (sweep_id),
        sequence INTEGER NOT NULL,
        create_time BIGINT NOT NULL,
        body TEXT,
        job_number INTEGER REFERENCES jobs (number),
        job_sequence INTEGER,
        PRIMARY KEY (sweep_id, sequence)
    )
    """,
    "ALTER TABLE jobs ADD COLUMN sweep_id VARCHAR(32) REFERENCES sweeps (sweep_id)",
    "ALTER TABLE jobs ADD COLUMN cancel_reason VARCHAR(64)",
    "ALTER TABLE jobs ADD COLUMN cancel_message TEXT",
    "ALTER TABLE events ADD COLUMN test_accuracy FLOAT",
    """
    UPDATE jobs SET cancel_reason = 'REQUESTED', cancel_message = 'a caller cancelled it'
    WHERE state = 'cancelled'
    """,
    "CREATE INDEX jobs_by_sweep ON jobs (sweep_id, number)",
    "ALTER TABLE jobs ADD COLUMN residual BOOLEAN NOT NULL DEFAULT 0",
    "DROP INDEX jobs_by_variant",
    """
    CREATE INDEX jobs_by_variant
    ON jobs (dataset, blocks, batch_norm, residual, best_test_accuracy)
    """,
)

# In schema 2 every block had two convolutions, without a column for their number.
_FROM_2 = (
    "ALTER TABLE jobs ADD COLUMN block_convolutions INTEGER NOT NULL DEFAULT 2",
    "UPDATE jobs SET spec = json_set(spec, '$.block_convolutions', 2)",
    "UPDATE sweeps SET grid = json_set(grid, '$.spec.block_convolutions', 2)",
    """
    UPDATE sweep_events SET body = json_set(body, '$.grid.spec.block_convolutions', 2)
    WHERE json_extract(body, '$.grid') IS NOT NULL
    """,
    """
    UPDATE events SET body = json_set(body, '$.spec.block_convolutions', 2)
    WHERE kind = 'queued'
    """,
    "DROP INDEX jobs_by_variant",
    """
    CREATE INDEX jobs_by_variant
    ON jobs (dataset, blocks, block_convolutions, batch_norm, residual, best_test_accuracy)
    """,
)

# Schema 3 lacked indexes and counts: listings, deletions and metrics read whole tables.
_FROM_3 = (
    "DROP INDEX jobs_by_state",
    "CREATE INDEX jobs_in_queue ON jobs (state, priority DESC, number)",
    "CREATE INDEX jobs_by_state ON jobs (state, number)",
    "CREATE INDEX jobs_by_dataset ON jobs (dataset, number)",
    "CREATE INDEX jobs_by_sweep_state ON jobs (sweep_id, state, number)",
    "CREATE INDEX jobs_by_deadline ON jobs (state, deadline)",
    "CREATE INDEX jobs_by_accuracy ON jobs (best_test_accuracy, number)",
    "CREATE TABLE deleted_jobs (number INTEGER NOT NULL PRIMARY KEY)",
    "CREATE INDEX sweep_events_by_job ON sweep_events (job_number)",
    """
    CREATE TABLE job_counts (
        sweep_id VARCHAR(32) NOT NULL,
        state VARCHAR(16) NOT NULL,
        jobs INTEGER NOT NULL,
        begun INTEGER NOT NULL,
        median_stopped INTEGER NOT NULL,
        PRIMARY KEY (sweep_id, state)
    )
    """,
    """
    INSERT INTO job_counts
    SELECT coalesce(sweep_id, ''), state, count(*), count(start_time),
        count(*) FILTER (WHERE cancel_reason = 'MEDIAN_STOPPED')
    FROM jobs GROUP BY sweep_id, state
    """,
    *COUNTING,
)

# Schema 4 had no partial indexes of models, no counts of all jobs and of sweeps, and no ids of
# deleted jobs.
_VARIANT = "dataset, blocks, block_convolutions, batch_norm, residual"
_FROM_4 = (
    "DROP INDEX jobs_by_dataset",
    "DROP INDEX jobs_by_accuracy",
    "DROP INDEX jobs_by_variant",
    "DROP INDEX events_by_kind",
    f"CREATE INDEX models_by_number ON jobs (number) WHERE {HAS_MODEL}",
    f"CREATE INDEX models_by_dataset ON jobs (dataset, number) WHERE {HAS_MODEL}",
    f"CREATE INDEX models_by_accuracy ON jobs (best_test_accuracy, number) WHERE {HAS_MODEL}",
    f"CREATE INDEX models_by_variant ON jobs ({_VARIANT}, number) WHERE {HAS_MODEL}",
    f"CREATE INDEX best_by_variant ON jobs ({_VARIANT}, best_test_accuracy) WHERE {HAS_MODEL}",
    "CREATE INDEX events_by_kind ON events (job_number, kind, epoch, test_accuracy)",
    "CREATE INDEX sweeps_unfinished ON sweeps (number) WHERE end_time IS NULL",
    *(f"DROP TRIGGER count_{change}_job" for change in ("new", "changed", "deleted")),
    """
    INSERT INTO job_counts
    SELECT '', state, sum(jobs), sum(begun), sum(median_stopped)
    FROM job_counts WHERE true GROUP BY state
    ON CONFLICT (sweep_id, state) DO UPDATE SET
        jobs = excluded.jobs, begun = excluded.begun, median_stopped = excluded.median_stopped
    """,
    *COUNTING,
    "ALTER TABLE deleted_jobs ADD COLUMN job_id VARCHAR(32)",
    # Their ids are lost; any unique value lets `purge` remove their events.
    "UPDATE deleted_jobs SET job_id = 'number-' || number",
    """
    CREATE TABLE sweep_counts (
        state VARCHAR(16) NOT NULL PRIMARY KEY,
        sweeps INTEGER NOT NULL
    )
    """,
    """
    INSERT INTO sweep_counts
    SELECT
        CASE WHEN is_cancelled THEN 'cancelled'
            WHEN EXISTS (SELECT 1 FROM job_counts AS jobs
                WHERE jobs.sweep_id = sweeps.sweep_id AND jobs.state = 'failed') THEN 'failed'
            WHEN EXISTS (SELECT 1 FROM job_counts AS jobs
                WHERE jobs.sweep_id = sweeps.sweep_id AND jobs.state = 'succeeded')
                THEN 'succeeded'
            ELSE 'cancelled' END,
        count(*)
    FROM sweeps WHERE end_time IS NOT NULL GROUP BY 1
    """,
)

# Schema 5 had neither owners nor the sizes of files.
_FROM_5 = (
    "ALTER TABLE sweeps ADD COLUMN owner VARCHAR(256) NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN owner VARCHAR(256) NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN stored_bytes BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX sweeps_by_owner ON sweeps (owner, number)",
    "CREATE INDEX jobs_by_owner ON jobs (owner, number)",
    "CREATE INDEX jobs_by_owner_state ON jobs (owner, state, number)",
    "CREATE INDEX queue_by_owner ON jobs (state, owner, priority DESC, number)",
    f"CREATE INDEX models_by_owner ON jobs (owner, number) WHERE {HAS_MODEL}",
    f"CREATE INDEX models_by_owner_variant ON jobs (owner, {_VARIANT}, number) WHERE {HAS_MODEL}",
    """
    CREATE TABLE owner_bytes (
        owner VARCHAR(256) NOT NULL PRIMARY KEY,
        bytes BIGINT NOT NULL
    )
    """,
    *SUMMING,
)

# The statements that migrate a schema to the next one, by the older schema.
_MIGRATIONS = {1: _FROM_1, 2: _FROM_2, 3: _FROM_3, 4: _FROM_4, 5: _FROM_5}


class SchemaError(Exception):
    """The database was written by a newer version of Leadline."""


def migrate(connection: Connection) -> None:
    """Migrates an existing database to the newest schema.

    Raises:
        SchemaError: the database has a newer schema.
    """
    schema = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if not 1 <= schema <= SCHEMA:
        raise SchemaError(
            f"it has the schema {schema}, and this version of Leadline needs {SCHEMA}"
        )
    for step in range(schema, SCHEMA):
        for statement in _MIGRATIONS[step]:
            connection.exec_driver_sql(statement)
