"""The service: jobs, workers, serving, inspection, storage, metrics.

`main` runs it, `application` builds it. Domain code (`jobs`, `workers`,
`serving`, `inspection`) does not use gRPC; the servicers in `api` do not use SQL.
"""
