"""The service: jobs, workers, serving, inspection, storage, metrics.

`main` runs it, `application` builds it. Domain code (`jobs`, `workers`,
`serving`, `inspection`) knows no gRPC; the servicers in `api` know no SQL.
"""
